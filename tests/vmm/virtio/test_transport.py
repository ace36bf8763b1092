"""What the specification asks of every device, over each transport."""

import pytest

from tests.vmm.virtio.machine import BUSES, MESSAGE_AREA, Machine, MmioBus, PciBus, bring_up
from tests.vmm.virtio.rings import Piece, SplitDriver
from vmm.virtio.device import VirtioDevice

ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 64, 128
VERSION_1 = 1 << 32


class Echo(VirtioDevice):
    """Copies what it reads to what it may write, at once."""

    device_id = 44

    def __init__(self, machine: Machine) -> None:
        config = bytes(range(1, 13))
        super().__init__("echo", machine.context, queue_sizes=(16, 8), features=5, config=config)
        self.ready = self.resets = 0
        self.written: list[tuple[int, int, int]] = []

    def on_queue(self, index: int) -> None:
        queue = self.queues[index]
        while chain := queue.pop():
            queue.push(chain, chain.writable.write(0, chain.readable.read()))
        self.interrupt(queue)

    def on_ready(self) -> None:
        self.ready += 1

    def on_reset(self) -> None:
        self.resets += 1

    def write_config(self, offset: int, size: int, value: int) -> None:
        self.written.append((offset, size, value))


class Side:
    def __init__(self, way: str) -> None:
        self.machine = Machine()
        self.echo = Echo(self.machine)
        self.bus = BUSES[way](self.machine, self.echo)

    def up(self, features: int = 0) -> list[object]:
        memory = self.machine.memory
        return list(bring_up(self.bus, memory, features=features, packed=False, sizes=(16, 8)))

    def ask(self, ring: SplitDriver, data: bytes) -> Piece:
        memory = self.machine.memory
        answer = Piece(memory.alloc(len(data)), len(data), True)
        ring.add([Piece(memory.put(data), len(data), False), answer])
        return answer


ALL = pytest.mark.parametrize("way", BUSES)


@ALL
def test_both_queues_work_and_interrupt(way: str) -> None:
    side = Side(way)
    for index, ring in enumerate(side.up()):
        assert isinstance(ring, SplitDriver)
        answer = side.ask(ring, b"hello%d" % index)
        side.bus.kick(index)
        assert len(ring.used()) == 1
        assert side.machine.memory.ram.read(answer.gpa, 6) == b"hello%d" % index
        assert side.bus.interrupts() == 1
        ring.no_interrupts()
        side.ask(ring, b"quiet")
        side.bus.kick(index)
        assert len(ring.used()) == 1
        assert side.bus.interrupts() == 0
    assert side.bus.identify() == 44
    assert (side.echo.ready, side.machine.log) == (1, [])


@ALL
@pytest.mark.parametrize(
    "features", [0, 5, VERSION_1 | 2, VERSION_1 | 1 << 33, VERSION_1 | 1 << 63]
)
def test_features_that_are_not_offered_are_not_accepted(way: str, features: int) -> None:
    side = Side(way)
    side.bus.set_status(ACKNOWLEDGE | DRIVER)
    side.bus.accept(features)
    side.bus.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK)
    assert not side.bus.status() & FEATURES_OK
    side.bus.accept(VERSION_1 | 5)
    side.bus.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK)
    assert side.bus.status() & FEATURES_OK
    assert side.echo.has(2)
    side.echo.select_features(0, 0)
    assert side.echo.has(2), "accepted features stay"


@ALL
def test_nothing_is_served_before_the_driver_is_ready(way: str) -> None:
    side, memory = Side(way), None
    bus = side.bus
    memory = side.machine.memory
    ring = SplitDriver(memory, 8)
    bus.set_status(ACKNOWLEDGE | DRIVER)
    bus.setup(0, ring)
    assert not bus.ready(0), "features come before queues"
    bus.accept(VERSION_1)
    bus.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK)
    bus.setup(0, ring)
    assert bus.ready(0)
    side.ask(ring, b"early")
    bus.kick(0)
    assert ring.used() == []
    assert bus.interrupts() == 0
    bus.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK)
    assert len(ring.used()) == 1, "and what came before is not lost"


@ALL
def test_status_bits_stay_until_a_reset(way: str) -> None:
    side = Side(way)
    side.up()
    side.bus.set_status(ACKNOWLEDGE)
    assert side.bus.status() == 15
    side.bus.set_status(FAILED | NEEDS_RESET)
    assert side.bus.status() == 15 | FAILED
    side.bus.set_status(0)
    assert side.bus.status() == 0
    assert not side.bus.ready(0)
    assert side.echo.resets == 2  # bring_up resets too


@ALL
def test_a_device_in_error_says_so_until_it_is_reset(way: str) -> None:
    side = Side(way)
    ring, _ = side.up()
    assert isinstance(ring, SplitDriver)
    side.machine.memory.set16(ring.driver + 2, 100)
    side.bus.kick(0)
    assert side.bus.status() == 15 | NEEDS_RESET
    assert side.bus.interrupts() == 2
    (line,) = side.machine.log
    assert line.startswith("virtio device echo needs a reset: queue 0: the available index is 100")
    side.bus.kick(1)
    side.bus.kick(0)
    assert side.bus.interrupts() == 0
    ring, _ = side.up()
    assert isinstance(ring, SplitDriver)
    side.ask(ring, b"again")
    side.bus.kick(0)
    assert len(ring.used()) == 1


