"""The standard PC board.

    ports                                   memory
    0x020-021, 0x0a0-0a1   8259A pair       0xfec00000  I/O APIC       4 KiB
    0x4d0-4d1              their ELCR       0xfee00000  local APICs    4 KiB, one behind each
    0x040-043, 0x061       8254, port B                 processor, may be moved or switched off
    0x060, 0x064           8042             0xff000000  test memory    64 KiB
    0x070-071              MC146818
    0x080                  POST code        0xe0000000  PCI configuration (ECAM), 1 MiB
                                            lines
    0x092, 0xcf9           reset            0  8254 (I/O APIC pin 2), 1  8042
    0xcf8, 0xcfc-cff       PCI              16-19 PCI, with 10 and 11 for the PIC
    0x0e0-0e7, 0x2000-2017 test device      4  16550A
    0x0e9                  debug console    8  MC146818
    0x0f4-0f7              exit port        2  the slave PIC, nothing else
    0x3f8-3ff              16550A           n  test device, port 0x2000 + n
    0x510-511              fw_cfg
    0x3c0-3df              VGA, text only     RAM at 0xb8000
    0x600-60b              ACPI PM1, PM timer (line 9)
    0x8900                 "Shutdown"

The board is as firmware leaves it: PIC vectors 0x08 and 0x70, no line masked, LINT0 of the
bootstrap processor passing the PIC, the PIT not counting.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Protocol

from vmm.boardmap import (
    ECAM,
    IOAPIC_BASE,
    PCI_CONFIG_PORT,
    PCI_PIC_LINES,
    PM_BASE,
    SCI_LINE,
    VGA_PORT,
    WAKEUP_MAILBOX,
)
from vmm.devices.acpi_pm import SIZE, AcpiPm
from vmm.devices.bus import Bus, UnknownReport, earliest, fire_due, port_key
from vmm.devices.debugcon import DebugConsole
from vmm.devices.device import Clock, Device, State, Untimed
from vmm.devices.emulated import EmulatedAccesses
from vmm.devices.exitport import ExitPort, ShutdownPort
from vmm.devices.fwcfg import FwCfg
from vmm.devices.i8042 import KeyboardController
from vmm.devices.interrupt_lines import InterruptLines
from vmm.devices.ioapic import MASKED, IoApic
from vmm.devices.isa import IsaBus
from vmm.devices.lapic import LocalApic
from vmm.devices.lapic_bus import ApicBus, DeliveryMode
from vmm.devices.lapic_pins import CpuPins
from vmm.devices.lapic_registers import Reg
from vmm.devices.pci.access import ConfigPorts, Ecam
from vmm.devices.pci.function import PciFunction
from vmm.devices.pci.root import PciRoot
from vmm.devices.pic import Pic
from vmm.devices.pit import Pit
from vmm.devices.resetport import Latch, Port92, ResetControl
from vmm.devices.rtc import DEFAULT_EPOCH, Rtc
from vmm.devices.serial import Serial
from vmm.devices.testdev import LINE_COUNT, LINES, MMIO_SIZE, TestDevice, TestMemory
from vmm.devices.vga import PORTS, Vga
from vmm.devices.wakeup import SIZE as WAKEUP_SIZE
from vmm.devices.wakeup import WakeUp, WakeupMailbox

SERIAL_DATA, LINE_STATUS = 0x3F8, 0x3FD
"""The ports of the serial device's THR and LSR."""

TEST_MEMORY_BASE = 0xFF00_0000
TIMER_IRQ, KEYBOARD_IRQ, SERIAL_IRQ, RTC_IRQ = 0, 1, 4, 8


def _ignore(*_: object) -> None:
    """Nobody listens."""


def _wakes_nobody(_cpu: int, _address: int) -> bool:
    """No processor waits."""
    return False


