"""Requests on open files."""

import errno
import os
from collections.abc import Callable, Sequence

from vmm.share.changes import own
from vmm.share.fuse import (
    COPY_IN,
    CREATE_IN,
    FALLOCATE_IN,
    FSYNC_DATA_ONLY,
    FSYNC_IN,
    LSEEK_IN,
    LSEEK_OUT,
    MAX_WRITE,
    OPEN_IN,
    OPEN_OUT,
    READ_IN,
    RELEASE_IN,
    WRITE_IN,
    WRITE_OUT,
)
from vmm.share.nodes import checked, failure
from vmm.share.owners import MODE_BITS
from vmm.share.request import Folder, Request

_ACCESS = os.O_RDONLY | os.O_WRONLY | os.O_RDWR
_PASSED = _ACCESS | os.O_APPEND | os.O_TRUNC | os.O_SYNC | os.O_DSYNC
_OFFSET_MAX = (1 << 63) - 1
IOV_MAX = os.sysconf("SC_IOV_MAX")
Transfer = Callable[[int, list[memoryview], int], int]


def open_file(folder: Folder, request: Request) -> bytes:
    """OPEN."""
    flags = request.fields(OPEN_IN)[0] & _PASSED
    if flags & (_ACCESS | os.O_TRUNC):
        folder.check_writable()
    descriptor = folder.open_regular(request.node, flags)
    return OPEN_OUT.pack(folder.add_handle(descriptor, request.node, flags), 0, 0)


def create(folder: Folder, request: Request) -> bytes:
    """CREATE: make a file, or take the one that is there, and open it."""
    folder.check_writable()
    flags, mode, _, _ = request.fields(CREATE_IN)
    name = checked(request.names(1, CREATE_IN.size)[0])
    directory = folder.nodes.descriptor(request.node)
    kept = flags & (_PASSED & ~os.O_TRUNC)
    try:
        how = kept | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, how, mode & MODE_BITS, dir_fd=directory)
        own(folder, request, directory, name)
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        descriptor = -1
    try:
        node, status = folder.nodes.look_up(request.node, name)
        if descriptor < 0:
            descriptor = folder.open_regular(node.number, flags & _PASSED)
    except OSError:
        if descriptor >= 0:
            os.close(descriptor)
        raise
    opened = OPEN_OUT.pack(folder.add_handle(descriptor, node.number, kept), 0, 0)
    return folder.entry_of(node, status) + opened


def read(folder: Folder, request: Request) -> int:
    """READ: the file's bytes go straight to guest memory; return how many there were."""
    number, offset, size, *_ = request.fields(READ_IN)
    size = min(size, request.room.size, MAX_WRITE)
    if offset > _OFFSET_MAX - size:
        raise failure(errno.EINVAL)
    if not size:
        return 0
    views = request.room.views(0, size)
    try:
        return _vectored(os.preadv, folder.handle(number).descriptor, views, offset)
    finally:
        request.room.wrote(0, size)


def write(folder: Folder, request: Request) -> bytes:
    """WRITE: the data that follows the request."""
    folder.check_writable()
    number, offset, size, *_ = request.fields(WRITE_IN)
    if size > min(request.data.size, MAX_WRITE) or offset > _OFFSET_MAX - size:
        raise failure(errno.EINVAL)
    descriptor = folder.handle(number).descriptor
    done = 0
    if size:
        done = _vectored(os.pwritev, descriptor, request.data.views(0, size), offset)
    return WRITE_OUT.pack(done, 0)


def release(folder: Folder, request: Request) -> bytes:
    """RELEASE and RELEASEDIR."""
    folder.drop_handle(request.fields(RELEASE_IN)[0])
    return b""


def flush(folder: Folder, request: Request) -> bytes:
    """FLUSH: a descriptor of the guest's was closed; what was written is with the host already."""
    folder.handle(request.fields(RELEASE_IN)[0])
    return b""


def sync(folder: Folder, request: Request) -> bytes:
    """FSYNC and FSYNCDIR."""
    number, flags, _ = request.fields(FSYNC_IN)
    descriptor = folder.handle(number).descriptor
    if flags & FSYNC_DATA_ONLY:
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)
    return b""


def allocate(folder: Folder, request: Request) -> bytes:
    """FALLOCATE: only the plain kind."""
    folder.check_writable()
    number, offset, length, mode, _ = request.fields(FALLOCATE_IN)
    if mode:
        raise failure(errno.EOPNOTSUPP)
    if not length or offset > _OFFSET_MAX - min(length, _OFFSET_MAX):
        raise failure(errno.EINVAL)
    os.posix_fallocate(folder.handle(number).descriptor, offset, length)
    return b""


def seek(folder: Folder, request: Request) -> bytes:
    """LSEEK: for data and holes; other seeks are the guest's own affair."""
    number, offset, whence, _ = request.fields(LSEEK_IN)
    if whence not in (os.SEEK_DATA, os.SEEK_HOLE) or offset > _OFFSET_MAX:
        raise failure(errno.EINVAL)
    return LSEEK_OUT.pack(os.lseek(folder.handle(number).descriptor, offset, whence))


def copy_range(folder: Folder, request: Request) -> bytes:
    """COPY_FILE_RANGE: at most what a write may carry, so that none takes for ever."""
    folder.check_writable()
    source, start, _, target, to, size, flags = request.fields(COPY_IN)
    size = min(size, MAX_WRITE)
    if flags or max(start, to) > _OFFSET_MAX - size:
        raise failure(errno.EINVAL)
    descriptors = folder.handle(source).descriptor, folder.handle(target).descriptor
    return WRITE_OUT.pack(os.copy_file_range(*descriptors, size, start, to), 0)


def _vectored(call: Transfer, descriptor: int, views: Sequence[memoryview], offset: int) -> int:
    """Call preadv() or pwritev() with as many pieces at once as the host takes."""
    done, pieces = 0, list(views)
    for at in range(0, len(pieces), IOV_MAX):
        some = pieces[at : at + IOV_MAX]
        moved = call(descriptor, some, offset + done)
        done += moved
        if moved < sum(len(piece) for piece in some):
            break
    return done
