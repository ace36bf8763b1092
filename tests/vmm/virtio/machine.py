"""A board with virtio devices, and drivers that set them up as the specification tells drivers to.

Accesses go through the board's buses and PCI's doors, as a guest's would.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from hwmodel.timing.clock import Clock
from tests.vmm.virtio.rings import Driver, DriverMemory, PackedDriver, SplitDriver
from vmm.boardmap import VIRTIO_MMIO
from vmm.devices.platform import Board, build_board
from vmm.virtio.device import Context, VirtioDevice
from vmm.virtio.mmio import MMIO_SIZE, MmioTransport
from vmm.virtio.pci import VirtioPci

EVENT_IDX, VERSION_1, PACKED, RING_RESET = 29, 32, 34, 40
MESSAGE_AREA = 0xFEE0_0000


class HandClock(Clock):
    """A clock whose time is set by hand."""

    def __init__(self, now: int = 1_000, frequency: int = 1_000_000_000) -> None:
        super().__init__(frequency, now)


@dataclass
class Machine:
    """A board, memory for drivers, and what devices said."""

    clock: HandClock = field(default_factory=HandClock)
    memory: DriverMemory = field(default_factory=DriverMemory)
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        clock: Clock = self.clock
        self.board: Board = build_board(clock)
        self.context = Context(self.memory.ram, clock, self.log.append, self.board.reschedule)

    def settle(self) -> None:
        """Let time pass until no device has anything to do, or for a second."""
        end = self.clock.now + self.clock.frequency
        while (event := self.board.next_event()) is not None and event < end:
            self.clock.now = max(self.clock.now, event)
            self.board.fire()


class MmioBus:
    """Accesses to a device over MMIO."""

    def __init__(self, machine: Machine, device: VirtioDevice) -> None:
        self.machine, self.levels = machine, [False]
        transport = MmioTransport(device, lambda level: self.levels.append(level), device.name)
        machine.board.memory.register(VIRTIO_MMIO[0], MMIO_SIZE, transport)
        self.transport = transport

    def get(self, offset: int, size: int = 4) -> int:
        return self.machine.board.read_memory(0, VIRTIO_MMIO[0] + offset, size)

    def set(self, offset: int, value: int, size: int = 4) -> None:
        self.machine.board.write_memory(0, VIRTIO_MMIO[0] + offset, size, value)

    def identify(self) -> int:
        assert (self.get(0), self.get(4)) == (0x74726976, 2)
        return self.get(8)

    def status(self) -> int:
        return self.get(0x70)

    def set_status(self, value: int) -> None:
        self.set(0x70, value)

    def features(self) -> int:
        words = []
        for word in (0, 1):
            self.set(0x14, word)
            words.append(self.get(0x10))
        return words[0] | words[1] << 32

    def accept(self, features: int) -> None:
        for word in (0, 1):
            self.set(0x24, word)
            self.set(0x20, features >> 32 * word & 0xFFFF_FFFF)

    def setup(self, index: int, ring: Driver) -> None:
        self.set(0x30, index)
        assert not self.get(0x44)
        assert self.get(0x34) >= ring.size
        self.set(0x38, ring.size)
        for base, area in ((0x80, ring.descriptors), (0x90, ring.driver), (0xA0, ring.device)):
            self.set(base, area & 0xFFFF_FFFF)
            self.set(base + 4, area >> 32)
        self.set(0x44, 1)

    def ready(self, index: int) -> bool:
        self.set(0x30, index)
        return bool(self.get(0x44))

    def reset_queue(self, index: int) -> None:
        self.set(0x30, index)
        self.set(0xC0, 1)

    def kick(self, index: int) -> None:
        self.set(0x50, index)

    def config(self, offset: int, size: int) -> int:
        return self.get(0x100 + offset, size)

    def interrupts(self) -> int:
        """What happened since the last call: 1 used buffers, 2 configuration."""
        seen = self.get(0x60)
        assert self.levels[-1] == bool(seen)
        self.set(0x64, seen)
        assert not self.levels[-1]
        return seen


class PciBus:
    """Accesses to a device over PCI, by its capabilities, with MSI-X or without."""

    def __init__(self, machine: Machine, device: VirtioDevice, *, msix: bool = True) -> None:
        self.machine, self.device, self.msix = machine, device, msix
        self.transport = VirtioPci(device)
        machine.board.plug(self.transport)
        self.messages: list[tuple[int, int]] = []
        upstream = self.transport.upstream
        assert upstream is not None
        upstream.message = lambda address, data: self.messages.append((address, data))  # type: ignore[method-assign]
        functions = machine.board.pci.functions
        self.place = next(p for p, f in functions.items() if f is self.transport)
        self.at: dict[int, int] = {}
        self.prepare()

    def prepare(self) -> None:
        """Find the structures, switch the device's accesses and messages on."""
        self.write_config_space(0x04, 2, 0x6)
        self._find_structures()

    def read_config_space(self, offset: int, size: int) -> int:
        ports = self.machine.board.ports
        ports.write(0xCF8, 4, 1 << 31 | self.place << 8 | offset & 0xFC)
        return ports.read(0xCFC + (offset & 3), size)

    def write_config_space(self, offset: int, size: int, value: int) -> None:
        ports = self.machine.board.ports
        ports.write(0xCF8, 4, 1 << 31 | self.place << 8 | offset & 0xFC)
        ports.write(0xCFC + (offset & 3), size, value)

    def _find_structures(self) -> None:
        read = self.read_config_space
        assert read(0x06, 2) & 0x10
        at = read(0x34, 1)
        while at:
            if read(at, 1) == 9:
                kind, bar, offset = read(at + 3, 1), read(at + 4, 1), read(at + 8, 4)
                base = read(0x10 + 4 * bar, 4) & ~0xF
                self.at[kind] = base + offset
                if kind == 2:
                    self.step = read(at + 16, 4)
                if kind == 5:
                    self.window = at
            elif read(at, 1) == 0x11:
                self._setup_msix(at)
            at = read(at + 1, 1)
        assert set(self.at) == {1, 2, 3, 4, 5}

    def _setup_msix(self, at: int) -> None:
        if not self.msix:
            return
        self.write_config_space(at + 2, 2, 0x8000)
        table = self.read_config_space(at + 4, 4)
        base = self.read_config_space(0x10 + 4 * (table & 7), 4) & ~0xF
        board = self.machine.board
        for vector in range((self.read_config_space(at + 2, 2) & 0x7FF) + 1):
            board.write_memory(0, base + 16 * vector, 8, MESSAGE_AREA)
            board.write_memory(0, base + 16 * vector + 8, 4, 0x40 + vector)
            board.write_memory(0, base + 16 * vector + 12, 4, 0)

    def get(self, offset: int, size: int) -> int:
        return self.machine.board.read_memory(0, self.at[1] + offset, size)

    def set(self, offset: int, size: int, value: int) -> None:
        self.machine.board.write_memory(0, self.at[1] + offset, size, value)

    def identify(self) -> int:
        assert self.read_config_space(0, 2) == 0x1AF4
        return self.read_config_space(2, 2) - 0x1040

    def status(self) -> int:
        return self.get(0x14, 1)

    def set_status(self, value: int) -> None:
        self.set(0x14, 1, value)

    def features(self) -> int:
        words = []
        for word in (0, 1):
            self.set(0, 4, word)
            words.append(self.get(4, 4))
        return words[0] | words[1] << 32

    def accept(self, features: int) -> None:
        for word in (0, 1):
            self.set(8, 4, word)
            self.set(12, 4, features >> 32 * word & 0xFFFF_FFFF)
            assert self.get(12, 4) == features >> 32 * word & 0xFFFF_FFFF

    def setup(self, index: int, ring: Driver) -> None:
        self.set(0x16, 2, index)
        assert self.get(0x18, 2) >= ring.size
        self.set(0x18, 2, ring.size)
        if self.msix:
            self.set(0x1A, 2, index + 1)
            assert self.get(0x1A, 2) == index + 1
            self.set(0x10, 2, 0)
        for offset, area in ((0x20, ring.descriptors), (0x28, ring.driver), (0x30, ring.device)):
            self.set(offset, 8, area)
            assert self.get(offset, 8) == area
        self.set(0x1C, 2, 1)

    def ready(self, index: int) -> bool:
        self.set(0x16, 2, index)
        return bool(self.get(0x1C, 2))

    def reset_queue(self, index: int) -> None:
        self.set(0x16, 2, index)
        self.set(0x3A, 2, 1)
        assert self.get(0x3A, 2) == 0

    def kick(self, index: int) -> None:
        self.set(0x16, 2, index)
        offset = self.get(0x1E, 2) * self.step
        self.machine.board.write_memory(0, self.at[2] + offset, 2, index)

    def config(self, offset: int, size: int) -> int:
        return self.machine.board.read_memory(0, self.at[4] + offset, size)

    def interrupts(self) -> int:
        if not self.msix:
            return self.machine.board.read_memory(0, self.at[3], 1)
        seen = 0
        for _, data in self.messages:
            seen |= 2 if data == 0x40 else 1
        self.messages.clear()
        return seen


