"""One FUSE request, and what its handlers share: the folder, its nodes and its open files."""

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Final, Protocol

from vmm.share.fuse import ATTR_OUT, ENTRY
from vmm.share.nodes import Node, Nodes, failure
from vmm.share.owners import Owners

HANDLES_MAX: Final = 400
VALIDITY: Final = 1  # seconds that the guest may keep names and attributes


class Memory(Protocol):
    """A part of guest memory that data goes to or comes from."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    def views(self, offset: int = 0, size: int | None = None) -> Sequence[memoryview]:
        """Return the memory itself."""

    def wrote(self, offset: int = 0, size: int | None = None) -> None:
        """Say that bytes were stored."""


@dataclass(frozen=True, slots=True)
class Request:
    """`body` is what follows the header, without a write's data, which `data` holds; `room` is
    where the data of a read goes.
    """

    opcode: int
    node: int
    user: int
    group: int
    body: bytes
    data: Memory
    room: Memory

    def fields(self, layout: Struct) -> tuple[Any, ...]:
        """Return the fixed part of the body. Raises struct.error if it is too short."""
        return layout.unpack_from(self.body)

    def names(self, count: int, offset: int = 0) -> list[bytes]:
        """Return `count` names from the body, each ended by a zero."""
        names = self.body[offset:].split(b"\0")
        if len(names) <= count:
            raise failure(errno.EINVAL)
        return names[:count]


@dataclass(slots=True)
class Handle:
    """An open file or directory; `names` is what a directory held when it was read first."""

    descriptor: int
    node: int
    flags: int
    names: list[bytes] | None = None


@dataclass(slots=True)
class Folder:
    """What is shared. `root` is an open descriptor of the folder."""

    root: int
    readonly: bool
    owners: Owners
    nodes: Nodes
    handles: dict[int, Handle] = field(default_factory=dict)
    next_handle: int = 1
    ready: bool = False
    """INIT was answered."""

    def check_writable(self) -> None:
        """Raise EROFS if the guest may only read."""
        if self.readonly:
            raise failure(errno.EROFS)

    def handle(self, number: int) -> Handle:
        """Return an open file."""
        handle = self.handles.get(number)
        if handle is None:
            raise failure(errno.EBADF)
        return handle

    def add_handle(self, descriptor: int, node: int, flags: int) -> int:
        """Keep an open file; return its number."""
        if len(self.handles) >= HANDLES_MAX:
            os.close(descriptor)
            raise failure(errno.EMFILE)
        number, self.next_handle = self.next_handle, self.next_handle + 1
        self.handles[number] = Handle(descriptor, node, flags)
        return number

    def drop_handle(self, number: int) -> None:
        """Close an open file."""
        os.close(self.handle(number).descriptor)
        del self.handles[number]

    def status(self, node: int) -> os.stat_result:
        """Return a node's attributes."""
        return os.fstat(self.nodes.descriptor(node))

    def entry(self, parent: int, name: bytes) -> bytes:
        """Look a name up; return struct fuse_entry_out."""
        node, status = self.nodes.look_up(parent, name)
        return self.entry_of(node, status)

    def entry_of(self, node: Node, status: os.stat_result) -> bytes:
        """Return struct fuse_entry_out."""
        head = ENTRY.pack(node.number, 0, VALIDITY, VALIDITY, 0, 0)
        return head + self.owners.attributes(status)

    def attributes(self, status: os.stat_result) -> bytes:
        """Return struct fuse_attr_out."""
        return ATTR_OUT.pack(VALIDITY, 0, 0) + self.owners.attributes(status)

    def open_regular(self, node: int, flags: int) -> int:
        """Open a node for reading or writing; only plain files are, never a device or a pipe."""
        if not stat.S_ISREG(self.status(node).st_mode):
            raise failure(errno.EACCES)
        return os.open(self.nodes.path(node), flags | os.O_CLOEXEC | os.O_NONBLOCK)

    def clear(self) -> None:
        """As before INIT: no node is known and no file open."""
        for handle in self.handles.values():
            os.close(handle.descriptor)
        self.handles.clear()
        self.nodes.clear()
        self.ready = False
