"""Answers FUSE requests about one folder. Whatever a guest asks, the answer is a reply or none."""

import errno
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from vmm.devices.device import State
from vmm.devices.saved import pack_items, unpack_items
from vmm.errors import UsageError
from vmm.share import changes, directories, files, lookup
from vmm.share.fuse import (
    HEADER_IN,
    HEADER_OUT,
    INIT_IN,
    INIT_OUT,
    MAJOR,
    MAX_PAGES,
    MAX_WRITE,
    MINOR,
    MINOR_MIN,
    NO_REPLY,
    WRITE_IN,
    InitFlag,
    Opcode,
)
from vmm.share.nodes import Nodes, failure
from vmm.share.owners import Owners
from vmm.share.request import Folder, Handle, Memory, Request

BODY_MAX: Final = 1 << 16  # bytes of a request, without the data of a write
_WANTED: Final = sum(InitFlag)


class Server(Protocol):
    """What the device asks of a folder."""

    def answer(self, head: bytes, data: Memory, room: Memory) -> tuple[bytes, int] | None:
        """Answer one request."""

    def reset(self) -> None:
        """Forget what is open."""

    def close(self) -> None:
        """Let go of the folder."""

    def save(self) -> State:
        """Return what the guest knows."""

    def restore(self, state: Mapping[str, object]) -> None:
        """Take over what save() returned."""


