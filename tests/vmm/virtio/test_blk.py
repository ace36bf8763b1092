"""A disk over each transport, on each kind of ring, driven as a guest would."""

import random
import struct
from pathlib import Path

import pytest

from hwmodel.timing.clock import Clock
from tests.vmm.virtio.disk import (
    DISCARD,
    F_FLUSH,
    FLUSH,
    GET_ID,
    IN,
    OUT,
    WRITE_ZEROES,
    DiskDriver,
)
from tests.vmm.virtio.machine import BUSES, EVENT_IDX, Machine
from tests.vmm.virtio.rings import Piece
from vmm.storage.image import StorageError, Views
from vmm.storage.opening import open_image
from vmm.virtio.blk import Blk
from vmm.virtio.blk_timing import TIMINGS, DiskTiming

MIB = 1 << 20
SIZE = 2 * MIB
WAYS = [(bus, packed, event) for bus in BUSES for packed in (0, 1) for event in (0, 1)]


class Bench:
    """A machine with one disk and its driver."""

    def __init__(
        self, path: Path, way: tuple[str, int, int] = ("mmio", 0, 0), *,
        features: int = F_FLUSH, read_only: bool = False, snapshot: bool = False,
        timing: DiskTiming = TIMINGS["ssd"],
    ) -> None:  # fmt: skip
        bus, packed, event_idx = way
        self.machine = Machine()
        self.image = open_image(path, read_only=read_only, snapshot=snapshot)
        self.blk = Blk(
            "disk0", self.machine.context, self.image, timing, serial="s-1", packed=bool(packed)
        )
        self.bus = BUSES[bus](self.machine, self.blk)
        features |= event_idx << EVENT_IDX
        self.driver = DiskDriver(self.machine, self.bus, features=features, packed=bool(packed))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@pytest.mark.parametrize("way", WAYS)
