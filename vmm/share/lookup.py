"""Requests about names and attributes."""

import errno
import os
import stat

from vmm.share.fuse import (
    BATCH_FORGET_IN,
    FORGET_IN,
    FORGET_ONE,
    GETATTR_FH,
    GETATTR_IN,
    SETATTR_IN,
    STATFS_OUT,
    SetAttr,
)
from vmm.share.nodes import failure
from vmm.share.owners import KEEP, MODE_BITS
from vmm.share.request import Folder, Request

_CHANGES = SetAttr.MODE | SetAttr.UID | SetAttr.GID | SetAttr.SIZE | SetAttr.ATIME | SetAttr.MTIME
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2  # Linux, <sys/stat.h>


def look_up(folder: Folder, request: Request) -> bytes:
    """LOOKUP: find a name in a directory."""
    return folder.entry(request.node, request.names(1)[0])


def forget(folder: Folder, request: Request) -> bytes:
    """FORGET: the guest dropped a node."""
    folder.nodes.forget(request.node, request.fields(FORGET_IN)[0])
    return b""


def batch_forget(folder: Folder, request: Request) -> bytes:
    """BATCH_FORGET: the guest dropped many."""
    count = request.fields(BATCH_FORGET_IN)[0]
    start = BATCH_FORGET_IN.size
    end = start + min(count * FORGET_ONE.size, len(request.body) - start)
    end -= (end - start) % FORGET_ONE.size
    for node, lookups in FORGET_ONE.iter_unpack(request.body[start:end]):
        folder.nodes.forget(node, lookups)
    return b""


def get_attributes(folder: Folder, request: Request) -> bytes:
    """GETATTR: of an open file, if the guest names one: it may have no name any more."""
    flags, _, number = request.fields(GETATTR_IN)
    if flags & GETATTR_FH and number in folder.handles:
        return folder.attributes(os.fstat(folder.handle(number).descriptor))
    return folder.attributes(folder.status(request.node))


def set_attributes(folder: Folder, request: Request) -> bytes:
    """SETATTR: size, mode, owner and times, whichever are marked."""
    folder.check_writable()
    (
        valid, _, number, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, user, group, _,
    ) = request.fields(SETATTR_IN)  # fmt: skip
    if valid & SetAttr.SIZE:
        _truncate(folder, request.node, number if valid & SetAttr.FH else 0, size)
    if valid & (SetAttr.UID | SetAttr.GID):
        _give(
            folder,
            request.node,
            user if valid & SetAttr.UID else KEEP,
            group if valid & SetAttr.GID else KEEP,
        )
    if valid & SetAttr.MODE:
        os.chmod(folder.nodes.path(request.node), mode & MODE_BITS)
    if valid & (SetAttr.ATIME | SetAttr.MTIME):
        now = (bool(valid & SetAttr.ATIME_NOW), bool(valid & SetAttr.MTIME_NOW))
        wanted = (bool(valid & SetAttr.ATIME), bool(valid & SetAttr.MTIME))
        stamps = (atime * 10**9 + atime_ns, mtime * 10**9 + mtime_ns)
        _touch(folder, request.node, wanted, now, stamps)
    return folder.attributes(folder.status(request.node))


def read_link(folder: Folder, request: Request) -> bytes:
    """READLINK: the guest follows it, by its own view of names; the host never does."""
    descriptor = folder.nodes.descriptor(request.node)
    if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
        raise failure(errno.EINVAL)
    return os.readlink(b"", dir_fd=descriptor)


def file_system_status(folder: Folder, request: Request) -> bytes:
    """STATFS: of the file system that the node is on."""
    s = os.statvfs(folder.nodes.path(request.node))
    return STATFS_OUT.pack(
        s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree,
        s.f_bsize & 0xFFFF_FFFF, s.f_namemax & 0xFFFF_FFFF, s.f_frsize & 0xFFFF_FFFF, 0,
    )  # fmt: skip


def _truncate(folder: Folder, node: int, number: int, size: int) -> None:
    if size >= 1 << 63:
        raise failure(errno.EFBIG)
    if number in folder.handles:
        os.ftruncate(folder.handle(number).descriptor, size)
        return
    descriptor = folder.open_regular(node, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def _give(folder: Folder, node: int, user: int, group: int) -> None:
    """Change the owner; of a symbolic link its own, not its target's."""
    user, group = folder.owners.host_ids(user, group)
    if (user, group) == (KEEP, KEEP):
        return
    if stat.S_ISLNK(folder.status(node).st_mode):
        directory, name = folder.nodes.place(node)
        os.chown(name, user, group, dir_fd=directory, follow_symlinks=False)
    else:
        os.chown(folder.nodes.path(node), user, group)


def _touch(
    folder: Folder,
    node: int,
    wanted: tuple[bool, bool],
    now: tuple[bool, bool],
    stamps: tuple[int, int],
) -> None:
    """Set times; those that are not wanted stay, and "now" is the host's."""
    status = folder.status(node)
    if all(wanted) and all(now):
        times = None
    else:
        kept = (status.st_atime_ns, status.st_mtime_ns)
        times = tuple(
            stamp if want else keep for stamp, keep, want in zip(stamps, kept, wanted, strict=True)
        )
    if stat.S_ISLNK(status.st_mode):
        directory, name = folder.nodes.place(node)
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)  # type: ignore[arg-type]
    else:
        os.utime(folder.nodes.path(node), ns=times)  # type: ignore[arg-type]