VirtioBus = MmioBus | PciBus
MakeBus = Callable[[Machine, VirtioDevice], VirtioBus]
BUSES: dict[str, MakeBus] = {
    "mmio": MmioBus,
    "pci": PciBus,
    "pci without MSI-X": lambda machine, device: PciBus(machine, device, msix=False),
}


def bring_up(
    bus: VirtioBus, memory: DriverMemory, *, features: int, packed: bool, sizes: tuple[int, ...]
) -> list[Driver]:
    """What "Device Initialization" says; return the rings."""
    bus.set_status(0)
    assert bus.status() == 0
    bus.set_status(1)
    bus.set_status(3)
    offered = bus.features()
    wanted = features | 1 << VERSION_1 | (1 << PACKED if packed else 0)
    assert wanted & ~offered == 0
    bus.accept(wanted)
    bus.set_status(11)
    assert bus.status() == 11
    kind = PackedDriver if packed else SplitDriver
    event_idx = bool(features >> EVENT_IDX & 1)
    rings: list[Driver] = []
    for index, size in enumerate(sizes):
        rings.append(kind(memory, size, event_idx=event_idx))
        rings[-1].interrupt_at_next()
        bus.setup(index, rings[-1])
        assert bus.ready(index)
    bus.set_status(15)
    assert bus.status() == 15
    return rings
