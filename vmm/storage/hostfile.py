"""A file of the host that holds an image: opened, locked, read and written whole."""

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from vmm.errors import UsageError
from vmm.storage import qemu_locks
from vmm.storage.image import StorageError, Views, clear

IOV_MAX: Final = 1024  # Linux, <limits.h>
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 0x01, 0x02, 0x10  # Linux, <linux/falloc.h>
_UNSUPPORTED: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV, errno.EINVAL)


class HostFile:
    """One open image file. Reads behind its end give zeroes, as a sparse file would."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        """Open and lock `path`. Raises UsageError if that cannot be; writes nothing."""
        self.path: Final = path
        self.read_only: Final = read_only
        try:
            self.fd: Final = os.open(path, os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR))
        except OSError as error:
            raise UsageError(_cannot_open(path, error, read_only=read_only)) from None
        try:
            self._check_kind()
            self._lock()
        except UsageError:
            os.close(self.fd)
            raise

    @property
    def size(self) -> int:
        """Return the length of the file, or of the block device, in bytes."""
        return os.lseek(self.fd, 0, os.SEEK_END)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes."""
        data = bytearray(size)
        self.readv(offset, [memoryview(data)])
        return bytes(data)

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Store `data`."""
        self.writev(offset, [memoryview(data)])

    def readv(self, offset: int, views: Views) -> None:
        """Fill `views`. Raises StorageError when the host cannot read."""
        while views:
            done = self._read_once(offset, views[:IOV_MAX])
            if done == 0:
                clear(views)
                return
            offset, views = offset + done, _behind(views, done)

    def writev(self, offset: int, views: Views) -> None:
        """Store `views`. Raises StorageError when the host cannot write."""
        while views:
            try:
                done = os.pwritev(self.fd, views[:IOV_MAX], offset)
            except OSError as error:
                raise StorageError(f"{self.path}: {error.strerror}") from None
            offset, views = offset + done, _behind(views, done)

    def punch(self, offset: int, size: int) -> bool:
        """Give the storage of a range back; it then reads as zeroes. False if it cannot be."""
        return self._fallocate(_PUNCH_HOLE | _KEEP_SIZE, offset, size)

    def zero(self, offset: int, size: int) -> bool:
        """Make a range read as zeroes without writing them. False if it cannot be."""
        return self._fallocate(_ZERO_RANGE | _KEEP_SIZE, offset, size)

    def sync(self) -> None:
        """Make what was written durable."""
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from None

    def close(self) -> None:
        """Close the file, which unlocks it."""
        os.close(self.fd)

    def _read_once(self, offset: int, views: Views) -> int:
        try:
            return os.preadv(self.fd, views, offset)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from None

    def _check_kind(self) -> None:
        mode = os.fstat(self.fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise UsageError(f"--disk {self.path} is not a regular file; name a disk image")

    def _lock(self) -> None:
        """Shared for readers, exclusive for the one writer; gone with the process."""
        kind = fcntl.LOCK_SH if self.read_only else fcntl.LOCK_EX
        try:
            fcntl.flock(self.fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._locked() from None
        except OSError:
            return  # a file system without locks
        if not qemu_locks.take(self.fd, read_only=self.read_only):
            raise self._locked()

    def _locked(self) -> UsageError:
        return UsageError(
            f"--disk {self.path} is locked: something else uses it; end that, or copy the image"
        )

    def _fallocate(self, mode: int, offset: int, size: int) -> bool:
        """fallocate(2), which Python has not."""
        import ctypes

        if size <= 0:
            return True
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "fallocate64"):
            return False
        number = ctypes.c_int64
        if libc.fallocate64(self.fd, mode, number(offset), number(size)) == 0:
            return True
        code = ctypes.get_errno()
        if code in _UNSUPPORTED:
            return False
        raise StorageError(f"{self.path}: {os.strerror(code)}")


def _behind(views: Views, done: int) -> list[memoryview]:
    """Return what is left of `views` behind the first `done` bytes."""
    left = list(views)
    for place, view in enumerate(left):
        if done < len(view):
            return [view[done:], *left[place + 1 :]]
        done -= len(view)
    return []


def _cannot_open(path: Path, error: OSError, *, read_only: bool) -> str:
    forbidden = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    if forbidden and not read_only and os.access(path, os.R_OK, effective_ids=True):
        return f"--disk {path} cannot be written; add ,readonly or ,snapshot"
    if forbidden:
        return f"--disk {path} cannot be read; change its permissions (chmod)"
    if error.errno == errno.ENOENT:
        return f"--disk {path} does not exist; name a disk image"
    return f"--disk {path} cannot be opened ({error.strerror}); name a disk image"
