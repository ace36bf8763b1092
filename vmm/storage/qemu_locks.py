"""The locks that QEMU takes on images, taken too: neither opens what the other one writes.

QEMU (docs/system/images: "Disk image file locking", block/file-posix) locks single bytes with open
file description locks, shared: byte 100 + n says "I use permission n", byte 200 + n "nobody else
may". Whoever wants to use or forbid something looks whether the opposite byte is locked.
"""

import fcntl
from struct import Struct
from typing import Final

_FLOCK: Final = Struct("hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid
_USES, _FORBIDS = 100, 200
_READ, _WRITE, _RESIZE = 0, 1, 3
"""Permissions: consistent read, write, resize. 2, "write unchanged", nobody forbids."""


def take(fd: int, *, read_only: bool) -> bool:
    """Announce a reader or a writer; return False if somebody's use excludes it.

    Locks go with the file description. File systems without them: True.
    """
    uses = (_READ,) if read_only else (_READ, _WRITE, _RESIZE)
    forbids = (_WRITE, _RESIZE)
    try:
        for byte in [_USES + n for n in uses] + [_FORBIDS + n for n in forbids]:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, 0, byte, 1, 0))
        opposite = [_FORBIDS + n for n in uses] + [_USES + n for n in forbids]
        return not any(_is_locked(fd, byte) for byte in opposite)
    except OSError:
        return True


def _is_locked(fd: int, byte: int) -> bool:
    """Whether another file description has a lock there."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, byte, 1, 0))
    kind, *_ = _FLOCK.unpack(answer)
    return bool(kind != fcntl.F_UNLCK)
