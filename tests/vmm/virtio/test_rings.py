"""Chains go down and come back, on both kinds of ring, with and without the ring features."""

import random
import struct

import pytest

from tests.vmm.virtio.rings import Driver, DriverMemory, PackedDriver, Piece, SplitDriver
from vmm.virtio.queue import VirtQueue

KINDS = pytest.mark.parametrize("kind", [SplitDriver, PackedDriver])
EVENTS = pytest.mark.parametrize("event_idx", [False, True])


class Side:
    """A queue under test, its driver and the complaints."""

    def __init__(self, kind: type[Driver], size: int = 8, *, event_idx: bool = False) -> None:
        self.memory = DriverMemory()
        self.driver = kind(self.memory, size, event_idx=event_idx)
        self.complaints: list[str] = []
        self.queue = VirtQueue(0, 1024, self.memory.ram, self.complaints.append)
        self.queue.size = size
        self.event_idx = event_idx
        self.enable()

    def enable(self, *, indirect: bool = True) -> None:
        queue, driver = self.queue, self.driver
        queue.descriptors, queue.driver, queue.device = (
            driver.descriptors,
            driver.driver,
            driver.device,
        )
        queue.enable(packed=driver.packed, event_idx=self.event_idx, indirect=indirect)

    def request(self, out: bytes, room: int, *, indirect: bool = False) -> int:
        """Two readable pieces, two writable ones."""
        half = len(out) // 2
        pieces = [
            Piece(self.memory.put(out[:half]), half, False),
            Piece(self.memory.put(out[half:]), len(out) - half, False),
            Piece(self.memory.alloc(room - 1), room - 1, True),
            Piece(self.memory.alloc(1), 1, True),
        ]
        return self.driver.add(pieces, indirect=indirect)


@KINDS
@EVENTS
@pytest.mark.parametrize("indirect", [False, True])
def test_a_request_goes_there_and_back(kind: type[Driver], event_idx: bool, indirect: bool) -> None:
    side = Side(kind, event_idx=event_idx)
    for lap in range(1, 60):
        number = side.request(b"question %d" % lap, 8, indirect=indirect)
        chain = side.queue.pop()
        assert chain is not None
        assert chain.readable.read() == b"question %d" % lap
        assert chain.writable.size == 8
        assert chain.writable.write(0, b"answer%02d" % lap) == 8
        assert side.queue.pop() is None
        side.queue.push(chain, 8)
        assert side.driver.used() == [(number, 8)]
    assert side.complaints == []


@KINDS
def test_requests_may_come_back_in_any_order(kind: type[Driver]) -> None:
    dice = random.Random(1)
    side = Side(kind, size=13 if kind is PackedDriver else 16)
    out: list[object] = []
    popped = []
    for _ in range(300):
        while side.driver.packed is False and len(side.driver.free) >= 4 and dice.random() < 0.7:
            out.append(side.request(b"ab", 2))
        while isinstance(side.driver, PackedDriver) and side.driver.room >= 4:
            out.append(side.request(b"ab", 2))
        while chain := side.queue.pop():
            popped.append(chain)
        dice.shuffle(popped)
        back = [popped.pop() for _ in range(dice.randint(0, len(popped)))]
        for chain in back:
            side.queue.push(chain, 1)
        assert [number for number, _ in side.driver.used()] == [chain.id for chain in back]
    assert len(out) > 200
    assert side.complaints == []


@KINDS
@EVENTS
def test_a_driver_hears_only_what_it_asked_for(kind: type[Driver], event_idx: bool) -> None:
    side = Side(kind, event_idx=event_idx)

    def one() -> bool:
        side.request(b"ab", 2)
        chain = side.queue.pop()
        assert chain is not None
        side.queue.push(chain, 0)
        return side.queue.should_interrupt()

    for _ in range(20):
        side.driver.interrupt_at_next()
        assert one()
        assert not side.queue.should_interrupt()
        side.driver.used()
        side.driver.no_interrupts()
        assert not one()
        side.driver.used()