def test_sectors_go_there_and_back(way: tuple[str, int, int], disk: Path) -> None:
    bench, dice = Bench(disk, way, features=F_FLUSH | 1 << 28), random.Random(2)
    assert bench.bus.identify() == 2
    assert bench.bus.config(0, 8) == SIZE // 512
    assert bench.bus.config(20, 4) == 512
    driver, model = bench.driver, bytearray(disk.read_bytes())
    for lap in range(60):
        size = 512 * dice.randint(1, 40)
        sector = dice.randrange((SIZE - size) // 512 + 1)
        at = sector * 512
        if dice.random() < 0.5:
            data = dice.randbytes(size)
            driver.write(sector, data, indirect=lap % 3 == 0)
            model[at : at + size] = data
        else:
            assert driver.read(sector, size, indirect=lap % 3 == 0) == model[at : at + size]
        assert bench.bus.interrupts() == 1
    assert driver.request(FLUSH) == (0, b"")
    assert driver.request(GET_ID, room=20) == (0, b"s-1".ljust(20, b"\0"))
    bench.image.close()
    assert disk.read_bytes() == model
    assert bench.machine.log == []


def test_discard_and_write_zeroes(disk: Path) -> None:
    bench = Bench(disk)
    ranges = struct.pack("<QIIQII", 8, 8, 0, 64, 16, 1)
    assert bench.driver.request(WRITE_ZEROES, out=ranges) == (0, b"")
    assert bench.driver.read(8, 4096) == bytes(4096)
    assert bench.driver.read(64, 8192) == bytes(8192)
    assert bench.driver.read(16, 512) == disk.read_bytes()[8192:8704]
    assert bench.driver.request(DISCARD, out=struct.pack("<QII", 128, 64, 0)) == (0, b"")
    bench.image.close()
    assert disk.stat().st_size == SIZE


BAD = {
    "behind the end": (IN, SIZE // 512, b"", 512, 1),
    "across the end": (OUT, SIZE // 512 - 1, bytes(1024), 0, 1),
    "sector wraps": (IN, (1 << 64) - 1, b"", 512, 1),
    "not whole sectors": (IN, 0, b"", 100, 1),
    "odd write": (OUT, 0, b"x" * 513, 0, 1),
    "unknown type": (77, 0, b"", 0, 2),
    "short identity": (GET_ID, 0, b"", 19, 1),
    "discard of nothing": (DISCARD, 0, b"", 0, 1),
    "discard of odd bytes": (DISCARD, 0, b"x" * 17, 0, 1),
    "discard behind the end": (DISCARD, 0, struct.pack("<QII", SIZE // 512, 1, 0), 0, 1),
    "discard wraps": (DISCARD, 0, struct.pack("<QII", (1 << 64) - 1, 1, 0), 0, 1),
    "huge discard": (DISCARD, 0, struct.pack("<QII", 0, 0xFFFF_FFFF, 0), 0, 1),
    "discard with unmap": (DISCARD, 0, struct.pack("<QII", 0, 1, 1), 0, 2),
    "unknown flag": (WRITE_ZEROES, 0, struct.pack("<QII", 0, 1, 2), 0, 2),
    "too many ranges": (WRITE_ZEROES, 0, struct.pack("<QII", 0, 1, 0) * 33, 0, 1),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_done_is_answered_so(name: str, disk: Path) -> None:
    bench, before = Bench(disk), disk.read_bytes()
    kind, sector, out, room, status = BAD[name]
    assert bench.driver.request(kind, sector, out, room)[0] == status
    assert bench.driver.read(0, 512) == before[:512]
    bench.image.close()
    assert disk.read_bytes() == before


def test_a_read_only_disk_says_so_and_refuses(disk: Path) -> None:
    bench, before = Bench(disk, features=F_FLUSH | 1 << 5, read_only=True), disk.read_bytes()
    assert not bench.bus.features() & (1 << DISCARD | 1 << WRITE_ZEROES)
    assert bench.driver.request(OUT, 0, bytes(512))[0] == 1
    assert bench.driver.request(WRITE_ZEROES, out=struct.pack("<QII", 0, 1, 0))[0] == 1
    assert bench.driver.request(FLUSH)[0] == 0
    assert bench.driver.read(0, 512) == before[:512]
    assert disk.read_bytes() == before


@pytest.mark.parametrize("spoil", ["no header", "no status", "nothing"])
def test_a_request_without_its_parts_needs_a_reset(spoil: str, disk: Path) -> None:
    bench = Bench(disk)
    memory = bench.machine.memory
    header = Piece(memory.put(bytes(16)), 15 if spoil == "no header" else 16, False)
    pieces = [header] if spoil == "no status" else [header, Piece(memory.alloc(512), 512, True)]
    if spoil == "nothing":
        pieces = [Piece(memory.alloc(512), 0, True)]
    bench.driver.submit(pieces)
    bench.bus.kick(0)
    assert bench.bus.status() == 15 | 64
    assert bench.bus.interrupts() == 2
    assert len(bench.machine.log) == 1
    bench.machine.settle()
    assert bench.driver.ring.used() == []
    again = DiskDriver(bench.machine, bench.bus)
    assert len(again.read(0, 512)) == 512


class Broken:
    """An image on a host that fails."""

    size, read_only = SIZE, False

    def _fail(self, *_: object, **__: object) -> None:
        raise StorageError("no space left")

    read = write = zero = discard = flush = _fail

    def close(self) -> None:
        """Nothing."""


def test_an_error_of_the_host_is_the_guests_io_error(disk: Path) -> None:
    bench = Bench(disk)
    machine = Machine()
    blk = Blk("disk0", machine.context, Broken(), TIMINGS["none"])
    driver = DiskDriver(machine, BUSES["mmio"](machine, blk))
    for kind, out, room in ((IN, b"", 512), (OUT, bytes(512), 0), (FLUSH, b"", 0)):
        for _ in range(20):
            assert driver.request(kind, 0, out, room)[0] == 1
    assert set(machine.log) == {"disk disk0: no space left"}
    assert len(machine.log) == 20
    bench.image.close()


def test_completions_take_the_time_of_the_medium(disk: Path) -> None:
    """1 GHz: a cycle is a nanosecond. Two requests share the latency, not the bandwidth."""
    bench = Bench(disk, timing=DiskTiming(77_000, 18_000, 5_000, 1_000_000_000, 500_000_000))
    machine = bench.machine
    start = machine.clock.now
    for sector in (0, 8):
        memory = machine.memory
        head = Piece(memory.put(struct.pack("<IIQ", IN, 0, sector)), 16, False)
        bench.driver.submit(
            [head, Piece(memory.alloc(4096), 4096, True), Piece(memory.alloc(1), 1, True)]
        )
    bench.bus.kick(0)
    assert bench.driver.ring.used() == []
    assert machine.board.next_event() == start + 77_000 + 4097
    machine.clock.now = start + 77_000 + 4096
    machine.board.fire()
    assert bench.driver.ring.used() == []
    machine.clock.now += 1
    machine.board.fire()
    assert len(bench.driver.ring.used()) == 1
    assert machine.board.next_event() == start + 77_000 + 2 * 4097


def test_a_disk_with_one_arm_takes_requests_one_after_the_other() -> None:
    from vmm.virtio.blk_timing import Medium

    medium = Medium(TIMINGS["hdd"], Clock(1_000_000_000))
    first = medium.done_at(0, 249, write=False)
    assert first == 12_660_000 + 1000
    assert medium.done_at(0, 0, write=False) == first + 12_660_000
    assert medium.flushed_at(10**9) == 10**9 + 4_160_000


class Counting:
    """An image that counts its flushes."""

    size, read_only, flushes = SIZE, False, 0

    def read(self, offset: int, views: Views) -> None:
        """Nothing."""

    def write(self, offset: int, views: Views) -> None:
        """Nothing."""

    def zero(self, offset: int, size: int, *, unmap: bool) -> None:
        """Nothing."""

    def discard(self, offset: int, size: int) -> None:
        """Nothing."""

    def flush(self) -> None:
        self.flushes += 1

    def close(self) -> None:
        """Nothing."""


@pytest.mark.parametrize("features", [0, F_FLUSH])
def test_without_flushes_every_write_is_durable(features: int) -> None:
    machine, image = Machine(), Counting()
    blk = Blk("disk0", machine.context, image, TIMINGS["none"])
    driver = DiskDriver(machine, BUSES["mmio"](machine, blk), features=features)
    driver.write(0, bytes(512))
    assert image.flushes == (0 if features else 1)


@pytest.mark.parametrize("way", WAYS)
def test_a_written_down_disk_goes_on(way: tuple[str, int, int], disk: Path) -> None:
    """Save with a request under way, restore into another machine: same answer, same state."""
    one = Bench(disk, way, snapshot=True)
    one.driver.write(3, b"kept" * 128)
    memory = one.machine.memory
    memory.top = one.driver.floor
    answer, status = memory.alloc(1024), memory.alloc(1)
    head = Piece(memory.put(struct.pack("<IIQ", IN, 0, 3)), 16, False)
    number = one.driver.submit([head, Piece(answer, 1024, True), Piece(status, 1, True)])
    one.bus.kick(0)
    assert one.blk.next_event() is not None
    saved = one.machine.board.save()
    two = Bench(disk, way, snapshot=True)
    two.machine.memory.ram.write(0, memory.ram.read(0, MIB))
    two.machine.clock.now = one.machine.clock.now
    two.machine.board.restore(saved)
    assert two.machine.board.save() == saved
    two.machine.settle()
    two.driver.ring = one.driver.ring
    one.driver.ring.memory.ram = two.machine.memory.ram
    assert one.driver.ring.used() == [(number, 1025)]
    want = b"kept" * 128 + disk.read_bytes()[2048:2560]
    assert two.machine.memory.ram.read(answer, 1025) == want + b"\0"
    assert two.bus.interrupts() == 1
    values = [v for state in saved.values() for v in state.values()]
    assert all(type(value) in (int, bytes, list) for value in values)


@pytest.mark.parametrize("way", WAYS)
def test_a_queue_can_be_reset_alone(way: tuple[str, int, int], disk: Path) -> None:
    bench = Bench(disk, way, features=F_FLUSH | 1 << 40)
    memory = bench.machine.memory
    head = Piece(memory.put(struct.pack("<IIQ", IN, 0, 0)), 16, False)
    bench.driver.submit([head, Piece(memory.alloc(513), 513, True)])
    bench.bus.kick(0)
    bench.bus.reset_queue(0)
    assert not bench.bus.ready(0)
    bench.machine.settle()
    assert bench.driver.ring.used() == []
    ring = type(bench.driver.ring)(memory, 16, event_idx=bool(way[2]))
    ring.interrupt_at_next()
    bench.driver.ring, bench.driver.floor = ring, memory.top
    bench.bus.setup(0, ring)
    assert bench.driver.read(0, 512) == disk.read_bytes()[:512]
    assert bench.machine.log == []