@ALL
def test_configuration_space(way: str) -> None:
    side = Side(way)
    assert side.bus.config(0, 4) == 0x04030201
    assert side.bus.config(3, 1) == 4
    assert side.bus.config(8, 8) == 0x0C0B0A09
    assert side.bus.config(200, 4) == 0
    generation = side.bus.get(0xFC) if isinstance(side.bus, MmioBus) else side.bus.get(0x15, 1)
    side.up()
    side.echo.config[0] = 99
    side.echo.config_changed()
    assert side.bus.interrupts() == 2
    assert side.bus.config(0, 1) == 99
    now = side.bus.get(0xFC) if isinstance(side.bus, MmioBus) else side.bus.get(0x15, 1)
    assert now == generation + 1


@ALL
def test_queues_that_do_not_exist_are_empty(way: str) -> None:
    side = Side(way)
    side.up()
    side.bus.kick(2)
    side.bus.kick(900)
    assert not side.bus.ready(7)
    side.bus.reset_queue(7)
    assert side.machine.log == []


@ALL
def test_a_ring_reset_needs_negotiation(way: str) -> None:
    side = Side(way)
    side.up()
    side.bus.reset_queue(0)
    assert side.bus.ready(0)


def test_pci_identity_and_structures() -> None:
    side = Side("pci")
    bus = side.bus
    assert isinstance(bus, PciBus)
    assert bus.read_config_space(0, 4) == (0x1040 + 44) << 16 | 0x1AF4
    assert bus.read_config_space(8, 1) == 1
    assert bus.read_config_space(0x2C, 4) == 0x1100_1AF4
    assert bus.get(0x12, 2) == 2
    bus.set(0x16, 2, 1)
    assert bus.get(0x18, 2) == 8
    assert (bus.get(0x1E, 2), bus.step) == (1, 4)
    bus.set(0x16, 2, 2)
    assert bus.get(0x18, 2) == 0, "no such queue"


def test_vectors_are_checked_and_used() -> None:
    side = Side("pci")
    bus = side.bus
    assert isinstance(bus, PciBus)
    bus.set(0x10, 2, 3)
    assert bus.get(0x10, 2) == 0xFFFF, "three vectors: 0, 1, 2"
    rings = side.up()
    for index, ring in enumerate(rings):
        assert isinstance(ring, SplitDriver)
        side.ask(ring, b"x")
        bus.kick(index)
    assert bus.messages == [(MESSAGE_AREA, 0x41), (MESSAGE_AREA, 0x42)]
    side.echo.config_changed()
    assert bus.messages[2:] == [(MESSAGE_AREA, 0x40)]
    bus.set(0x16, 2, 0)
    bus.set(0x1A, 2, 0xFFFF)
    assert isinstance(rings[0], SplitDriver)
    side.ask(rings[0], b"x")
    bus.kick(0)
    assert len(bus.messages) == 3, "no vector, no message"
    bus.set_status(0)
    assert (bus.get(0x10, 2), bus.get(0x1A, 2)) == (0xFFFF, 0xFFFF)


def test_the_pin_is_held_until_the_status_is_read() -> None:
    side = Side("pci without MSI-X")
    bus = side.bus
    assert isinstance(bus, PciBus)
    ring, _ = side.up()
    assert isinstance(ring, SplitDriver)
    side.ask(ring, b"x")
    bus.kick(0)
    assert bus.read_config_space(6, 2) & 8
    assert bus.interrupts() == 1
    assert not bus.read_config_space(6, 2) & 8
    assert bus.interrupts() == 0


def test_the_window_in_configuration_space() -> None:
    side = Side("pci")
    bus = side.bus
    assert isinstance(bus, PciBus)
    at = bus.window
    bus.write_config_space(at + 4, 1, 0)
    bus.write_config_space(at + 8, 4, 0x14)
    bus.write_config_space(at + 12, 4, 1)
    bus.write_config_space(at + 16, 4, ACKNOWLEDGE | DRIVER)
    assert bus.status() == ACKNOWLEDGE | DRIVER
    assert bus.read_config_space(at + 16, 4) == ACKNOWLEDGE | DRIVER
    bus.write_config_space(at + 8, 4, 0x2000)
    bus.write_config_space(at + 12, 4, 4)
    assert bus.read_config_space(at + 16, 4) == 0x04030201
    for number, offset, length in ((0, 0x3FFE, 4), (0, 0x4000, 1), (5, 0, 4), (0, 1, 2), (0, 0, 3)):
        bus.write_config_space(at + 4, 1, number)
        bus.write_config_space(at + 8, 4, offset)
        bus.write_config_space(at + 12, 4, length)
        bus.write_config_space(at + 16, 4, 0xFFFF_FFFF)
        bus.read_config_space(at + 16, 4)
    assert bus.status() == ACKNOWLEDGE | DRIVER


def test_mmio_registers_are_words() -> None:
    side = Side("mmio")
    bus = side.bus
    assert isinstance(bus, MmioBus)
    assert bus.get(0, 1) == bus.get(2, 2) == bus.get(0xF0) == bus.get(0x9C) == 0
    bus.set(0x70, 3, 1)
    assert bus.status() == 0
    assert bus.get(0xB0) == bus.get(0xB4) == bus.get(0xB8) == bus.get(0xBC) == 0xFFFF_FFFF
    bus.set(0x14, 2)
    assert bus.get(0x10) == 0
    bus.set(0x104, 0xABCD, 2)
    assert side.echo.written == [(4, 2, 0xABCD)]
    side.up()
    bus.set(0x30, 0)
    bus.set(0x44, 0)
    assert not bus.ready(0)