@KINDS
@EVENTS
def test_a_device_hears_only_what_it_asked_for(kind: type[Driver], event_idx: bool) -> None:
    side = Side(kind, event_idx=event_idx)
    side.request(b"ab", 2)
    assert side.driver.notification_wanted()
    side.queue.want_notification(False)
    assert not side.driver.notification_wanted()
    assert side.queue.pop() is not None
    side.queue.want_notification(True)
    side.request(b"ab", 2)
    assert side.driver.notification_wanted()


@KINDS
def test_the_last_chain_can_be_put_back(kind: type[Driver]) -> None:
    side = Side(kind)
    for _ in range(30):
        number = side.request(b"ab", 2)
        chain = side.queue.pop()
        assert chain is not None
        side.queue.unpop(chain)
        assert side.queue.has_available()
        again = side.queue.pop()
        assert again is not None
        assert again.id == number
        assert not side.queue.has_available()
        side.queue.push(again, 0)
        side.driver.used()


@KINDS
def test_a_written_down_queue_goes_on(kind: type[Driver]) -> None:
    side = Side(kind, event_idx=True)
    for _ in range(5):
        side.request(b"ab", 2)
        chain = side.queue.pop()
        assert chain is not None
        side.queue.push(chain, 0)
        side.driver.used()
    number = side.request(b"xy", 4)
    chain = side.queue.pop()
    assert chain is not None
    saved, out = side.queue.save(), chain.save()
    side.queue.reset()
    side.queue.push(chain, 4)
    assert side.driver.used() == [], "a chain from before the reset"
    other = VirtQueue(0, 1024, side.memory.ram, side.complaints.append)
    other.restore(saved)
    assert other.save() == saved
    again = other.restore_chain(out)
    assert again.readable.read() == b"xy"
    assert again.writable.write(0, b"12345678") == 4
    other.push(again, 4)
    assert side.driver.used() == [(number, 4)]
    assert other.should_interrupt()


def test_a_buffer_is_read_and_written_across_its_pieces() -> None:
    side = Side(SplitDriver)
    side.request(b"0123456789", 6)
    chain = side.queue.pop()
    assert chain is not None
    assert chain.readable.read(3, 4) == b"3456"
    assert chain.readable.read(8, 100) == b"89"
    assert chain.readable.read(10) == chain.readable.read(-1) == b""
    assert b"".join(chain.readable.views(4)) == b"456789"
    assert chain.readable.cut(2, 6).read(2) == b"4567"
    assert chain.writable.write(4, b"abc") == 2
    assert chain.writable.fill(5, 9) == 1
    assert chain.writable.read() == b"\0\0\0\0a\0"


def descriptor(side: Side, index: int, *fields: int) -> None:
    entry = struct.pack("<QIHH", *fields)
    side.memory.ram.write(side.driver.descriptors + 16 * index, entry)


def available(side: Side, head: int, index: int = 1) -> None:
    side.memory.set16(side.driver.driver + 4, head)
    side.memory.set16(side.driver.driver + 2, index)


TABLE = 0x80000
BAD_SPLIT = {
    "loop": [(0x1000, 4, 1, 1), (0x1000, 4, 1, 0)],
    "self": [(0x1000, 4, 1, 0)],
    "next out of range": [(0x1000, 4, 1, 8)],
    "address out of range": [(1 << 20, 1, 0, 0)],
    "address wraps": [((1 << 64) - 2, 8, 0, 0)],
    "huge length": [(0x1000, 0xFFFF_FFFF, 2, 0)],
    "across the end": [((1 << 20) - 4, 8, 2, 0)],
    "readable behind writable": [(0x1000, 4, 3, 1), (0x1000, 4, 0, 0)],
    "indirect with next": [(TABLE, 16, 5, 1), (0x1000, 4, 0, 0)],
    "indirect of no size": [(TABLE, 0, 4, 0)],
    "indirect of odd size": [(TABLE, 24, 4, 0)],
    "huge indirect": [(TABLE, 16 * 1025, 4, 0)],
    "indirect out of range": [(1 << 20, 16, 4, 0)],
    "indirect in indirect": [(TABLE, 16, 4, 0)],
    "indirect loop": [(TABLE + 16, 32, 4, 0)],
    "indirect next out of range": [(TABLE + 48, 16, 4, 0)],
}


