"""Nonsense on the xenstore ring: `python -m tests.vmm.pv.xen.fuzz_store SEQUENCES`.

A sequence is a few messages, whole, cut, mutated or plain noise, with indexes that lie at times, in
front of a store that has quotas. What is not the guest's stays as it was, and nothing grows.
"""

import random
import struct
import sys

from tests.vmm.pv.xen.store_guest import (
    REPLIES_MADE,
    REPLIES_TAKEN,
    REQUESTS_MADE,
    REQUESTS_TAKEN,
    StoreGuest,
    message,
)
from tests.vmm.xenback.front import FREE, PAGE
from vmm.pv.xen.store_ring import OWN_PATH, Op

INDEXES = (REPLIES_MADE, REPLIES_TAKEN, REQUESTS_MADE, REQUESTS_TAKEN)
NAMES = ("a", "b", "device", "name", "vbd", "0", "x" * 300, "@introduceDomain", "", "/", "..", "~")
ERRORS = {
    b"EACCES", b"EAGAIN", b"EBUSY", b"E2BIG", b"EEXIST", b"EINVAL", b"ENOENT", b"ENOSPC", b"ENOSYS",
}  # fmt: skip


class Fuzzer:
    """One guest, a seed, and what must not change."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.guest = StoreGuest()
        self.heard: list[str] = []
        self.guest.store.watch(
            f"{OWN_PATH}/device", "back", lambda path, _token: self.heard.append(path)
        )
        self.theirs = self.others()
        self.asked = self.answered = 0

    def others(self) -> dict[str, bytes]:
        tree = self.guest.store.tree
        return {p: v for p, v in tree.items() if not p.startswith(OWN_PATH)}

    def path(self) -> bytes:
        dice = self.dice
        start = dice.choice(("", "", f"{OWN_PATH}/", "/local/domain/0/", "/", f"{OWN_PATH}x/"))
        parts = [dice.choice(NAMES) for _ in range(dice.randrange(1, 4))]
        if dice.randrange(3) == 0:
            parts.append(str(dice.randrange(2000)))
        return (start + "/".join(parts)).encode()

    def payload(self, kind: int) -> bytes:
        dice = self.dice
        if kind == Op.WRITE:
            return self.path() + b"\0" + bytes(dice.choice((0, 1, 9, 2048, 2049)))
        if kind in (Op.WATCH, Op.UNWATCH):
            return (
                self.path() + b"\0" + dice.choice((b"back", b"t%d" % dice.randrange(300))) + b"\0"
            )
        if kind == Op.TRANSACTION_END:
            return dice.choice((b"T\0", b"F\0", b"", b"X"))
        if kind == Op.SET_PERMS:
            return self.path() + b"\0n1\0" + dice.choice((b"", b"r0\0", b"??\0"))
        return dice.choice((self.path() + b"\0", self.path(), b"", dice.randbytes(20)))

    def message(self) -> bytes:
        dice = self.dice
        kind = dice.choice((*Op, Op.WRITE, Op.READ, Op.WATCH, dice.getrandbits(32)))
        number = dice.choice((0, 0, 0, *self.guest.store.transactions, dice.randrange(40)))
        whole = message(kind, self.payload(kind), number, dice.getrandbits(32))
        how = dice.randrange(40)
        if how == 0:
            at = dice.randrange(len(whole))
            whole = whole[:at] + dice.randbytes(1) + whole[at + 1 :]
        elif how == 1:
            whole = whole[: dice.randrange(len(whole))]
        elif how == 2:
            whole = whole[:12] + struct.pack("<I", dice.choice((4096, 4097, 1 << 31, 2**32 - 1)))
        elif how == 3:
            whole = dice.randbytes(dice.randrange(200))
        return whole

    def sequence(self) -> None:
        """Say a few things, take what comes, check."""
        dice, guest = self.dice, self.guest
        for _ in range(dice.randrange(1, 6)):
            guest.unsent += self.message()
            guest.unsent = guest.unsent[guest.put(guest.unsent) :]
            if dice.randrange(60) == 0:
                guest.set_index(dice.choice(INDEXES), dice.getrandbits(dice.choice((8, 12, 32))))
                self.garbled = True
            guest.ring.kick()
        if dice.randrange(8):
            guest.take()
            self.read_replies()
        self.check()
        if guest.ring.broken or len(guest.unsent) > 20_000 or dice.randrange(400) == 0:
            guest.connect()
            self.garbled = False

    garbled = False

    def read_replies(self) -> None:
        """What the ring says is whole messages of known types, unless the guest spoilt it."""
        found = self.guest.messages()
        if self.garbled:
            return
        for kind, _, _, payload in found:
            assert len(payload) <= 4096 or kind == Op.WATCH_EVENT
            assert kind != Op.ERROR or payload.rstrip(b"\0") in ERRORS, payload
        self.answered += len(found)

    def check(self) -> None:
        store, ring = self.guest.store, self.guest.ring
        assert self.others() == self.theirs
        assert len(ring.watched) <= 128
        assert len(store.watches) == len(ring.watched) + 1
        assert len(store.transactions) <= 10
        assert all(len(t.touched) <= 1024 for t in store.transactions.values())
        assert sum(1 for path in store.tree if path.startswith(OWN_PATH + "/")) <= 1000
        assert len(store.changes) <= 4097
        assert (len(ring.output) < (1 << 20) + 5000, len(ring.input) < 8192) == (True, True)
        memory = self.guest.world.ram
        assert not any(memory[: FREE * PAGE])
        assert not any(memory[(FREE + 1) * PAGE :])


def random_messages(seed: int, count: int) -> int:
    """Make `count` sequences; return how many replies were read."""
    fuzzer = Fuzzer(seed)
    for _ in range(count):
        fuzzer.sequence()
    return fuzzer.answered


if __name__ == "__main__":
    wanted, read = int(sys.argv[1]), 0
    for number in range(-(-wanted // 2000)):
        read += random_messages(number, 2000)
    sys.stdout.write(f"{wanted} sequences, {read} replies read; nothing of others' was changed\n")