class FuseServer:
    """One folder, one guest."""

    def __init__(self, path: Path, *, readonly: bool, option: str) -> None:
        """Open the folder. Raises UsageError, which begins with `option`, when it is none."""
        self._folder: Final = _open_folder(path, option, readonly=readonly)

    def answer(self, head: bytes, data: Memory, room: Memory) -> tuple[bytes, int] | None:
        """Answer the request whose first bytes are `head`, at most BODY_MAX of it.

        `data` is what follows a WRITE's own fields, `room` is for the data of a READ, behind the
        reply's header. Returns the reply, and how many bytes of `room` were filled; None where
        FUSE expects no reply.
        """
        if len(head) < HEADER_IN.size:
            return HEADER_OUT.pack(HEADER_OUT.size, -errno.EINVAL, 0), 0
        _, opcode, unique, node, user, group, _, _, _ = HEADER_IN.unpack_from(head)
        end = HEADER_IN.size + WRITE_IN.size if opcode == Opcode.WRITE else len(head)
        body = head[HEADER_IN.size : end]
        request = Request(opcode, node, user, group, body, data, room)
        error, payload = self._carry_out(request)
        self._folder.nodes.trim()
        if opcode in NO_REPLY:
            return None
        filled = payload if isinstance(payload, int) else 0
        reply = b"" if isinstance(payload, int) else payload
        size = HEADER_OUT.size + len(reply) + filled
        return HEADER_OUT.pack(size, -error, unique) + reply, filled

    def _carry_out(self, request: Request) -> tuple[int, bytes | int]:
        """Return (error number, reply without its header or bytes put into the room)."""
        handler = HANDLERS.get(request.opcode)
        if handler is None:
            return errno.ENOSYS, b""
        try:
            if not self._folder.ready and request.opcode != Opcode.INIT:
                raise failure(errno.EIO)
            return 0, handler(self._folder, request)
        except OSError as error:
            return error.errno or errno.EIO, b""
        except (struct.error, ValueError, OverflowError):
            return errno.EINVAL, b""

    def reset(self) -> None:
        """The guest's driver is gone: close what it had open."""
        self._folder.clear()

    def close(self) -> None:
        """Close everything."""
        if self._folder.root >= 0:
            self._folder.clear()
            os.close(self._folder.root)
            self._folder.root = -1

    def save(self) -> State:
        """Return what the guest knows and has open; the files themselves are the host's."""
        folder = self._folder
        numbers, names = folder.nodes.save()
        handles = [
            n for key, h in folder.handles.items() for n in (key, h.node, h.flags, h.names is None)
        ]
        listed = [pack_items(h.names or []) for h in folder.handles.values()]
        return {
            "nodes": numbers,
            "names": pack_items(names),
            "handles": [int(folder.ready), folder.next_handle, *map(int, handles)],
            "listed": pack_items(listed),
        }

    def restore(self, state: Mapping[str, object]) -> None:
        """Take over what save() returned; what is not there any more is stale for the guest."""
        folder, nodes, handles = self._folder, state["nodes"], state["handles"]
        assert isinstance(nodes, list)
        assert isinstance(handles, list)
        folder.clear()
        folder.nodes.restore(nodes, unpack_items(state["names"]))
        folder.ready, folder.next_handle = bool(handles[0]), handles[1]
        for place, packed in enumerate(unpack_items(state["listed"])):
            key, node, flags, unread = handles[2 + 4 * place : 6 + 4 * place]
            names = None if unread else unpack_items(packed)
            try:
                again = flags & ~(os.O_TRUNC | os.O_EXCL)
                descriptor = os.open(folder.nodes.path(node), again | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                continue
            folder.handles[key] = Handle(descriptor, node, flags, names)


def _open_folder(path: Path, option: str, *, readonly: bool) -> Folder:
    try:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        words = (getattr(error, "strerror", None) or str(error)).lower()
        raise UsageError(
            f"{option}: {str(path)!r} cannot be shared: {words}; name a folder"
        ) from None
    return Folder(root, readonly, Owners.of_process(), Nodes(root))


def _init(folder: Folder, request: Request) -> bytes:
    """INIT: agree on a version and on flags; whatever was open is closed."""
    major, minor, readahead, flags = request.fields(INIT_IN)
    if major > MAJOR:
        return INIT_OUT.pack(MAJOR, MINOR, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    if (major, minor) < (MAJOR, MINOR_MIN):
        raise failure(errno.EPROTO)
    folder.clear()
    folder.ready = True
    agreed = flags & _WANTED
    return INIT_OUT.pack(
        MAJOR, MINOR, min(readahead, MAX_WRITE), agreed, 0, 0, MAX_WRITE, 1, MAX_PAGES, 0, 0
    )


def _destroy(folder: Folder, _request: Request) -> bytes:
    """DESTROY: unmounted."""
    folder.clear()
    return b""


def _nothing(_folder: Folder, _request: Request) -> bytes:
    """INTERRUPT: every request is answered before the next is looked at."""
    return b""


HANDLERS: Final[Mapping[int, Callable[[Folder, Request], bytes | int]]] = {
    Opcode.INIT: _init,
    Opcode.DESTROY: _destroy,
    Opcode.INTERRUPT: _nothing,
    Opcode.LOOKUP: lookup.look_up,
    Opcode.FORGET: lookup.forget,
    Opcode.BATCH_FORGET: lookup.batch_forget,
    Opcode.GETATTR: lookup.get_attributes,
    Opcode.SETATTR: lookup.set_attributes,
    Opcode.READLINK: lookup.read_link,
    Opcode.STATFS: lookup.file_system_status,
    Opcode.SYMLINK: changes.make_symbolic_link,
    Opcode.MKNOD: changes.make_node,
    Opcode.MKDIR: changes.make_directory,
    Opcode.LINK: changes.make_link,
    Opcode.UNLINK: changes.unlink,
    Opcode.RMDIR: changes.remove_directory,
    Opcode.RENAME: changes.rename,
    Opcode.RENAME2: changes.rename_with_flags,
    Opcode.OPEN: files.open_file,
    Opcode.CREATE: files.create,
    Opcode.READ: files.read,
    Opcode.WRITE: files.write,
    Opcode.RELEASE: files.release,
    Opcode.FLUSH: files.flush,
    Opcode.FSYNC: files.sync,
    Opcode.FALLOCATE: files.allocate,
    Opcode.LSEEK: files.seek,
    Opcode.COPY_FILE_RANGE: files.copy_range,
    Opcode.OPENDIR: directories.open_directory,
    Opcode.READDIR: directories.read_directory,
    Opcode.READDIRPLUS: directories.read_directory_plus,
    Opcode.RELEASEDIR: files.release,
    Opcode.FSYNCDIR: files.sync,
}