def bad_tables(side: Side) -> None:
    entries = [
        (TABLE, 16, 4, 0),
        (0x1000, 4, 1, 1),
        (0x1000, 4, 1, 0),
        (0x1000, 4, 1, 1),
    ]
    for place, entry in enumerate(entries):
        side.memory.ram.write(TABLE + 16 * place, struct.pack("<QIHH", *entry))


@pytest.mark.parametrize("name", BAD_SPLIT)
def test_garbage_in_a_split_ring_is_named(name: str) -> None:
    side = Side(SplitDriver)
    bad_tables(side)
    for index, fields in enumerate(BAD_SPLIT[name]):
        descriptor(side, index, *fields)
    available(side, 0)
    assert side.queue.pop() is None
    assert len(side.complaints) == 1
    assert not side.queue.enabled
    assert side.queue.pop() is None
    assert len(side.complaints) == 1


@pytest.mark.parametrize(("head", "index"), [(8, 1), (0xFFFF, 1), (0, 9), (0, 0xFFFF)])
def test_garbage_in_the_available_ring_is_named(head: int, index: int) -> None:
    side = Side(SplitDriver)
    descriptor(side, 0, 0x1000, 4, 0, 0)
    available(side, head, index)
    assert side.queue.pop() is None
    assert len(side.complaints) == 1


def test_an_index_that_goes_back_is_named() -> None:
    side = Side(SplitDriver)
    descriptor(side, 0, 0x1000, 4, 0, 0)
    available(side, 0)
    chain = side.queue.pop()
    assert chain is not None
    available(side, 0, 0)
    assert side.queue.pop() is None
    assert len(side.complaints) == 1
    side.queue.push(chain, 0)  # of a queue that is off: dropped


def test_the_same_buffer_twice_is_named() -> None:
    side = Side(SplitDriver)
    descriptor(side, 0, 0x1000, 4, 0, 0)
    available(side, 0, 2)
    assert side.queue.pop() is not None
    assert side.queue.pop() is None
    assert "before it was used" in side.complaints[0]


def test_indirect_needs_negotiation() -> None:
    side = Side(SplitDriver)
    side.queue.reset()
    side.queue.size = 8
    side.enable(indirect=False)
    side.request(b"ab", 2, indirect=True)
    assert side.queue.pop() is None
    assert "not negotiated" in side.complaints[0]


BAD_PACKED = {
    "all in a chain": [(0x1000, 4, 0, 0x81)] * 8,
    "buffer id": [(0x1000, 4, 8, 0x80)],
    "address": [(1 << 20, 4, 0, 0x80)],
    "indirect in a chain": [(0x1000, 4, 0, 0x81), (TABLE, 16, 0, 0x84)],
    "indirect with next": [(TABLE, 16, 0, 0x85), (0x1000, 4, 0, 0x80)],
    "readable behind writable": [(0x1000, 4, 0, 0x83), (0x1000, 4, 0, 0x80)],
}


@pytest.mark.parametrize("name", BAD_PACKED)
def test_garbage_in_a_packed_ring_is_named(name: str) -> None:
    side = Side(PackedDriver)
    for index, fields in enumerate(BAD_PACKED[name]):
        descriptor(side, index, *fields)
    assert side.queue.pop() is None
    assert len(side.complaints) == 1


@KINDS
@pytest.mark.parametrize("area", ["descriptors", "driver", "device"])
@pytest.mark.parametrize("where", [1, (1 << 20) - 2, 1 << 20, (1 << 64) - 16])
def test_areas_outside_memory_are_refused(kind: type[Driver], area: str, where: int) -> None:
    side = Side(kind)
    side.queue.reset()
    side.queue.size = 8
    setattr(side.driver, area, where)
    side.enable()
    assert not side.queue.enabled
    assert len(side.complaints) == 1


@KINDS
@pytest.mark.parametrize("size", [0, 3, 1025, 0xFFFF])
def test_sizes_are_checked(kind: type[Driver], size: int) -> None:
    side = Side(kind)
    side.queue.reset()
    side.queue.size = size
    side.enable()
    assert side.queue.enabled == (kind is PackedDriver and size == 3)