@dataclass(frozen=True, slots=True)
class Outputs:
    """Who listens to the board. `nmi`, `init` and `sipi` get the processor's number first."""

    serial: Callable[[bytes], None] = _ignore
    debug: Callable[[bytes], None] = _ignore
    debug_exit: Callable[[int], None] = _ignore
    poweroff: Callable[[], None] = _ignore
    reset: Callable[[], None] = _ignore
    invalidate: Callable[[int], None] = _ignore
    """A guest-physical address whose cached translations are to be dropped."""
    nmi: Callable[[int], None] = _ignore
    init: Callable[[int], None] = _ignore
    sipi: Callable[[int, int], None] = _ignore
    """Processor, vector: start at vector * 4096 in real mode."""
    wake_long: WakeUp = _wakes_nobody
    """Processor, address: start there in 64-bit mode; False if the processor does not wait."""
    wake: Callable[[int], None] = _ignore
    """Processor: an interrupt was requested of it."""
    unknown: UnknownReport = _ignore


class Saveable(Protocol):
    """What takes part in save() and restore()."""

    @property
    def name(self) -> str:
        """The key of its state."""

    def save(self) -> State:
        """Return the whole state."""

    def restore(self, state: State) -> None:
        """Take over a state."""


@dataclass
class Board:
    """The devices, wired. `ports` and `memory` are what the exits' handlers use."""

    clock: Clock
    ports: Bus
    memory: Bus
    serial: Serial
    pic: Pic
    pit: Pit
    rtc: Rtc
    ioapic: IoApic
    lines: InterruptLines
    apic_bus: ApicBus
    pci: PciRoot
    acpi: AcpiPm
    keyboard: KeyboardController
    vga: Vga
    isa: IsaBus
    types_keys: bool
    lapics: list[LocalApic] = field(default_factory=list)
    backstage: list[Device] = field(default_factory=list)
    """What has events and a state but no address: the hypervisor's own."""
    emulated: EmulatedAccesses = field(init=False)
    _devices: list[Device] = field(default_factory=list)
    _with_events: list[Device] = field(default_factory=list)
    _event: int | None = None
    _stale: bool = True
    looks: int = 0
    """How often the devices were asked for their next event: not while nobody touches one."""

    def __post_init__(self) -> None:
        """Give the emulator its own door."""
        self.emulated = EmulatedAccesses(self)

    def read_memory(self, cpu: int, address: int, size: int) -> int:
        """MMIO read by processor `cpu`: its own local APIC first, then the bus."""
        lapic = self.lapics[cpu]
        if lapic.covers(address):
            return lapic.read(address & 0xFFF, size)
        return self.memory.read(address, size)

    def write_memory(self, cpu: int, address: int, size: int, value: int) -> None:
        """MMIO write by processor `cpu`."""
        lapic = self.lapics[cpu]
        if lapic.covers(address):
            lapic.write(address & 0xFFF, size, value)
        else:
            self.memory.write(address, size, value)

    def is_mmio(self, cpu: int, address: int) -> bool:
        """True if a device, and not RAM, answers processor `cpu` at `address`."""
        return self.lapics[cpu].covers(address) or self.memory.answers(address)

    def devices(self) -> list[Device]:
        """Return every device: ports', memory's, PCI, local APICs; the order in which ties fire."""
        if not self._devices:
            buses = [*self.ports.devices(), *self.memory.devices()]
            self._devices = [*buses, *self.pci.functions.values(), *self.lapics, *self.backstage]
        return self._devices

    def plug(self, function: PciFunction, slot: int | None = None) -> None:
        """Put a PCI function into a slot (the first free one); a second one's name gets a number.

        Raises UsageError when there is no room.
        """
        name, names = function.name, {device.name for device in self.devices()}
        copies = (f"{name}-{number}" for number in count(2))
        function.name = name if name not in names else next(n for n in copies if n not in names)
        self.pci.plug(function, slot)
        self._devices, self._with_events, self._stale = [], [], True

    def next_event(self) -> int | None:
        """Return the absolute cycle of the earliest device event, or None.

        Remembered between accesses: cheap enough to ask before every entry.
        """
        if self._stale or self.ports.touched or self.memory.touched:
            self._event = earliest(self._timed())
            self.looks += 1
            self._stale = self.ports.touched = self.memory.touched = False
        return self._event

    def fire(self) -> None:
        """Fire everything that is due at clock.now, earlier events first, then in device order."""
        self._stale = True
        fire_due(self._timed(), self.clock.now)

    def reschedule(self) -> None:
        """Forget the remembered event: input arrived, the guest's TSC was set."""
        self._stale = True

    def receive(self, data: bytes) -> None:
        """Take terminal input: for the serial port, or as keys (`types_keys`)."""
        if self.types_keys:
            self.keyboard.type(data)
        else:
            self.serial.receive(data)
        self._stale = True

    def can_send_nmi(self) -> bool:
        """Whether a device's line is wired to a processor's NMI: by the I/O APIC or LINT0."""
        nmi = DeliveryMode.NMI << 8
        return self.ioapic.can_send_nmi() or any(
            lapic.page[Reg.LVT_LINT0] & (MASKED | 0x700) == nmi for lapic in self.lapics
        )

    def save(self) -> dict[str, State]:
        """Return every device's state by its name."""
        return {part.name: part.save() for part in self._saveable()}

    def restore(self, state: dict[str, State]) -> None:
        """Take over what save() returned, on a board built alike."""
        for part in self._saveable():
            part.restore(state[part.name])
        self._stale = True

    def _timed(self) -> list[Device]:
        """The devices that can have an event, in the order of devices()."""
        if not self._with_events:
            self._with_events = [d for d in self.devices() if not isinstance(d, Untimed)]
        return self._with_events

    def _saveable(self) -> Iterator[Saveable]:
        yield from self.devices()
        yield from (self.lines, self.isa)


