"""IPv4 datagrams put together from their fragments (RFC 791, "Fragmentation and Reassembly").

It stands before libslirp, whose own reassembly a guest can make write where it should not (seen
with 4.7: overlapping fragments, and ones that end behind 64 KiB): whole datagrams only go there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

PACKET_MAX: Final = 0xFFFF
DATAGRAMS_MAX: Final = 64  # being put together at once; the oldest is given up
PIECES_MAX: Final = 2048  # of one datagram; 64 KiB through an MTU of 68 are 1366
LIFETIME_NS: Final = 15_000_000_000  # RFC 791: "the initial setting of the timer"
ETHERNET: Final = 14
_MORE, _OFFSET, _UNIT = 0x2000, 0x1FFF, 8


@dataclass(slots=True)
class _Datagram:
    born: int
    head: bytes = b""
    total: int = -1
    received: int = 0
    pieces: dict[int, bytes] = field(default_factory=dict)

    def whole(self) -> bytes | None:
        """Return the payload once no byte is missing; of bytes that came twice the later win."""
        if not self.head or not 0 <= self.total <= self.received:
            return None
        payload, filled = bytearray(self.total), 0
        for start in sorted(self.pieces):
            piece = self.pieces[start]
            if start > filled:
                return None
            payload[start : start + len(piece)] = piece
            filled = max(filled, start + len(piece))
        return bytes(payload[: self.total]) if filled >= self.total else None


class Reassembler:
    """Takes Ethernet frames with sound IPv4 headers; gives whole datagrams in frames."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        """`now_ns` is virtual time."""
        self._now: Final = now_ns
        self._open: dict[bytes, _Datagram] = {}

    def take(self, frame: bytes) -> bytes | None:
        """Return a frame to pass on: this one, if it is no fragment, or the whole that it ends."""
        place = int.from_bytes(frame[ETHERNET + 6 : ETHERNET + 8], "big")
        if not place & (_MORE | _OFFSET):
            return frame
        head = ETHERNET + 4 * (frame[ETHERNET] & 15)
        end = ETHERNET + int.from_bytes(frame[ETHERNET + 2 : ETHERNET + 4], "big")
        payload, start = frame[head:end], (place & _OFFSET) * _UNIT
        more = bool(place & _MORE)
        if start + len(payload) + head - ETHERNET > PACKET_MAX or (more and len(payload) % _UNIT):
            return None
        return self._add(frame[:head], start, payload, more=more)

    def _add(self, head: bytes, start: int, payload: bytes, *, more: bool) -> bytes | None:
        ip = head[ETHERNET:]
        key = ip[12:20] + ip[9:10] + ip[4:6]  # addresses, protocol, identification
        datagram = self._datagram(key)
        datagram.pieces[start] = payload
        datagram.received += len(payload)
        if len(datagram.pieces) > PIECES_MAX:
            del self._open[key]
            return None
        if start == 0:
            datagram.head = head
        if not more:
            datagram.total = start + len(payload)
        if (whole := datagram.whole()) is None:
            return None
        del self._open[key]
        size = len(datagram.head) - ETHERNET + len(whole)
        return _with_length(datagram.head, size) + whole if size <= PACKET_MAX else None

    def _datagram(self, key: bytes) -> _Datagram:
        now = self._now()
        for old in [k for k, d in self._open.items() if now - d.born > LIFETIME_NS]:
            del self._open[old]
        if key not in self._open and len(self._open) >= DATAGRAMS_MAX:
            del self._open[next(iter(self._open))]
        return self._open.setdefault(key, _Datagram(now))


def _with_length(head: bytes, size: int) -> bytes:
    """Return the Ethernet and IP headers for `size` bytes of packet, with no fragment fields."""
    ip = bytearray(head[ETHERNET:])
    ip[2:4] = size.to_bytes(2, "big")
    ip[6:8] = ip[10:12] = bytes(2)
    total = int.from_bytes(ip, "big") % PACKET_MAX
    ip[10:12] = (PACKET_MAX - total).to_bytes(2, "big")
    return head[:ETHERNET] + bytes(ip)
