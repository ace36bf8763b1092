"""The FUSE protocol as Linux speaks it (include/uapi/linux/fuse.h): numbers and layouts.

Every request starts with HEADER_IN, every reply with HEADER_OUT; all fields are little-endian.
"""

from enum import IntEnum
from struct import Struct
from typing import Final

MAJOR, MINOR = 7, 31
MINOR_MIN: Final = 31  # the first in which a kernel has virtio-fs (Linux 5.4)
ROOT_ID: Final = 1
MAX_WRITE: Final = 1 << 20  # bytes of one read or write
MAX_PAGES: Final = MAX_WRITE // 4096
NAME_MAX: Final = 255
PATH_MAX: Final = 4096


class Opcode(IntEnum):
    """What is asked (enum fuse_opcode); requests not listed here are answered with ENOSYS."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47


NO_REPLY: Final = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT})


class InitFlag(IntEnum):
    """Bits of INIT's flags."""

    ASYNC_READ = 1 << 0
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22


class SetAttr(IntEnum):
    """Bits of SETATTR's valid field."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8


GETATTR_FH: Final = 1
FSYNC_DATA_ONLY: Final = 1
RENAME_NOREPLACE: Final = 1

HEADER_IN: Final = Struct("<IIQQIIIHH")  # length, opcode, unique, node, uid, gid, pid, extensions
HEADER_OUT: Final = Struct("<IiQ")  # length, error, unique
INIT_IN: Final = Struct("<IIII")  # major, minor, readahead, flags
INIT_OUT: Final = Struct("<IIIIHHIIHHI28x")
ATTR: Final = Struct("<QQQQQQIIIIIIIIII")
ENTRY: Final = Struct("<QQQQII")  # node, generation, validities in s, in ns; then ATTR
ATTR_OUT: Final = Struct("<QII")  # validity in s, in ns, padding; then ATTR
GETATTR_IN: Final = Struct("<IIQ")  # flags, padding, handle
SETATTR_IN: Final = Struct("<IIQQQQQQIIIIIIII")
MKNOD_IN: Final = Struct("<IIII")  # mode, device, umask, padding; then the name
MKDIR_IN: Final = Struct("<II")  # mode, umask; then the name
RENAME_IN: Final = Struct("<Q")  # new directory; then two names
RENAME2_IN: Final = Struct("<QII")  # new directory, flags, padding; then two names
LINK_IN: Final = Struct("<Q")  # node; then the name
OPEN_IN: Final = Struct("<II")  # flags, FUSE's flags
CREATE_IN: Final = Struct("<IIII")  # flags, mode, umask, FUSE's flags; then the name
OPEN_OUT: Final = Struct("<QII")  # handle, FUSE's flags, padding
READ_IN: Final = Struct("<QQIIQII")  # handle, offset, size, flags, lock owner, file's flags
WRITE_IN: Final = READ_IN
WRITE_OUT: Final = Struct("<II")  # size, padding
RELEASE_IN: Final = Struct("<QIIQ")  # handle, flags, release flags, lock owner
FSYNC_IN: Final = Struct("<QII")  # handle, flags, padding
STATFS_OUT: Final = Struct("<QQQQQIIII24x")
FORGET_IN: Final = Struct("<Q")  # lookups
BATCH_FORGET_IN: Final = Struct("<II")  # count, padding; then FORGET_ONE
FORGET_ONE: Final = Struct("<QQ")  # node, lookups
FALLOCATE_IN: Final = Struct("<QQQII")  # handle, offset, length, mode, padding
LSEEK_IN: Final = Struct("<QQII")  # handle, offset, whence, padding
LSEEK_OUT: Final = Struct("<Q")
COPY_IN: Final = Struct("<QQQQQQQ")  # handle, offset, node, handle, offset, length, flags
DIRENT: Final = Struct("<QQII")  # inode, offset of the next, name's length, type; then the name
