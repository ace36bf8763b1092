"""The root of the PCI bus: who is plugged in, who answers where, and where interrupts go.

    bus 0, slot 0    host bridge; the others in the order in which they were plugged in
    INTA of slot n   I/O APIC pin 16 + n % 4, and for a guest without one the PIC's 10 or 11

Where two decode the same address the earlier slot answers; the board's own devices come before
all, and RAM before those.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from vmm.boardmap import PCI_LINES, PCI_MEMORY, PCI_MEMORY64, PCI_PIC_LINES, PCI_PORTS
from vmm.devices.bus import Bus, Overlay
from vmm.devices.device import IrqLine, Untimed
from vmm.devices.interrupt_lines import InterruptLines
from vmm.devices.lapic_bus import ApicBus
from vmm.devices.pci.bar import Bar, BarKind
from vmm.devices.pci.function import Identity, PciFunction
from vmm.devices.pci.msi import decode
from vmm.devices.pci.registers import CONFIG_SIZE, MULTIFUNCTION, Command, Header
from vmm.errors import UsageError

SLOTS, FUNCTIONS = 32, 8


class Listener(Protocol):
    """Told of a message to nowhere: on_unknown of a bus."""

    def __call__(self, bus: str, address: int, size: int, write: bool, /) -> None:
        """Note it."""


class HostBridge(Untimed, PciFunction):
    """The bridge to the processors; QEMU's identity for its generic one, which has no quirks."""

    def __init__(self) -> None:
        """No BAR, no interrupt."""
        super().__init__("pci-host", Identity(0x1B36, 0x0008, 0x060000), {}, pin=0)


@dataclass
class _Window:
    """Addresses that firmware hands out from `next` up to `end`."""

    next: int
    end: int

    def take(self, size: int) -> int | None:
        at = self.next + -self.next % size
        if at + size > self.end:
            return None
        self.next = at + size
        return at


class PciRoot:
    """Bus 0. `functions` maps slot * 8 + function number to what is there."""

    def __init__(self, ports: Bus, memory: Bus, apics: ApicBus, lines: InterruptLines) -> None:
        """BARs appear on `ports` and `memory`, messages on `apics`, pins on `lines`."""
        self.functions: dict[int, PciFunction] = {}
        self._ports, self._memory, self._apics = ports, memory, apics
        self._windows = {
            BarKind.IO: _Window(*PCI_PORTS),
            BarKind.MEMORY32: _Window(*PCI_MEMORY),
            BarKind.MEMORY64: _Window(*PCI_MEMORY64),
        }
        self._lines = lines
        self._wires: dict[int, list[IrqLine]] = {}
        self.plug(HostBridge())

    def plug(self, function: PciFunction, slot: int | None = None, number: int = 0) -> int:
        """Put `function` into a slot (the first free one), assign its BARs, let it decode.

        Returns slot * 8 + number. Raises UsageError when there is no room.
        """
        free = (s for s in range(SLOTS) if all(place >> 3 != s for place in self.functions))
        slot = next(free, SLOTS) if slot is None else slot
        place = slot * FUNCTIONS + number
        if slot >= SLOTS or place in self.functions:
            raise UsageError(f"no PCI slot is left for {function.name!r}: leave out a device")
        self.functions[place] = function
        self.functions = dict(sorted(self.functions.items()))
        if number and (first := self.functions.get(slot * FUNCTIONS)):
            first.space[Header.TYPE, 1] |= MULTIFUNCTION
        self._assign(function)
        self._connect(function, place)
        function.upstream = self
        self.moved()
        return place

    def read(self, place: int, offset: int, size: int) -> int:
        """Read configuration space of slot * 8 + function; all ones where nobody is."""
        function = self.functions.get(place)
        if function is None or offset + size > CONFIG_SIZE:
            return (1 << 8 * size) - 1
        return function.read(offset, size)

    def write(self, place: int, offset: int, size: int, value: int) -> None:
        """Write configuration space; dropped where nobody is."""
        function = self.functions.get(place)
        if function is not None and offset + size <= CONFIG_SIZE:
            function.write(offset, size, value)

    # What functions ask for: the Upstream protocol.

    def moved(self) -> None:
        """Show each decoded BAR where it stands now."""
        self._ports.overlay(self._decoded(io=True))
        self._memory.overlay(self._decoded(io=False))

    def message(self, address: int, data: int) -> None:
        """Deliver an interrupt message; a write to anywhere else goes nowhere."""
        message = decode(address, data)
        if message is not None:
            self._apics.deliver(message)
        elif self._memory.on_unknown is not None:
            self._memory.on_unknown("message", address, 4, True)

    def intx(self, function: PciFunction, level: bool) -> None:
        """Drive the lines of the function's pin."""
        for wire in self._wires.get(id(function), ()):
            wire(level)

    # Parts.

    def _decoded(self, *, io: bool) -> Iterator[Overlay]:
        for function in self.functions.values():
            timed = not isinstance(function, Untimed)
            for number, bar in function.bars.items():
                if bar.is_io == io and function.is_decoded(bar):
                    yield Overlay(function.bar_address(number), bar.size, bar, bar.width, timed)

    def _assign(self, function: PciFunction) -> None:
        """What firmware does: an address for each BAR, the interrupt line's number, decoding on."""
        command = 0
        for number, bar in sorted(function.bars.items(), key=_largest_first):
            address = self._windows[bar.kind].take(bar.size)
            if address is None:
                raise UsageError(f"no addresses are left for {function.name!r}: leave it out")
            function.put_bar(number, address)
            command |= Command.IO if bar.is_io else Command.MEMORY
        function.space[Header.COMMAND, 2] = command

    def _connect(self, function: PciFunction, place: int) -> None:
        pin = function.space[Header.INTERRUPT_PIN, 1]
        if not pin:
            return
        which = (place // FUNCTIONS + pin - 1) % len(PCI_LINES)
        function.space[Header.INTERRUPT_LINE, 1] = PCI_PIC_LINES[which]
        self._wires[id(function)] = [
            self._lines.source(PCI_LINES[which]),
            self._lines.source(PCI_PIC_LINES[which]),
        ]


def _largest_first(item: tuple[int, Bar]) -> tuple[int, int]:
    number, bar = item
    return -bar.size, number
