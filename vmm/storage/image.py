"""What a disk image is to a device, and the scattered buffers that go in and out of it."""

from collections.abc import Sequence
from typing import Final, Protocol

SECTOR: Final = 512

Views = Sequence[memoryview]
"""Pieces of memory that are read into, or written from, one after the other."""


class StorageError(Exception):
    """The host could not do it (no space, a bad medium, a corrupt table): an I/O error for the
    guest, never the end of the run.
    """


class Image(Protocol):
    """A disk's content: `size` bytes, a multiple of 512.

    Ranges are within `size`: the device has checked. All raise StorageError when the host fails.
    """

    size: int
    read_only: bool

    def read(self, offset: int, views: Views) -> None:
        """Fill `views` from `offset`."""

    def write(self, offset: int, views: Views) -> None:
        """Store `views` at `offset`; durable after flush()."""

    def zero(self, offset: int, size: int, *, unmap: bool) -> None:
        """Make a range read as zeroes; `unmap` allows to give its storage back."""

    def discard(self, offset: int, size: int) -> None:
        """Note that nobody needs what is in a range."""

    def flush(self) -> None:
        """Make everything written so far survive the end of this process and of this host."""

    def close(self) -> None:
        """Flush and let go of the file, even if that raises StorageError."""


def total(views: Views) -> int:
    """Return the bytes in all `views`."""
    return sum(len(view) for view in views)


class Pieces:
    """Views that are used up from the front."""

    def __init__(self, views: Views) -> None:
        """`views` are not changed."""
        self._left = list(reversed(views))

    def take(self, size: int) -> list[memoryview]:
        """Return the next `size` bytes as views."""
        taken: list[memoryview] = []
        while size and self._left:
            view = self._left.pop()
            if len(view) > size:
                self._left.append(view[size:])
                view = view[:size]
            taken.append(view)
            size -= len(view)
        return taken


def clear(views: Views) -> None:
    """Fill `views` with zeroes."""
    for view in views:
        view[:] = bytes(len(view))


def scatter(data: bytes | memoryview, views: Views) -> None:
    """Copy `data` into `views`, which have room for just that."""
    at = 0
    for view in views:
        view[:] = data[at : at + len(view)]
        at += len(view)
