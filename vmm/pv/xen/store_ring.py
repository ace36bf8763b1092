"""The xenstore ring of the guest: requests in, replies and watch events out (public/io/xs_wire.h).

A guest may only change what is below its own path; of back ends' nodes it may read. Replies that
find no room wait, and while many do no request is read; events of watches that find no room among
them are lost. A message that is none ends the connection: nothing more is read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import Any, Final

from vmm.pv.xen.abi import OWN_DOMID
from vmm.pv.xen.rings import STORE_REPLIES, STORE_REQUESTS, ring_at
from vmm.pv.xen.shared import Shared
from vmm.pv.xen.store import Store, StoreError, check_path

PAYLOAD_MAX: Final = 4096
_HEADER: Final = Struct("<IIII")  # type, request, transaction, length
_REPLIES_MAX: Final = 1 << 14  # bytes that wait, from which on no request is read
_EVENTS_MAX: Final = 1 << 20  # bytes that wait, from which on events are lost
WATCHES_MAX: Final = 128
OWN_PATH: Final = f"/local/domain/{OWN_DOMID}"


class Op(IntEnum):
    """XS_*."""

    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESET_WATCHES = 21
    DIRECTORY_PART = 22


@dataclass(frozen=True, slots=True)
class Watch:
    """A watch of the guest's: it is told the path as it asked for it."""

    hear: Callable[["Watch", str], None]
    path: str
    token: str
    written: str = field(compare=False)

    def __call__(self, path: str, _token: str) -> None:
        """A node changed."""
        self.hear(self, path)

    def shown(self, path: str) -> str:
        """Return the path of an event: relative where the watch is."""
        absolute = self.written.startswith(("/", "@"))
        return path if absolute else self.written + path[len(self.path) :]


