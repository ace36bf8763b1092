"""The files that a guest knows of, each by a number, each held without its path.

A node is reached by an O_PATH descriptor of the very file, opened one name at a time below the
folder's own descriptor, and never through a symbolic link. Only so many descriptors are open at
once: others are opened again by their names, and must be the same file then.
"""

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from vmm.share.fuse import NAME_MAX, ROOT_ID

NODES_MAX: Final = 1 << 20  # a guest that never forgets is refused more
OPEN_MAX: Final = 400  # descriptors kept; the usual limit of a process is 1024
DEPTH_MAX: Final = 1000
_HOLD: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def failure(number: int) -> OSError:
    """Return the error `number` as an exception."""
    return OSError(number, os.strerror(number))


def checked(name: bytes) -> bytes:
    """Return a name that stays in its directory. Raises OSError for any other."""
    if len(name) > NAME_MAX:
        raise failure(errno.ENAMETOOLONG)
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise failure(errno.EINVAL)
    return name


Identity = tuple[int, int, int]
"""Device, inode, type: a number that the host used again is a file of the folder in any case."""


def identity_of(status: os.stat_result) -> Identity:
    """Return what makes a file the same one."""
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)


@dataclass(slots=True)
class Node:
    """One file. `parent` and `name` are where it was seen last; `lookups` what the guest holds."""

    number: int
    identity: Identity
    parent: int
    name: bytes
    lookups: int = 0


class Nodes:
    """All nodes of one folder."""

    def __init__(self, root: int) -> None:
        """`root` is an open descriptor of the folder, which stays open."""
        self._root: Final = root
        self.clear()

    def clear(self) -> None:
        """Know of nothing but the root."""
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)
        self._open: OrderedDict[int, int] = OrderedDict()
        self._next = ROOT_ID + 1
        status = os.stat(self._root)
        root = Node(ROOT_ID, identity_of(status), ROOT_ID, b"", 1)
        self._nodes = {ROOT_ID: root}
        self._by_identity = {root.identity: ROOT_ID}

    def __len__(self) -> int:
        return len(self._nodes)

    def trim(self) -> None:
        """Close descriptors beyond the limit, those first that were not used for longest."""
        while len(self._open) > OPEN_MAX:
            os.close(self._open.popitem(last=False)[1])

    def descriptor(self, number: int) -> int:
        """Return an O_PATH descriptor of a node. Raises OSError ESTALE if the file is gone."""
        if number == ROOT_ID:
            return self._root
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        chain, node = [], self._node(number)
        while node.number != ROOT_ID and node.number not in self._open:
            chain.append(node)
            node = self._node(node.parent)
            if len(chain) > DEPTH_MAX:
                raise failure(errno.ESTALE)
        for node in reversed(chain):
            self._reopen(node)
        return self._open[number]

    def path(self, number: int) -> str:
        """Return a path to the very file, for calls that take no descriptor."""
        return f"/proc/self/fd/{self.descriptor(number)}"

    def place(self, number: int) -> tuple[int, bytes]:
        """Return (descriptor of the directory, name) where a node was seen last."""
        node = self._node(number)
        if number == ROOT_ID:
            raise failure(errno.EINVAL)
        return self.descriptor(node.parent), node.name

    def look_up(self, parent: int, name: bytes) -> tuple[Node, os.stat_result]:
        """Find a file in a directory, and count that the guest knows of it."""
        descriptor = os.open(checked(name), _HOLD, dir_fd=self.descriptor(parent))
        status = os.fstat(descriptor)
        node = self._by_status(status, parent, name)
        if node.number == ROOT_ID or node.number in self._open:
            os.close(descriptor)
        else:
            self._open[node.number] = descriptor
            self.trim()  # the directory and this node were used last, and stay
        node.lookups += 1
        return node, status

    def forget(self, number: int, lookups: int) -> None:
        """The guest knows a node so many times less."""
        node = self._nodes.get(number)
        if node is None or number == ROOT_ID:
            return
        node.lookups -= min(lookups, node.lookups)
        if not node.lookups:
            self._drop(node)

    def moved(self, status: os.stat_result, parent: int, name: bytes) -> None:
        """A file was given another name by the guest."""
        number = self._by_identity.get(identity_of(status), ROOT_ID)
        if number != ROOT_ID:
            self._nodes[number].parent, self._nodes[number].name = parent, name

    def save(self) -> tuple[list[int], list[bytes]]:
        """Return numbers and names of all nodes but the root."""
        numbers, names = [self._next], []
        for node in self._nodes.values():
            if node.number != ROOT_ID:
                numbers += [node.number, *node.identity, node.parent, node.lookups]
                names.append(node.name)
        return numbers, names

    def restore(self, numbers: list[int], names: Iterable[bytes]) -> None:
        """Take over what save() returned; files that are not there any more are stale."""
        self.clear()
        self._next = numbers[0]
        for at, name in enumerate(names):
            number, device, inode, kind, parent, lookups = numbers[1 + 6 * at : 7 + 6 * at]
            node = Node(number, (device, inode, kind), parent, name, lookups)
            self._nodes[number] = node
            self._by_identity[node.identity] = number

    def _node(self, number: int) -> Node:
        node = self._nodes.get(number)
        if node is None:
            raise failure(errno.ESTALE)
        return node

    def _reopen(self, node: Node) -> None:
        parent = self.descriptor(node.parent)
        try:
            descriptor = os.open(node.name, _HOLD, dir_fd=parent)
        except OSError:
            raise failure(errno.ESTALE) from None
        status = os.fstat(descriptor)
        if identity_of(status) != node.identity:
            os.close(descriptor)
            raise failure(errno.ESTALE)
        self._open[node.number] = descriptor

    def _by_status(self, status: os.stat_result, parent: int, name: bytes) -> Node:
        identity = identity_of(status)
        number = self._by_identity.get(identity)
        if number is not None:
            node = self._nodes[number]
            if number != ROOT_ID:
                node.parent, node.name = parent, name
            return node
        if len(self._nodes) >= NODES_MAX:
            raise failure(errno.ENFILE)
        node = Node(self._next, identity, parent, name)
        self._nodes[node.number] = node
        self._by_identity[identity] = node.number
        self._next += 1
        return node

    def _drop(self, node: Node) -> None:
        del self._nodes[node.number]
        if self._by_identity.get(node.identity) == node.number:
            del self._by_identity[node.identity]
        if node.number in self._open:
            os.close(self._open.pop(node.number))
