"""Raw images: byte n of the file is byte n of the disk."""

from typing import Final

from vmm.errors import UsageError
from vmm.storage.hostfile import HostFile
from vmm.storage.image import SECTOR, Pieces, StorageError, Views
from vmm.storage.probe import PROBED, probe

_ZEROES: Final = memoryview(bytes(1 << 20))


class RawImage:
    """A raw image."""

    def __init__(self, file: HostFile, *, guarded: bool) -> None:
        """`guarded`: the format was guessed, so a guest must not be able to change the guess.

        Raises UsageError for a size that no disk has.
        """
        self._file: Final = file
        self._guarded: Final = guarded
        self.read_only = file.read_only
        self.size = file.size
        if self.size == 0 or self.size % SECTOR:
            raise UsageError(
                f"--disk {file.path} has {self.size} bytes, no multiple of {SECTOR}: "
                "empty or truncated; give a whole image"
            )

    def read(self, offset: int, views: Views) -> None:
        """Fill `views` from `offset`."""
        self._file.readv(offset, views)

    def write(self, offset: int, views: Views) -> None:
        """Store `views`. Raises StorageError for a first sector that makes this another format:
        the next run would believe it, and open whatever files the guest named there.
        """
        if self._guarded and offset < PROBED:
            self._guard(offset, views)
        self._file.writev(offset, views)

    def zero(self, offset: int, size: int, *, unmap: bool) -> None:
        """Punch a hole, or let the file system note zeroes, or write them."""
        if unmap and self._file.punch(offset, size):
            return
        if self._file.zero(offset, size):
            return
        while size:
            part = min(size, len(_ZEROES))
            self._file.writev(offset, [_ZEROES[:part]])
            offset, size = offset + part, size - part

    def discard(self, offset: int, size: int) -> None:
        """Punch a hole where the file system can."""
        self._file.punch(offset, size)

    def flush(self) -> None:
        """Make what was written durable."""
        if not self.read_only:
            self._file.sync()

    def close(self) -> None:
        """Let go of the file; what was not flushed is the host's to write."""
        self._file.close()

    def _guard(self, offset: int, views: Views) -> None:
        head = bytearray(self._file.read(0, PROBED))
        data = b"".join(Pieces(views).take(PROBED - offset))
        head[offset : offset + len(data)] = data
        if probe(bytes(head)) != "raw":
            raise StorageError(
                f"{self._file.path}: the first sector of another image format is not written to a "
                "disk whose format was guessed; say format=raw"
            )