def build_board(
    clock: Clock,
    *,
    cpus: int = 1,
    memory: int = 128 << 20,
    outputs: Outputs | None = None,
    x2apic: bool = False,
    physical_bits: int = 46,
    crystal_hz: int | None = None,
    epoch: int = DEFAULT_EPOCH,
    types_keys: bool = False,
    has_mailbox: bool = False,
    test_device: bool = True,
) -> Board:
    """Build the board for `cpus` processors and `memory` bytes of RAM.

    `types_keys` makes terminal input keystrokes; `has_mailbox` lets processors be woken through
    one; `epoch` is the date at cycle 0 in seconds since
    1970; `x2apic`, `physical_bits` and `crystal_hz` are the CPU model's. Raises nothing that a
    guest could cause.
    """
    out = outputs or Outputs()
    apic_bus = ApicBus()
    ioapic = IoApic(apic_bus)
    lapics: list[LocalApic] = []
    pic = Pic(partial(_drive_lint0, lapics))
    ports, mmio = Bus("port", out.unknown), Bus("memory", out.unknown)
    lines = InterruptLines(pic, ioapic, ports.stir)
    board = Board(
        clock=clock,
        ports=ports,
        memory=mmio,
        serial=Serial(clock, out.serial, lines.source(SERIAL_IRQ)),
        pic=pic,
        pit=Pit(clock, lines.source(TIMER_IRQ)),
        rtc=Rtc(clock, lines.source(RTC_IRQ), memory, epoch),
        ioapic=ioapic,
        lines=lines,
        apic_bus=apic_bus,
        pci=PciRoot(ports, mmio, apic_bus, lines),
        acpi=AcpiPm(clock, lines.source(SCI_LINE), out.poweroff),
        keyboard=KeyboardController(out.reset, lines.source(KEYBOARD_IRQ)),
        vga=Vga(clock),
        isa=IsaBus(clock),
        types_keys=types_keys,
        lapics=lapics,
    )
    make = partial(
        LocalApic, clock, apic_bus, x2apic=x2apic, physical_bits=physical_bits,
        crystal_hz=crystal_hz, pic=pic, reschedule=board.reschedule,
    )  # fmt: skip
    lapics += [make(cpu, pins=_pins(out, cpu)) for cpu in range(cpus)]
    _register_standard(board)
    _register_pci(board, out)
    _register_ends(board.ports, out, cpus, memory)
    if has_mailbox:
        mmio.register(WAKEUP_MAILBOX, WAKEUP_SIZE, WakeupMailbox(out.wake_long))
    if test_device:
        _register_test_device(board, out)
    _leave_as_firmware(board.ports)
    return board


