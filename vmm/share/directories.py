"""Requests on open directories. Names come sorted: two runs read a folder alike."""

import contextlib
import os
import stat

from vmm.share.fuse import DIRENT, MAX_WRITE, OPEN_OUT, READ_IN
from vmm.share.request import Folder, Handle, Request

_DOTS = [b".", b".."]
_ALIGN = 8
_NO_ENTRY = bytes(128)  # fuse_entry_out with node 0: the guest is to look up itself


def open_directory(folder: Folder, request: Request) -> bytes:
    """OPENDIR."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    descriptor = os.open(folder.nodes.path(request.node), flags)
    return OPEN_OUT.pack(folder.add_handle(descriptor, request.node, flags), 0, 0)


def read_directory(folder: Folder, request: Request) -> bytes:
    """READDIR: names, inodes and types, from the place that the guest names on."""
    return _read(folder, request, plus=False)


def read_directory_plus(folder: Folder, request: Request) -> bytes:
    """READDIRPLUS: each name looked up at once."""
    return _read(folder, request, plus=True)


def _read(folder: Folder, request: Request, *, plus: bool) -> bytes:
    number, offset, size, *_ = request.fields(READ_IN)
    handle = folder.handle(number)
    if handle.names is None or offset == 0:
        handle.names = _DOTS + sorted(os.fsencode(name) for name in os.listdir(handle.descriptor))
    left = min(size, request.room.size, MAX_WRITE)
    found: list[bytes] = []
    for place in range(min(offset, len(handle.names)), len(handle.names)):
        name = handle.names[place]
        length = (len(_NO_ENTRY) if plus else 0) + DIRENT.size + len(name)
        length += -length % _ALIGN
        if length > left:
            break
        with contextlib.suppress(OSError):  # it is gone already
            found.append(_entry(folder, handle, name, place + 1, plus=plus))
            left -= length
    return b"".join(found)


def _entry(folder: Folder, handle: Handle, name: bytes, following: int, *, plus: bool) -> bytes:
    head = _NO_ENTRY if plus else b""
    if name in _DOTS:
        inode, kind = 1, stat.S_IFDIR >> 12  # the guest knows the numbers of these two
    elif plus:
        node, status = folder.nodes.look_up(handle.node, name)
        head = folder.entry_of(node, status)
        inode, kind = status.st_ino, stat.S_IFMT(status.st_mode) >> 12
    else:
        status = os.stat(name, dir_fd=handle.descriptor, follow_symlinks=False)
        inode, kind = status.st_ino, stat.S_IFMT(status.st_mode) >> 12
    entry = head + DIRENT.pack(inode, following, len(name), kind) + name
    return entry + bytes(-len(entry) % _ALIGN)
