"""Nonsense on the rings of the back ends: `python -m tests.vmm.xenback.fuzz SEQUENCES`.

Requests that are right, mutated or noise; grants that are stale, of other domains, read-only; a
producer index from anywhere; the front end's states in any order. Pages that were not granted to be
written keep what is in them, what is held is given back, and what was not granted leaves by no
disk and by no cable.
"""

import random
import struct
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.vmm.xenback import test_blkback, test_netback
from tests.vmm.xenback.front import FRAMES, FREE, PAGE, World

OFTEN_BAD = (0, 1, 7, 8, 11, 12, 255, 256, 257, 4095, 4096, 0xFFFF, 1 << 31, (1 << 32) - 1)
FIRST_REFERENCE, FRAMES_GRANTED = 60, 20
"""Grants from there on are of every second frame behind those that the fronts use themselves."""
SECRET = b"nobody's"
"""What the frames between them are full of."""


class Grants:
    """Grants at random, and the frames that a back end may have written."""

    def __init__(self, dice: random.Random, world: World, first: int) -> None:
        self.dice, self.world = dice, world
        self.frames = range(first, FRAMES, 2)
        self.may_change: set[int] = set()
        for mfn in range(first + 1, FRAMES, 2):
            world.shared.store(mfn * PAGE, SECRET * (PAGE // len(SECRET)))

    def shuffle(self) -> None:
        """Give, take back, and spoil grants; what is no longer granted may have been kept."""
        dice = self.dice
        for _ in range(4):
            mfn = dice.choice((*self.frames, *self.frames, FRAMES - 1, 0, 2, 10**6, (1 << 32) - 1))
            flags = dice.choice((*(1,) * 12, 5, 0, 2, 3, dice.getrandbits(16)))
            domain = dice.choice((*(0,) * 12, 1, 0x7FF0, dice.getrandbits(16)))
            number = FIRST_REFERENCE + dice.randrange(FRAMES_GRANTED)
            self.world.grant(number, mfn & 0xFFFF_FFFF, flags, domain)
            if flags & 7 == 1 and not domain and mfn in self.frames:
                self.may_change.add(mfn)

    def reference(self) -> int:
        dice = self.dice
        good = FIRST_REFERENCE + dice.randrange(FRAMES_GRANTED)
        return dice.choice((good, good, good, good, 0, 8, 9, 511, 512, dice.getrandbits(32)))


def _unchanged(world: World, before: bytes, may: set[int], own: set[int]) -> None:
    for mfn in set(range(3, FRAMES)) - may - own:
        at = mfn * PAGE
        assert world.ram[at : at + PAGE] == before[at : at + PAGE], mfn


def _index(dice: random.Random, world: World, page: int, by: int) -> None:
    """Move a producer index: by what was put there, or anywhere."""
    now = world.shared.read(page, 4)
    moved = dice.choice((by,) * 30 + (0, 33, 1000, dice.getrandbits(32)))
    world.shared.write(page, 4, now + moved & 0xFFFF_FFFF)


def _states(dice: random.Random, front: "test_blkback.Front | test_netback.Front") -> None:
    """Say any states, and connect anew in the end, with a port of its own."""
    for _ in range(dice.randrange(3)):
        front.world.says(front.backend.front, state=dice.choice((0, 1, 2, 5, 6, 9, "x", -1)))
    front.world.says(front.backend.front, state=1)
    assert front.world.held() == {}
    front.port = front.world.open_port()
    page = FREE * PAGE
    for ring in (page, page + PAGE) if isinstance(front, test_netback.Front) else (page,):
        front.world.shared.store(ring, struct.pack("<IIII", 0, 1, 0, 1))
    front.connect()


def _entry(dice: random.Random, grants: Grants) -> bytes:
    kind = dice.choice((0, 0, 1, 2, 3, 5, 6, 6, dice.randrange(256)))
    sector = dice.choice((0, 5, 63, 64, dice.getrandbits(64), (1 << 63) - 1))
    count = dice.choice((1, 2, 11, 12, 255, dice.randrange(12)))
    if kind == 6:
        many = dice.choice((1, 3, 256, 257, 0xFFFF))
        pages = [grants.reference() for _ in range(8)]
        entry = struct.pack(
            "<BBH4xQQH2x8I", 6, dice.choice((0, 0, 1, 1, 2, 3, 5, 6)), many, 7, sector, 0, *pages
        )
    else:
        segments = b"".join(
            struct.pack("<IBBH", grants.reference(), dice.randrange(10), dice.randrange(10), 0)
            for _ in range(11)
        )
        entry = struct.pack("<BBH4xQQ", kind, count, 0, dice.getrandbits(64), sector) + segments
    if dice.randrange(20) == 0:
        entry = dice.randbytes(112)
    return entry.ljust(112, b"\0")


def block_requests(seed: int, count: int) -> int:
    """Make `count` sequences of up to three requests; return how many were answered."""
    dice, answered = random.Random(seed), 0
    with TemporaryDirectory() as name:
        front = test_blkback.Front(Path(name), speed=dice.choice(("none", "ssd")))
        front.connect(feature_persistent=dice.randrange(2))
        world = front.world
        grants = Grants(dice, world, FREE + 4)
        for mfn in grants.frames:  # lists of segments, as garbled as the rest
            listed = [dice.choice((grants.reference(), dice.getrandbits(32))) for _ in range(512)]
            data = b"".join(struct.pack("<IBBH", n, n % 9, n % 11, 0) for n in listed)
            world.shared.store(mfn * PAGE, data)
        for _ in range(count):
            before = bytes(world.ram)
            grants.shuffle()
            for _ in range(dice.randrange(1, 4)):
                entry = _entry(dice, grants)
                at = FREE * PAGE + 64 + world.shared.read(FREE * PAGE, 4) % 32 * 112
                world.shared.store(at, entry)
                _index(dice, world, FREE * PAGE, 1)
                if front.port in world.ports.channels:
                    world.ports.send(front.port)
            world.clock.now += dice.choice((0, 10**9))
            front.backend.fire()
            _unchanged(world, before, grants.may_change, set(range(FREE, FREE + 4)))
            assert SECRET not in front.file.read_bytes()
            assert len(front.file.read_bytes()) == 512 * test_blkback.SECTORS
            answered += world.shared.read(FREE * PAGE + 8, 4) > 0
            if not front.backend.port or dice.randrange(50) == 0:
                _states(dice, front)
        front.world.says(front.backend.front, state=6)
        assert world.held() == {}
    return answered


def _slots(dice: random.Random, grants: Grants) -> list[bytes]:
    """One frame as a guest would write it, more or less."""
    slots: list[bytes] = []
    if dice.randrange(2):
        size, flags = dice.choice((60, 1514, 4096)), dice.choice((0, 1, 3))
        return [struct.pack("<IHHHH", grants.reference(), 0, flags, 5, size)]
    for _ in range(dice.choice((1, 1, 2, 3, 20))):
        size = dice.choice((60, 1514, 4096, 14, 0, 0xFFFF, *OFTEN_BAD[:5])) & 0xFFFF
        flags = dice.choice((0, 1, 3, 4, 4, 8, dice.getrandbits(16)))
        offset = dice.choice((0, 0, 2, 100, 4095, 0xFFFF))
        slots.append(struct.pack("<IHHHH", grants.reference(), offset, flags, 5, size))
        if flags & 8:
            kind, more = dice.choice((1, 0, 9)), dice.choice((0, 0, 1, 255))
            slots.append(struct.pack("<BBHBBH4x", kind, more, 1448, dice.randrange(4), 0, 0))
    if dice.randrange(10) == 0:
        slots.append(dice.randbytes(12))
    return slots


def net_slots(seed: int, count: int) -> int:
    """Make `count` sequences of frames sent and pages given; return how many frames went out."""
    dice, seen = random.Random(seed), 0
    front = test_netback.Front().connect()
    world, page = front.world, FREE * PAGE
    grants = Grants(dice, world, FREE + 2)
    for mfn in grants.frames:  # some of them frames with an IPv4 header
        ip = bytes((0x40 | dice.randrange(16),)) + dice.randbytes(8) + dice.choice((b"\6", b"\21"))
        world.shared.store(mfn * PAGE, bytes(12) + b"\x08\x00" + ip + dice.randbytes(4000))
    for _ in range(count):
        before = bytes(world.ram)
        grants.shuffle()
        for slot in (slots := _slots(dice, grants)):
            at = page + 64 + world.shared.read(page, 4) % 256 * 12
            world.shared.store(at, slot)
            world.shared.write(page, 4, world.shared.read(page, 4) + 1 & 0xFFFF_FFFF)
        for _ in range(dice.randrange(3)):
            at = page + PAGE + 64 + world.shared.read(page + PAGE, 4) % 256 * 8
            world.shared.store(at, struct.pack("<HHI", dice.getrandbits(16), 0, grants.reference()))
            _index(dice, world, page + PAGE, 1)
        _index(dice, world, page, 0 if slots else 1)
        if front.port in world.ports.channels:
            world.ports.send(front.port)
        for _ in range(dice.randrange(3)):
            front.backend.receive(bytes(dice.choice((60, 1514, 5000, 13, 70000))))
        world.clock.now += 1_000_000
        front.backend.fire()
        _unchanged(world, before, grants.may_change, {FREE, FREE + 1})
        assert not any(SECRET in frame for frame in front.cable.sent[seen:])
        seen = len(front.cable.sent)
        if not front.backend.port or dice.randrange(50) == 0:
            _states(dice, front)
    front.world.says(front.backend.front, state=6)
    assert world.held() == {}
    return len(front.cable.sent)


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    for what in (block_requests, net_slots):
        done = sum(what(seed, 1000) for seed in range(-(-wanted // 1000)))
        sys.stdout.write(f"{what.__name__}: {wanted} sequences, {done} carried out\n")
        sys.stdout.flush()
