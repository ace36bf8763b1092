"""A guest's end of the xenstore ring, in plain Python: it writes what it likes, when it likes."""

import struct

from tests.vmm.xenback.front import FREE, PAGE, World
from vmm.pv.xen.store import Store
from vmm.pv.xen.store_ring import OWN_PATH, Op, StoreRing, Watch

REQUESTS, REPLIES = 0, 1024
REQUESTS_TAKEN, REQUESTS_MADE, REPLIES_TAKEN, REPLIES_MADE = 2048, 2052, 2056, 2060
MASK = 0xFFFF_FFFF
Message = tuple[int, int, int, bytes]
"""Type, request, transaction, payload."""


class StoreGuest:
    """The page at frame FREE; `store` has a node of somebody else's."""

    def __init__(self) -> None:
        self.world = World()
        self.page = FREE * PAGE
        self.store = Store(OWN_PATH)
        self.store.write("/local/domain/0/backend/x", b"theirs")
        self.store.write(f"{OWN_PATH}/name", b"guest")
        self.notified = 0
        self.connect()

    def connect(self) -> None:
        """Begin anew, as behind a reset."""
        self.store.watches = [w for w in self.store.watches if not isinstance(w[2], Watch)]
        self.store.transactions.clear()
        self.world.shared.store(self.page, bytes(PAGE))
        self.ring = StoreRing(self.store, self.world.shared, self.page, self._notify)
        self.replies = b""
        self.unsent = b""
        self.events: list[bytes] = []

    def _notify(self) -> None:
        self.notified += 1

    def index(self, at: int) -> int:
        return self.world.shared.read(self.page + at, 4)

    def set_index(self, at: int, value: int) -> None:
        self.world.shared.write(self.page + at, 4, value & MASK)

    def put(self, data: bytes) -> int:
        """Write as much as there is room for; how much that was."""
        made, taken = self.index(REQUESTS_MADE), self.index(REQUESTS_TAKEN)
        count = min(len(data), max(0, 1024 - (made - taken & MASK)))
        for n in range(count):
            self.world.shared.write(self.page + REQUESTS + (made + n & 1023), 1, data[n])
        self.set_index(REQUESTS_MADE, made + count)
        return count

    def take(self) -> None:
        """Take what replies there are."""
        made, taken = self.index(REPLIES_MADE), self.index(REPLIES_TAKEN)
        for n in range(min(made - taken & MASK, 1024)):
            at = self.page + REPLIES + (taken + n & 1023)
            self.replies += self.world.shared.load(at, 1)
        self.set_index(REPLIES_TAKEN, made)

    def messages(self) -> list[Message]:
        """Take the whole messages among the replies."""
        found: list[Message] = []
        while len(self.replies) >= 16:
            kind, request, transaction, size = struct.unpack_from("<IIII", self.replies)
            if len(self.replies) < 16 + size:
                break
            payload, self.replies = self.replies[16 : 16 + size], self.replies[16 + size :]
            found.append((kind, request, transaction, payload))
        return found

    def say(self, kind: int, payload: bytes, transaction: int = 0, request: int = 7) -> Message:
        """Send a request and return its reply; what came behind is in `events`."""
        self.unsent += message(kind, payload, transaction, request)
        found: list[Message] = []
        while not any(one[0] != Op.WATCH_EVENT for one in found) or self.ring.output:
            self.unsent = self.unsent[self.put(self.unsent) :]
            self.ring.kick()
            self.take()
            found += self.messages()
            assert not self.ring.broken
        assert found[0][0] != Op.WATCH_EVENT
        self.events = [payload for _, _, _, payload in found[1:]]
        return found[0]


def message(kind: int, payload: bytes, transaction: int = 0, request: int = 7) -> bytes:
    return struct.pack("<IIII", kind, request, transaction, len(payload)) + payload
