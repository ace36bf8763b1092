"""Xenstore: a tree of small values with watches and transactions (docs/misc/xenstore.txt).

A transaction sees a copy of the tree; it commits if no node that it looked at or changed was
changed meanwhile by another, else EAGAIN. Quotas and their errors are those of Xen's xenstored
(tools/xenstore/xenstored_core.c): they hold below the path of the guest, and for its transactions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

PATH_MAX, VALUE_MAX, NODES_MAX, TRANSACTIONS_MAX = 3072, 2048, 1000, 10
TRANSACTION_NODES_MAX: Final = 1024
_CHANGES_MAX: Final = 4096
"""So many changes are remembered while transactions are open: then these cannot commit."""
_NEVER: Final = -1
_ALLOWED: Final = frozenset(
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-/_@:.$".decode()
)


class StoreError(Exception):
    """A request is refused; the argument is the name of the error, as the wire has it."""


@dataclass(slots=True)
class Transaction:
    """A tree of its own until it ends; `touched` are the nodes whose change by others matters."""

    tree: dict[str, bytes]
    began: int
    touched: set[str] = field(default_factory=set)
    changed: dict[str, bool] = field(default_factory=dict)
    """Paths written or removed (True), in order."""

    def touch(self, path: str) -> None:
        """Note that it looks at a node, or changes it."""
        if path in self.touched:
            return
        if len(self.touched) >= TRANSACTION_NODES_MAX:
            raise StoreError("ENOSPC")
        self.touched.add(path)


Watcher = Callable[[str, str], None]
"""Hears of a path that changed, with the token of the watch."""


class Store:
    """The whole tree. Paths are absolute; `owner` (a domain's path) resolves relative ones."""

    def __init__(self, guest: str = "") -> None:
        """Only the root. Quotas hold below the path of the `guest`."""
        self._guest: Final = guest + "/"
        self.tree: dict[str, bytes] = {"/": b""}
        self.generation = 0
        self.changes: dict[str, int] = {}
        """By path, the generation of its last change, while transactions are open."""
        self.transactions: dict[int, Transaction] = {}
        self.watches: list[tuple[str, str, Watcher]] = []
        self._next = 1

    # ---- reading ----

    def read(self, path: str, transaction: int = 0) -> bytes:
        """Return a node's value."""
        tree = self._tree(path, transaction)
        if path not in tree:
            raise StoreError("ENOENT")
        return tree[path]

    def directory(self, path: str, transaction: int = 0) -> list[str]:
        """Return the names of a node's children."""
        tree = self._tree(path, transaction)
        if path not in tree:
            raise StoreError("ENOENT")
        prefix = path.rstrip("/") + "/"
        below = {n[len(prefix) :].partition("/")[0] for n in tree if n.startswith(prefix)}
        return sorted(below - {""})

    def exists(self, path: str) -> bool:
        """Whether there is a node."""
        return path in self.tree

    def _tree(self, path: str, transaction: int) -> dict[str, bytes]:
        if not transaction:
            return self.tree
        if transaction not in self.transactions:
            raise StoreError("ENOENT")
        self.transactions[transaction].touch(path)
        return self.transactions[transaction].tree

    # ---- writing ----

    def write(self, path: str, value: bytes, transaction: int = 0) -> None:
        """Set a node; parents come into being."""
        if len(value) > VALUE_MAX:
            raise StoreError("ENOSPC")
        tree = self._tree(path, transaction)
        fresh = [p for p in _parents(path) if p not in tree]
        if path not in tree and path.startswith(self._guest):
            self._check_quota(len(fresh) + 1 + self._of_guest(tree))
        self._touch(fresh, transaction)
        for parent in fresh:
            tree[parent] = b""
            self._changed(parent, transaction, removed=False)
        tree[path] = value
        self._changed(path, transaction, removed=False)

    def _touch(self, paths: list[str], transaction: int) -> None:
        """Have room for all of them before one is changed."""
        for path in paths if transaction else ():
            self.transactions[transaction].touch(path)

    def _of_guest(self, tree: dict[str, bytes]) -> int:
        return sum(1 for path in tree if path.startswith(self._guest))

    def _check_quota(self, nodes: int) -> None:
        if nodes > NODES_MAX:
            raise StoreError("ENOSPC")

    def mkdir(self, path: str, transaction: int = 0) -> None:
        """Make a node that has no value, unless it is there."""
        if path not in self._tree(path, transaction):
            self.write(path, b"", transaction)

    def remove(self, path: str, transaction: int = 0) -> None:
        """Remove a node and all below it."""
        tree = self._tree(path, transaction)
        if path == "/":
            raise StoreError("EINVAL")
        if path not in tree:
            if _parent(path) not in tree:
                raise StoreError("ENOENT")
            return
        below = [n for n in tree if n == path or n.startswith(path + "/")]
        self._touch(below, transaction)
        for node in below:
            del tree[node]
        for node in below:
            self._changed(node, transaction, removed=True, fires=node == path or not transaction)

    def _changed(self, path: str, transaction: int, *, removed: bool, fires: bool = True) -> None:
        if transaction:
            self.transactions[transaction].changed[path] = removed
            return
        self.generation += 1
        if self.transactions:
            self.changes[path] = self.generation
        if len(self.changes) > _CHANGES_MAX:
            for open_one in self.transactions.values():
                open_one.began = _NEVER
        if len(self.changes) > _CHANGES_MAX or not self.transactions:
            self.changes.clear()
        if fires:
            self._fire(path, removed=removed)

    # ---- transactions ----

    def begin(self) -> int:
        """Start a transaction; return its number."""
        if len(self.transactions) >= TRANSACTIONS_MAX:
            raise StoreError("ENOSPC")
        number, self._next = self._next, self._next + 1
        self.transactions[number] = Transaction(dict(self.tree), self.generation)
        return number

    def end(self, number: int, *, commit: bool) -> None:
        """End it; EAGAIN if it cannot be committed."""
        if number not in self.transactions:
            raise StoreError("ENOENT")
        t = self.transactions.pop(number)
        if not commit:
            return
        if any(self.changes.get(path, 0) > t.began for path in t.touched):
            raise StoreError("EAGAIN")
        self._check_quota(self._of_guest(self.tree) + self._gained(t))
        for path, removed in t.changed.items():
            if removed:
                self.tree.pop(path, None)
            elif path in t.tree:
                self.tree[path] = t.tree[path]
            self._changed(path, 0, removed=removed)

    def _gained(self, t: Transaction) -> int:
        """How many nodes a transaction adds below the guest's path."""
        made = (path for path, removed in t.changed.items() if not removed and path in t.tree)
        return sum(1 for p in made if p not in self.tree and p.startswith(self._guest))

    # ---- watches ----

    def watch(self, path: str, token: str, watcher: Watcher) -> None:
        """Hear of changes at and below a path; at once as well, as the protocol has it."""
        if (path, token, watcher) in self.watches:
            raise StoreError("EEXIST")
        self.watches.append((path, token, watcher))
        watcher(path, token)

    def unwatch(self, path: str, token: str, watcher: Watcher) -> None:
        """Hear no more."""
        if (path, token, watcher) not in self.watches:
            raise StoreError("ENOENT")
        self.watches.remove((path, token, watcher))

    def _fire(self, path: str, *, removed: bool) -> None:
        for watched, token, watcher in list(self.watches):
            below = path == watched or path.startswith(watched.rstrip("/") + "/")
            if below or (removed and watched.startswith(path + "/")):
                watcher(path if below else watched, token)

    # ---- state ----

    def save(self) -> dict[str, Any]:
        """The tree and what is open; watches are their owners'."""
        return {
            "tree": {path: value.hex() for path, value in sorted(self.tree.items())},
            "generation": self.generation, "changes": dict(sorted(self.changes.items())),
            "next": self._next,
            "transactions": [
                [n, {p: v.hex() for p, v in t.tree.items()}, t.began, sorted(t.touched), t.changed]
                for n, t in self.transactions.items()
            ],
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what save() returned."""
        self.tree = {path: bytes.fromhex(value) for path, value in state["tree"].items()}
        self.generation, self.changes = state["generation"], dict(state["changes"])
        self._next = state["next"]
        self.transactions = {
            n: Transaction(
                {p: bytes.fromhex(v) for p, v in tree.items()}, began, set(touched), dict(changed)
            )
            for n, tree, began, touched, changed in state["transactions"]
        }


def check_path(path: str, owner: str) -> str:
    """Return the absolute path; EINVAL for one that is none."""
    special = path.startswith("@")
    if not path or len(path) > PATH_MAX or not _ALLOWED.issuperset(path):
        raise StoreError("EINVAL")
    if special:
        return path
    if not path.startswith("/"):
        path = f"{owner}/{path}"
    if "//" in path or (path != "/" and path.endswith("/")):
        raise StoreError("EINVAL")
    return path


def _parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _parents(path: str) -> Iterator[str]:
    """Yield the nodes above, from the top."""
    parts = path.strip("/").split("/")
    for count in range(1, len(parts)):
        yield "/" + "/".join(parts[:count])
