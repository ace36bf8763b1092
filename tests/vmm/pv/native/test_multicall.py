"""Multicall and the calls that it is for, against a fake processor."""

import random
from struct import pack

import pytest

from tests.vmm.pv.native.room import Room
from vmm.pv.native.abi import NOWHERE, TAG, Call, Error, Feature
from vmm.pv.native.parts import PARTS

RING = 0x1000
FUZZED = 3000


@pytest.fixture
def room() -> Room:
    room = Room(parts=PARTS)
    room.use(Feature.MULTICALL, Feature.MMU_BATCH, Feature.LAZY_CR3)
    return room


def header(room: Room, entries: int, head: int, tail: int, flags: int = 0) -> None:
    room.machine.memory.write(RING, pack("<IIII", entries, flags, head, tail))


def entry(room: Room, index: int, number: int, *arguments: int) -> None:
    words = (number, *arguments, *[0] * 6)[:7]
    room.machine.memory.write(RING + 64 + 64 * index, pack("<7Q", *words))


def test_effects_in_order(room: Room) -> None:
    header(room, 4, 2, 5)
    entry(room, 2, TAG + Call.SET_CR3, 0x5000)
    entry(room, 3, TAG + Call.MMU_UPDATE, 0x3000, 0xABCD, 0x7000)
    entry(room, 0, TAG + Call.FLUSH, NOWHERE)
    assert room.call(Call.MULTICALL, RING) == 3
    assert room.cpus[0].did == [("cr3", 0x5000), ("invlpg", 0x7000), "flush"]
    assert room.memory(0x3000, 8) == 0xABCD
    assert room.cpus[0].worked == 3
    assert room.memory(RING + 8, 4) == 5


def test_calls_that_wait_are_no_entries(room: Room) -> None:
    header(room, 4, 0, 4)
    alone = (Call.MULTICALL, Call.YIELD, Call.WAIT_ON_VALUE, Call.CHECK_THEN_SLEEP)
    for index, call in enumerate(alone):
        entry(room, index, TAG + call)
    assert room.call(Call.MULTICALL, RING) == 4
    results = [room.memory(RING + 128 + 64 * index - 8, 8) for index in range(4)]
    assert results == [(1 << 64) - Error.NESTED] * 4


def test_garbage_is_an_error_or_a_count(room: Room) -> None:
    """Wild headers and entries: bounded work, and nothing but RAM is written."""
    chance = random.Random(8)
    for _ in range(FUZZED):
        size = chance.choice((1, 2, 4, 8, 1 << 31, chance.getrandbits(32)))
        head = chance.choice((0, (1 << 32) - 1, chance.getrandbits(32)))
        header(room, size, head, head + chance.randrange(6) & 0xFFFF_FFFF, chance.getrandbits(2))
        for index in range(8):
            number = TAG + chance.choice(list(Call)) if chance.random() < 0.8 else 7
            wild = [chance.choice((0, RING, 1 << 20, chance.getrandbits(64))) for _ in range(6)]
            entry(room, index, number, *wild)
        result = room.call(Call.MULTICALL, RING + chance.choice((0, 0, 0, 64, 8)))
        assert -len(Error) <= result <= 8
