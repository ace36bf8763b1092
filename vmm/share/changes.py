"""Requests that make, move and remove names."""

import contextlib
import errno
import os
import stat

from vmm.share.fuse import (
    LINK_IN,
    MKDIR_IN,
    MKNOD_IN,
    PATH_MAX,
    RENAME2_IN,
    RENAME_IN,
    RENAME_NOREPLACE,
)
from vmm.share.nodes import checked, failure
from vmm.share.owners import KEEP, MODE_BITS
from vmm.share.request import Folder, Request


def make_node(folder: Folder, request: Request) -> bytes:
    """MKNOD: a file, a pipe or a socket; a guest makes no device of the host's."""
    folder.check_writable()
    mode = request.fields(MKNOD_IN)[0]
    name = checked(request.names(1, MKNOD_IN.size)[0])
    if stat.S_IFMT(mode) not in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK):
        raise failure(errno.EPERM)
    directory = folder.nodes.descriptor(request.node)
    os.mknod(name, stat.S_IFMT(mode) | mode & MODE_BITS, dir_fd=directory)
    return _made(folder, request, name)


def make_directory(folder: Folder, request: Request) -> bytes:
    """MKDIR."""
    folder.check_writable()
    mode = request.fields(MKDIR_IN)[0]
    name = checked(request.names(1, MKDIR_IN.size)[0])
    os.mkdir(name, mode & MODE_BITS, dir_fd=folder.nodes.descriptor(request.node))
    return _made(folder, request, name)


def make_symbolic_link(folder: Folder, request: Request) -> bytes:
    """SYMLINK: the name, then what it says, which only the guest will follow."""
    folder.check_writable()
    name, target = request.names(2)
    if not 0 < len(target) < PATH_MAX:
        raise failure(errno.EINVAL)
    os.symlink(target, checked(name), dir_fd=folder.nodes.descriptor(request.node))
    return _made(folder, request, name)


def make_link(folder: Folder, request: Request) -> bytes:
    """LINK: another name for a file."""
    folder.check_writable()
    (number,) = request.fields(LINK_IN)
    name = checked(request.names(1, LINK_IN.size)[0])
    to = folder.nodes.descriptor(request.node)
    status = folder.status(number)
    if stat.S_ISLNK(status.st_mode):
        directory, old = folder.nodes.place(number)
        os.link(old, name, src_dir_fd=directory, dst_dir_fd=to, follow_symlinks=False)
    else:
        os.link(folder.nodes.path(number), name, dst_dir_fd=to, follow_symlinks=True)
    return folder.entry(request.node, name)


def unlink(folder: Folder, request: Request) -> bytes:
    """UNLINK."""
    folder.check_writable()
    name = checked(request.names(1)[0])
    os.unlink(name, dir_fd=folder.nodes.descriptor(request.node))
    return b""


def remove_directory(folder: Folder, request: Request) -> bytes:
    """RMDIR."""
    folder.check_writable()
    name = checked(request.names(1)[0])
    os.rmdir(name, dir_fd=folder.nodes.descriptor(request.node))
    return b""


def rename(folder: Folder, request: Request) -> bytes:
    """RENAME."""
    (to,) = request.fields(RENAME_IN)
    return _rename(folder, request, to, request.names(2, RENAME_IN.size))


def rename_with_flags(folder: Folder, request: Request) -> bytes:
    """RENAME2: of its flags only "do not replace" is known here."""
    to, flags, _ = request.fields(RENAME2_IN)
    names = request.names(2, RENAME2_IN.size)
    if flags & ~RENAME_NOREPLACE:
        raise failure(errno.EINVAL)
    if flags:
        with contextlib.suppress(FileNotFoundError):
            os.stat(checked(names[1]), dir_fd=folder.nodes.descriptor(to), follow_symlinks=False)
            raise failure(errno.EEXIST)
    return _rename(folder, request, to, names)


def own(folder: Folder, request: Request, directory: int, name: bytes) -> None:
    """Give what was just made to who asked for it, where that is possible."""
    user, group = folder.owners.host_ids(request.user, request.group)
    if folder.owners.privileged and (user, group) != (KEEP, KEEP):
        os.chown(name, user, group, dir_fd=directory, follow_symlinks=False)


def _made(folder: Folder, request: Request, name: bytes) -> bytes:
    own(folder, request, folder.nodes.descriptor(request.node), name)
    return folder.entry(request.node, name)


def _rename(folder: Folder, request: Request, to: int, names: list[bytes]) -> bytes:
    folder.check_writable()
    old, new = (checked(name) for name in names)
    source, target = folder.nodes.descriptor(request.node), folder.nodes.descriptor(to)
    status = os.stat(old, dir_fd=source, follow_symlinks=False)
    os.rename(old, new, src_dir_fd=source, dst_dir_fd=target)
    folder.nodes.moved(status, to, new)
    return b""
