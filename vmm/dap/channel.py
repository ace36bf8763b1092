"""Messages of the Debug Adapter Protocol over a pair of descriptors.

Specification, "Base Protocol": a header `Content-Length: N`, a blank line, N bytes of JSON.
"""

import json
import os
import select
from collections.abc import Iterator
from typing import Any, Final

MESSAGE_MAX: Final = 1 << 22  # bytes
_HEADER_MAX: Final = 1 << 12
_CHUNK: Final = 1 << 16

Message = dict[str, Any]


class ChannelError(Exception):
    """What came is no message; there is no way to find the next one."""


class Decoder:
    """Takes bytes in pieces of any size."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that `data` completes. Raises ChannelError."""
        self._held += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> Message | None:
        end = self._held.find(b"\r\n\r\n")
        if end < 0:
            if len(self._held) > _HEADER_MAX:
                raise ChannelError("a header without an end")
            return None
        size = _length(bytes(self._held[:end]))
        if len(self._held) < end + 4 + size:
            return None
        body = bytes(self._held[end + 4 : end + 4 + size])
        del self._held[: end + 4 + size]
        try:
            message = json.loads(body)
        except (ValueError, RecursionError):
            raise ChannelError("a message that is no JSON") from None
        if not isinstance(message, dict):
            raise ChannelError("a message that is no object")
        return message


def _length(header: bytes) -> int:
    for line in header.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            size = int(value.strip()[:12])
            if size <= MESSAGE_MAX:
                return size
    raise ChannelError("a header without a Content-Length that can be taken")


def encode(message: Message) -> bytes:
    """Return a message as it goes over the wire."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


class Channel:
    """Both directions; `is_open` until the client has gone."""

    def __init__(self, reads: int, writes: int) -> None:
        """Two file descriptors."""
        self._reads: Final = reads
        self._writes: Final = writes
        self._decoder: Final = Decoder()
        self.is_open = True

    def receive(self, seconds: float | None) -> list[Message]:
        """Return what has come, waiting so long for something (None: for ever)."""
        if not self.is_open:
            return []
        ready, _, _ = select.select([self._reads], [], [], seconds)
        if not ready:
            return []
        try:
            data = os.read(self._reads, _CHUNK)
        except OSError:
            data = b""
        if not data:
            self.is_open = False
        try:
            return list(self._decoder.feed(data))
        except ChannelError:
            self.is_open = False
            raise

    def send(self, message: Message) -> None:
        """Send; a client that has gone hears nothing."""
        data = encode(message)
        try:
            while data:
                data = data[os.write(self._writes, data) :]
        except OSError:
            self.is_open = False