def _drive_lint0(lapics: list[LocalApic], level: bool) -> None:
    for lapic in lapics:
        lapic.lint(0, level)


def _pins(out: Outputs, cpu: int) -> CpuPins:
    return CpuPins(
        nmi=lambda: out.nmi(cpu),
        init=lambda: out.init(cpu),
        sipi=lambda vector: out.sipi(cpu, vector),
        wake=lambda: out.wake(cpu),
    )


def _register_standard(board: Board) -> None:
    """The devices that every PC has."""
    ports = board.ports
    ports.register(0x20, 2, board.pic, width=1)
    ports.register(0xA0, 2, board.pic, offset_base=2, width=1)
    ports.register(0x4D0, 2, board.pic, offset_base=4, width=1)
    ports.register(0x40, 4, board.pit, width=1)
    ports.register(0x61, 1, board.pit, offset_base=4, width=1)
    ports.register(0x70, 2, board.rtc, width=1)
    ports.register(SERIAL_DATA, 8, board.serial, width=1)
    ports.shortcuts[port_key(SERIAL_DATA, reads=False)] = board.serial.transmit
    ports.shortcuts[port_key(LINE_STATUS, reads=True)] = board.serial.poll_line
    ports.register(0x60, 1, board.keyboard, width=1)
    ports.register(0x64, 1, board.keyboard, offset_base=4, width=1)
    ports.register(VGA_PORT, PORTS, board.vga, width=1)
    ports.register(PM_BASE, SIZE, board.acpi, width=4)
    board.memory.register(IOAPIC_BASE, 0x1000, board.ioapic)


def _register_pci(board: Board, out: Outputs) -> None:
    """The doors to configuration space; the reset control lies between its two ports."""
    doors = ConfigPorts(board.pci, ResetControl(out.reset))
    board.ports.register(PCI_CONFIG_PORT, 8, doors, width=4)
    board.memory.register(ECAM[0], Ecam.SIZE, Ecam(board.pci))


def _register_ends(ports: Bus, out: Outputs, cpus: int, memory: int) -> None:
    """The ports by which a guest resets, ends and reports, and fw_cfg."""
    ports.register(0x80, 1, Latch(), width=1)
    ports.register(0x92, 1, Port92(out.reset), width=1)
    ports.register(0xE9, 1, DebugConsole(out.debug), width=1)
    ports.register(0xF4, 4, ExitPort(out.debug_exit), width=4)
    ports.register(0x510, 2, FwCfg(cpus, memory), width=2)
    ports.register(0x8900, 1, ShutdownPort(out.poweroff), width=1)


def _register_test_device(board: Board, out: Outputs) -> None:
    wires = [board.lines.source(line) for line in range(LINE_COUNT)]
    device = TestDevice(lambda line, level: wires[line](level), out.invalidate)
    board.ports.register(0xE0, 8, device, width=4)
    board.ports.register(0x2000, LINE_COUNT, device, offset_base=LINES, width=4)
    board.memory.register(TEST_MEMORY_BASE, MMIO_SIZE, TestMemory())


def _leave_as_firmware(ports: Bus) -> None:
    """Initialize both PICs as a BIOS does: vectors 0x08 and 0x70, no line masked.

    ACPI's and PCI's lines are level-triggered.
    """
    for command, vectors, wiring in ((0x20, 0x08, 0x04), (0xA0, 0x70, 0x02)):
        ports.write(command, 1, 0x11)
        for word in (vectors, wiring, 0x01):
            ports.write(command + 1, 1, word)
    for line in (SCI_LINE, *PCI_PIC_LINES):
        elcr = 0x4D0 + line // 8
        ports.write(elcr, 1, ports.read(elcr, 1) | 1 << line % 8)