class StoreRing:
    """The store's end of one guest's ring, at a machine address."""

    def __init__(self, store: Store, shared: Shared, page: int, notify: Callable[[], None]) -> None:
        """`notify` tells the guest that there are replies."""
        self._store: Final = store
        self._requests: Final = ring_at(shared, page, STORE_REQUESTS)
        self._replies: Final = ring_at(shared, page, STORE_REPLIES)
        self._notify: Final = notify
        self.input = b""
        self.output = b""
        self.broken = False
        """The guest wrote nonsense; it is heard no more."""
        self.watched: list[Watch] = []
        self.lost = 0
        """Events that found no room."""
        self._answering = False
        self._events = b""
        """Come behind the reply to the request that is carried out."""

    def kick(self) -> None:
        """The guest has written requests, or taken replies."""
        self._flush()
        while not self.broken and len(self.output) < _REPLIES_MAX:
            if not self._requests.is_sound():
                self.broken = True
                return
            message = self._message()
            if message is None and not self._requests.used():
                break
            if message is None:
                self.input += self._requests.take()
            else:
                self._answer(*message)
                self._flush()
        self._notify()

    def _message(self) -> tuple[int, int, int, bytes] | None:
        """Take a request off the input; None if there is no whole one."""
        if len(self.input) < _HEADER.size:
            return None
        kind, request, transaction, length = _HEADER.unpack_from(self.input)
        if length > PAYLOAD_MAX:
            self.broken = True
            return None
        end = _HEADER.size + length
        if len(self.input) < end:
            return None
        payload, self.input = self.input[_HEADER.size : end], self.input[end:]
        return kind, request, transaction, payload

    def _answer(self, kind: int, request: int, transaction: int, payload: bytes) -> None:
        self._answering = True
        try:
            operation = _OPERATIONS.get(kind)
            if operation is None:
                raise StoreError("ENOSYS")
            data = operation(self, payload, transaction)
            if len(data) > PAYLOAD_MAX:
                raise StoreError("E2BIG")
        except StoreError as error:
            kind, data = Op.ERROR, str(error).encode() + b"\0"
        self.output += _HEADER.pack(kind, request, transaction, len(data)) + data + self._events
        self._answering, self._events = False, b""

    def _flush(self) -> None:
        if self.output and (count := self._replies.put(self.output)):
            self.output = self.output[count:]
            self._notify()

    def _event(self, watch: Watch, path: str) -> None:
        """A watched node changed."""
        data = _text(watch.shown(path)) + _text(watch.token)
        size = len(self.output) + len(self._events) + _HEADER.size + len(data)
        if size > _EVENTS_MAX:
            self.lost += 1
            return
        self._events += _HEADER.pack(Op.WATCH_EVENT, 0, 0, len(data)) + data
        if not self._answering:
            self.output, self._events = self.output + self._events, b""
            self._flush()

    # ---- operations ----

    def read(self, payload: bytes, transaction: int) -> bytes:
        """READ."""
        return self._store.read(self._path(payload), transaction)

    def directory(self, payload: bytes, transaction: int) -> bytes:
        """DIRECTORY."""
        return b"".join(map(_text, self._store.directory(self._path(payload), transaction)))

    def get_perms(self, payload: bytes, transaction: int) -> bytes:
        """GET_PERMS: the guest owns what is below its path."""
        path = self._path(payload)
        self._store.read(path, transaction)
        return _text(f"n{OWN_DOMID}" if _is_own(path) else "r0")

    def set_perms(self, payload: bytes, transaction: int) -> bytes:
        """SET_PERMS: accepted for the guest's own; there is nobody else to let in."""
        path, _, words = payload.partition(b"\0")
        self._writable(path)
        self._store.read(self._path(path + b"\0"), transaction)
        if not all(w[:1] in b"nrwb" and w[1:].isdigit() for w in words.rstrip(b"\0").split(b"\0")):
            raise StoreError("EINVAL")
        return b"OK\0"

    def write(self, payload: bytes, transaction: int) -> bytes:
        """WRITE."""
        path, found, value = payload.partition(b"\0")
        if not found:
            raise StoreError("EINVAL")
        self._store.write(self._writable(path), value, transaction)
        return b"OK\0"

    def mkdir(self, payload: bytes, transaction: int) -> bytes:
        """MKDIR."""
        self._store.mkdir(self._writable(payload.rstrip(b"\0")), transaction)
        return b"OK\0"

    def remove(self, payload: bytes, transaction: int) -> bytes:
        """RM."""
        self._store.remove(self._writable(payload.rstrip(b"\0")), transaction)
        return b"OK\0"

    def watch(self, payload: bytes, _transaction: int) -> bytes:
        """WATCH; its first event comes behind the reply."""
        written, token = _two(payload)
        watch = Watch(self._event, check_path(written, OWN_PATH), token, written)
        if len(self.watched) >= WATCHES_MAX:
            raise StoreError("E2BIG")
        self._store.watch(watch.path, token, watch)
        self.watched.append(watch)
        return b"OK\0"

    def unwatch(self, payload: bytes, _transaction: int) -> bytes:
        """UNWATCH."""
        written, token = _two(payload)
        watch = Watch(self._event, check_path(written, OWN_PATH), token, written)
        self._store.unwatch(watch.path, token, watch)
        self.watched.remove(watch)
        return b"OK\0"

    def reset_watches(self, _payload: bytes, _transaction: int) -> bytes:
        """RESET_WATCHES."""
        for watch in self.watched:
            self._store.unwatch(watch.path, watch.token, watch)
        self.watched = []
        return b"OK\0"

    def transaction_start(self, _payload: bytes, transaction: int) -> bytes:
        """TRANSACTION_START."""
        if transaction:
            raise StoreError("EBUSY")
        return _text(str(self._store.begin()))

    def transaction_end(self, payload: bytes, transaction: int) -> bytes:
        """TRANSACTION_END with "T" or "F"."""
        if payload[:1] not in (b"T", b"F"):
            raise StoreError("EINVAL")
        self._store.end(transaction, commit=payload[:1] == b"T")
        return b"OK\0"

    def domain_path(self, payload: bytes, _transaction: int) -> bytes:
        """GET_DOMAIN_PATH."""
        word = payload.rstrip(b"\0")
        if not word.isdigit():
            raise StoreError("EINVAL")
        return _text(f"/local/domain/{int(word)}")

    def is_introduced(self, payload: bytes, _transaction: int) -> bytes:
        """IS_DOMAIN_INTRODUCED."""
        return _text("T" if payload.rstrip(b"\0") in (b"0", b"1") else "F")

    def refuse(self, _payload: bytes, _transaction: int) -> bytes:
        """What only the first domain may."""
        raise StoreError("EACCES")

    def _path(self, payload: bytes) -> str:
        if not payload.endswith(b"\0"):
            raise StoreError("EINVAL")
        return check_path(payload[:-1].decode("latin-1"), OWN_PATH)

    def _writable(self, path: bytes) -> str:
        found = check_path(path.decode("latin-1"), OWN_PATH)
        if not _is_own(found):
            raise StoreError("EACCES")
        return found

    def save(self) -> dict[str, Any]:
        """What is on its way, and the watches."""
        return {
            "input": self.input.hex(), "output": self.output.hex(), "broken": self.broken,
            "watched": [[w.written, w.path, w.token] for w in self.watched],
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what save() returned: the guest's watches are set again, silently."""
        self._store.watches = [w for w in self._store.watches if w[2] not in self.watched]
        self.input, self.output = bytes.fromhex(state["input"]), bytes.fromhex(state["output"])
        self.broken = state["broken"]
        self.watched = [
            Watch(self._event, path, token, written) for written, path, token in state["watched"]
        ]
        self._store.watches += [(watch.path, watch.token, watch) for watch in self.watched]


def _is_own(path: str) -> bool:
    return path == OWN_PATH or path.startswith(OWN_PATH + "/")


def _text(text: str) -> bytes:
    return text.encode("latin-1") + b"\0"


def _two(payload: bytes) -> tuple[str, str]:
    words = payload.split(b"\0")
    if len(words) != 3 or words[2]:
        raise StoreError("EINVAL")
    return words[0].decode("latin-1"), words[1].decode("latin-1")


_OPERATIONS: Final[dict[int, Callable[[StoreRing, bytes, int], bytes]]] = {
    Op.DIRECTORY: StoreRing.directory, Op.READ: StoreRing.read, Op.GET_PERMS: StoreRing.get_perms,
    Op.WATCH: StoreRing.watch, Op.UNWATCH: StoreRing.unwatch, Op.WRITE: StoreRing.write,
    Op.TRANSACTION_START: StoreRing.transaction_start, Op.MKDIR: StoreRing.mkdir,
    Op.TRANSACTION_END: StoreRing.transaction_end, Op.RM: StoreRing.remove,
    Op.GET_DOMAIN_PATH: StoreRing.domain_path, Op.SET_PERMS: StoreRing.set_perms,
    Op.IS_DOMAIN_INTRODUCED: StoreRing.is_introduced, Op.RESET_WATCHES: StoreRing.reset_watches,
    Op.INTRODUCE: StoreRing.refuse, Op.RELEASE: StoreRing.refuse,
}  # fmt: skip
