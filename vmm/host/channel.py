"""Byte channels: what a port of a guest's console is bound to on the host."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from vmm.errors import UsageError
from vmm.host.endpoint import parse_endpoint
from vmm.host.sources import CHUNK, Descriptor, Door

if TYPE_CHECKING:
    from vmm.host.stream import Stream

BACKLOG: Final = 1 << 20  # bytes for a peer that does not read; what comes then is dropped


def _nobody(_data: bytes) -> None:
    """No port is bound."""


def _no_room() -> int:
    return 0


class Channel(Protocol):
    """A way for bytes in both directions; a `HostSource` too."""

    def bind(self, take: Door, room: Callable[[], int]) -> None:
        """Give what comes to `take`, never more than `room()` bytes at once."""

    def write(self, data: bytes) -> None:
        """Take bytes from the guest; never blocks."""

    def poll(self) -> bool:
        """Take in what is there; say whether the guest can notice."""

    def descriptors(self) -> list[Descriptor]:
        """Return what to wait for."""

    def expects(self) -> bool:
        """Whether anything may still come."""

    def close(self) -> None:
        """Let go of everything on the host."""


class Output:
    """A channel that only takes: a terminal's screen, or nothing at all.

    What is typed is given to `receive` by whoever reads the terminal.
    """

    def __init__(self, write: Door = _nobody) -> None:
        """`write` gets what the guest says."""
        self.write: Final = write
        self.receive: Door = _nobody

    def bind(self, take: Door, room: Callable[[], int]) -> None:
        """Give what is typed to `take`; a terminal is read no faster than one types."""
        del room
        self.receive = take

    def poll(self) -> bool:
        """Nothing comes by itself."""
        return False

    def descriptors(self) -> list[Descriptor]:
        """Nothing is waited for."""
        return []

    def expects(self) -> bool:
        """Nothing comes by itself."""
        return False

    def close(self) -> None:
        """Nothing to let go of."""


class FileChannel(Output):
    """What the guest says goes into a file, which is made anew."""

    def __init__(self, path: Path, option: str) -> None:
        """Raises UsageError when the file cannot be written."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._number = os.open(path, flags, 0o666)
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise UsageError(
                f"{option}: {str(path)!r} cannot be written: {words}; "
                "name a file in a writable folder"
            ) from None
        super().__init__(self._append)

    def close(self) -> None:
        """Close the file."""
        if self._number >= 0:
            os.close(self._number)
        self._number = -1

    def _append(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._number, data) :]
        except OSError:
            return  # a full disk, or a pipe nobody reads: a serial line loses bytes too


class StreamChannel:
    """A socket: what comes goes to the guest, and back."""

    def __init__(self, stream: "Stream") -> None:
        """The stream belongs to the channel from now on."""
        self.stream: Final = stream
        self._take: Door = _nobody
        self._room: Callable[[], int] = _no_room

    def bind(self, take: Door, room: Callable[[], int]) -> None:
        """Give what comes to `take`, never more than `room()` bytes at once."""
        self._take, self._room = take, room

    def write(self, data: bytes) -> None:
        """Send; lost when nobody is there or the peer does not read."""
        if len(self.stream.unsent) <= BACKLOG:
            self.stream.send(data)

    def poll(self) -> bool:
        """Take in what has come and the guest has room for."""
        if not self.stream.accept():
            return False
        self.stream.flush()
        if not (room := self._room()):
            return False
        data = self.stream.receive(min(room, CHUNK))
        if data:
            self._take(data)
        return bool(data)

    def descriptors(self) -> list[Descriptor]:
        """Return the socket, unless the guest has no room."""
        return self.stream.descriptors(reading=self._room() > 0)

    def expects(self) -> bool:
        """Whether a socket is open."""
        return bool(self.descriptors())

    def close(self) -> None:
        """End the connection."""
        self.stream.close()


def open_channel(option: str, words: str) -> Channel:
    """Open listen=ADDRESS, connect=ADDRESS, file=PATH or null. Raises UsageError."""
    from vmm.host.stream import Stream  # sockets

    kind, _, value = words.partition("=")
    if kind == "file" and value:
        return FileChannel(Path(value), option)
    if kind == "listen":
        return StreamChannel(Stream.listening(parse_endpoint(option, value), option))
    if kind == "connect":
        return StreamChannel(Stream.connected(parse_endpoint(option, value), option))
    if words == "null":
        return Output()
    raise UsageError(
        f"{option}: {words!r} is no channel; write listen=unix:PATH, connect=HOST:PORT, "
        "file=PATH or null"
    )
