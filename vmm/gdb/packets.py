"""Packets of the remote protocol: bytes of a socket in, payloads out, and the way back.

gdb manual, "Remote Protocol", section "Overview": `$payload#cc`, the sum of the payload's bytes as
they were sent modulo 256 in two hex digits; `}` escapes the next byte (XOR 0x20); `*` repeats the
byte before it (the count is the next byte less 29).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

PACKET_SIZE: Final = 0x4000
"""The longest payload that is taken, in bytes: what `qSupported` promises."""
_ESCAPED: Final = frozenset(b"}#$*")
_DOLLAR, _HASH, _BRACE, _STAR = b"$#}*"
_HEX: Final = b"0123456789abcdefABCDEF"
_REPEAT_MIN, _REPEAT_BIAS = 32, 29  # a count is a printable byte: at least three times more


class Signal(Enum):
    """What is not a packet."""

    ACK = auto()
    NACK = auto()
    INTERRUPT = auto()
    """0x03 between packets: stop the guest."""
    GARBLED = auto()
    """A packet that cannot be read: a wrong sum, a bad escape, or too long."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A payload, escapes and repetitions undone."""

    payload: bytes


_SIGNALS: Final = {ord("+"): Signal.ACK, ord("-"): Signal.NACK, 3: Signal.INTERRUPT}


class Decoder:
    """Takes the bytes of a connection in pieces of any size; never raises, keeps little."""

    def __init__(self, most: int = PACKET_SIZE) -> None:
        """Payloads are at most `most` bytes long."""
        self._most: Final = most
        self._body: bytearray | None = None
        """The packet under way, None between packets."""
        self._tail = bytearray()
        self._in_tail = False
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[Packet | Signal]:
        """Yield what `data` completes, in order."""
        at = 0
        while at < len(data):
            if self._body is None:
                found = _SIGNALS.get(data[at])
                if data[at] == _DOLLAR:
                    self._begin()
                at += 1
                if found is not None:
                    yield found
            elif self._in_tail:
                self._tail.append(data[at])
                at += 1
                if len(self._tail) == 2:
                    yield self._end()
            else:
                at = self._take_body(data, at)

    @property
    def held(self) -> int:
        """Bytes kept of a packet that is not whole yet."""
        return len(self._body or b"")

    def _begin(self) -> None:
        self._body, self._in_tail, self._too_long = bytearray(), False, False
        self._tail.clear()

    def _take_body(self, data: bytes, at: int) -> int:
        """Take bytes up to `#`, or to a `$`, which begins again: the rest of this one was lost."""
        assert self._body is not None
        end, again = data.find(b"#", at), data.find(b"$", at)
        if again >= 0 and (end < 0 or again < end):
            self._begin()
            return again + 1
        stop = len(data) if end < 0 else end
        room = 2 * self._most - len(self._body)  # each byte may be escaped
        self._too_long |= stop - at > room
        self._body += data[at : min(stop, at + room)]
        self._in_tail = end >= 0
        return stop + 1

    def _end(self) -> Packet | Signal:
        body, self._body = bytes(self._body or b""), None
        if self._too_long or any(digit not in _HEX for digit in self._tail):
            return Signal.GARBLED
        if int(self._tail, 16) != sum(body) & 0xFF:
            return Signal.GARBLED
        payload = _plain(body, self._most)
        return Signal.GARBLED if payload is None else Packet(payload)


def _plain(body: bytes, most: int) -> bytes | None:
    """Undo escapes and repetitions; None if they make no sense or too many bytes."""
    if _BRACE not in body and _STAR not in body:
        return body if len(body) <= most else None
    out, at = bytearray(), 0
    while at < len(body) and len(out) <= most:
        byte = body[at]
        if byte in (_BRACE, _STAR):
            at += 1
            if at == len(body):
                return None
            if byte == _BRACE:
                out.append(body[at] ^ 0x20)
            elif not out or not _REPEAT_MIN <= body[at] < 127:
                return None
            else:
                out += out[-1:] * (body[at] - _REPEAT_BIAS)
        else:
            out.append(byte)
        at += 1
    return bytes(out) if len(out) <= most else None


def frame(payload: bytes) -> bytes:
    """Return a payload as it goes over the wire."""
    body = escaped(payload)
    return b"$%b#%02x" % (body, sum(body) & 0xFF)


def escaped(payload: bytes) -> bytes:
    """Escape what a packet cannot contain."""
    if not _ESCAPED.intersection(payload):
        return payload
    out = bytearray()
    for byte in payload:
        if byte in _ESCAPED:
            out += bytes((_BRACE, byte ^ 0x20))
        else:
            out.append(byte)
    return bytes(out)
