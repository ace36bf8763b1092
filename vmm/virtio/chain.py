"""What a driver hands over: scattered pieces of guest memory, each checked to be RAM.

A `Buffer` is the one way by which devices touch what a descriptor names. Its pieces were checked
when the chain was taken off the ring, so that no access can leave guest memory; every write through
it marks pages dirty and drops code that was translated from them.
"""

from collections.abc import Iterator
from typing import Final

from vmm.memory.guest import GuestMemory

Segment = tuple[int, int]
"""(machine address, bytes) of one piece, inside RAM."""


class RingError(Exception):
    """A driver's garbage, described; never leaves the package: the device goes to NEEDS_RESET."""


class Buffer:
    """Pieces of guest memory, end to end: offsets are 0 .. size - 1 bytes across all of them."""

    __slots__ = ("_memory", "segments", "size")

    def __init__(self, memory: GuestMemory, segments: list[Segment]) -> None:
        """`segments` lie in RAM: whoever makes a Buffer has checked it."""
        self._memory: Final = memory
        self.segments: Final = segments
        self.size: Final = sum(size for _, size in segments)

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Return up to `size` bytes from `offset`: fewer where the buffer ends."""
        view = self._memory.ram.view
        if size is not None and self.segments and 0 <= offset <= self.segments[0][1] - size:
            at = self.segments[0][0] + offset  # a header, mostly
            return bytes(view[at : at + max(size, 0)])
        return b"".join(view[at : at + n] for at, n in self._pieces(offset, size))

    def write(self, offset: int, data: bytes | memoryview) -> int:
        """Store `data` at `offset`; return how many bytes found room."""
        view, done = self._memory.ram.view, 0
        for at, n in self._pieces(offset, len(data)):
            view[at : at + n] = data[done : done + n]
            self._memory.wrote(at, n)
            done += n
        return done

    def fill(self, offset: int, size: int) -> int:
        """Store zeroes; return how many bytes found room."""
        view, done = self._memory.ram.view, 0
        for at, n in self._pieces(offset, size):
            view[at : at + n] = bytes(n)
            self._memory.wrote(at, n)
            done += n
        return done

    def views(self, offset: int = 0, size: int | None = None) -> list[memoryview]:
        """Return the memory itself, for preadv() and the like; tell `wrote` what was stored."""
        view = self._memory.ram.view
        return [view[at : at + n] for at, n in self._pieces(offset, size)]

    def wrote(self, offset: int = 0, size: int | None = None) -> None:
        """Say that bytes were stored through `views`."""
        for at, n in self._pieces(offset, size):
            self._memory.wrote(at, n)

    def cut(self, offset: int, size: int | None = None) -> "Buffer":
        """Return a part of this buffer, as a buffer."""
        return Buffer(self._memory, list(self._pieces(offset, size)))

    def _pieces(self, offset: int, size: int | None) -> Iterator[Segment]:
        left = self.size - offset if size is None else min(size, self.size - offset)
        if offset < 0 or left <= 0:
            return
        for at, n in self.segments:
            if offset >= n:
                offset -= n
                continue
            part = min(n - offset, left)
            yield at + offset, part
            left, offset = left - part, 0
            if not left:
                return


class Chain:
    """One request: what the driver gives (`readable`) and where the answer goes (`writable`)."""

    __slots__ = ("epoch", "id", "length", "readable", "writable")

    def __init__(
        self, number: int, length: int, epoch: int, readable: Buffer, writable: Buffer
    ) -> None:
        """`number` is the head descriptor or buffer id, `length` the ring slots it takes."""
        self.id: Final = number
        self.length: Final = length
        self.epoch: Final = epoch  # of the queue: a chain from before a reset is not pushed
        self.readable: Final = readable
        self.writable: Final = writable

    def save(self) -> list[int]:
        """Return plain numbers, from which `VirtQueue.restore_chain` makes the chain again."""
        readable, writable = self.readable.segments, self.writable.segments
        flat = [number for piece in (*readable, *writable) for number in piece]
        return [self.id, self.length, len(readable), *flat]
