"""A PCI function: identity, BARs, capabilities, interrupts. Devices are built on this class.

    class Counter(Untimed, PciFunction):     # without Untimed if you have next_event(), fire()
        '''One register that counts its reads, and interrupts at each.'''

        def __init__(self) -> None:
            bar = Bar(4096, self.read_count, lambda offset, size, value: None, BarKind.MEMORY64)
            super().__init__("counter", Identity(0x1AF4, 0x10F0, 0xFF0000), {0: bar}, vectors=1)
            self.count = 0

        def read_count(self, offset: int, size: int) -> int:
            self.count += 1
            self.notify(0)                   # MSI-X if the guest has switched it on, else INTx
            return self.count

        def save(self) -> State:
            return super().save() | {"count": self.count}

    board.plug(Counter())                    # slot, BAR addresses, decoding on: as firmware would

Seen as a Device its registers are its configuration space. `set_intx(False)` takes the line back.
"""

from dataclasses import dataclass
from typing import Protocol

from vmm.devices.device import State
from vmm.devices.pci.bar import Bar
from vmm.devices.pci.msix import CONTROL, MsiX
from vmm.devices.pci.registers import BAR_COUNT, Capability, Command, Header, Status
from vmm.devices.pci.space import ConfigSpace

_BARS_END = Header.BARS + 4 * BAR_COUNT


@dataclass(frozen=True, slots=True)
class Identity:
    """The read-only identification of a function; `class_code` is class, subclass, interface."""

    vendor: int
    device: int
    class_code: int
    revision: int = 0
    subsystem_vendor: int = 0
    subsystem: int = 0


class Upstream(Protocol):
    """What a function reaches through the bus that it is plugged into."""

    def moved(self) -> None:
        """BARs or their decoding have changed."""

    def message(self, address: int, data: int) -> None:
        """Write four bytes upstream: a message-signalled interrupt."""

    def intx(self, function: "PciFunction", level: bool) -> None:
        """Drive the function's interrupt pin."""


class PciFunction:
    """One function with a type 0 header. Subclasses add their registers and their state."""

    def __init__(
        self, name: str, identity: Identity, bars: dict[int, Bar], *, vectors: int = 0, pin: int = 1
    ) -> None:
        """`bars` by number 0..5; `vectors` MSI-X vectors, whose table takes the first free BAR
        after the others; `pin` 1..4 is INTA..INTD, 0 none.
        """
        self.name = name
        self.space = ConfigSpace()
        self.bars = dict(bars)
        self.upstream: Upstream | None = None
        self.msix: MsiX | None = None
        self._intx = False
        self._identify(identity, pin)
        if vectors:
            self._add_msix(vectors)
        for number, bar in self.bars.items():
            at = Header.BARS + 4 * number
            assert at + 4 * bar.registers <= _BARS_END, (name, number)
            self.space[at, 4 * bar.registers] = bar.flags
            self.space.allow(at, 4 * bar.registers, bar.writable)

    # What subclasses use.

    @property
    def command(self) -> int:
        """The command register; see Command."""
        return self.space[Header.COMMAND, 2]

    @property
    def is_bus_master(self) -> bool:
        """Whether it may write to memory by itself, messages included."""
        return bool(self.command & Command.BUS_MASTER)

    def notify(self, vector: int) -> None:
        """Interrupt: by MSI-X if that is on, else assert INTx (which set_intx takes back)."""
        if self.msix is None or not self.msix.notify(vector):
            self.set_intx(True)

    def set_intx(self, level: bool) -> None:
        """Assert or take back the interrupt pin; silent while MSI-X is on or INTx is disabled."""
        self._intx = level
        status = self.space[Header.STATUS, 2] & ~Status.INTERRUPT
        self.space[Header.STATUS, 2] = status | (Status.INTERRUPT if level else 0)
        self._drive_pin()

    def bar_address(self, number: int) -> int:
        """Return where BAR `number` has been put, decoded or not."""
        bar = self.bars[number]
        return self.space[Header.BARS + 4 * number, 4 * bar.registers] & bar.writable

    def put_bar(self, number: int, address: int) -> None:
        """Put BAR `number` at `address`, as firmware does before the guest starts."""
        bar = self.bars[number]
        at, size = Header.BARS + 4 * number, 4 * bar.registers
        self.space[at, size] = address & bar.writable | bar.flags

    def is_decoded(self, bar: Bar) -> bool:
        """Whether the command register lets accesses reach `bar`."""
        return bool(self.command & (Command.IO if bar.is_io else Command.MEMORY))

    # The device: its registers are the configuration space.

    def read(self, offset: int, size: int) -> int:
        """Read configuration space."""
        return self.space.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write configuration space, with its effects."""
        self.space.write(offset, size, value)
        if offset < _BARS_END and offset + size > Header.COMMAND:
            self._moved()
            self._drive_pin()

    def next_event(self) -> int | None:
        """Nothing by itself; a subclass with events overrides this and fire()."""
        return None

    def fire(self) -> None:
        """Nothing is due."""

    def save(self) -> State:
        """Configuration space, interrupt pin and MSI-X table; a subclass adds its own keys."""
        table, pending = self.msix.save() if self.msix else (b"", b"")
        return {
            "version": 1,
            "pci_space": bytes(self.space.bytes),
            "pci_intx": int(self._intx),
            "pci_table": table,
            "pci_pending": pending,
        }

    def restore(self, state: State) -> None:
        """Take over what save() returned, and be decoded where that says."""
        space, table, pending = state["pci_space"], state["pci_table"], state["pci_pending"]
        assert isinstance(space, bytes)
        assert isinstance(table, bytes)
        assert isinstance(pending, bytes)
        self.space.bytes[:] = space
        self._intx = bool(state["pci_intx"])
        if self.msix:
            self.msix.restore(table, pending)
        self._moved()

    # Parts.

    def _identify(self, identity: Identity, pin: int) -> None:
        space = self.space
        space[Header.VENDOR, 2], space[Header.DEVICE, 2] = identity.vendor, identity.device
        space[Header.REVISION, 4] = identity.class_code << 8 | identity.revision
        space[Header.SUBSYSTEM_VENDOR, 2] = identity.subsystem_vendor
        space[Header.SUBSYSTEM, 2] = identity.subsystem
        space[Header.INTERRUPT_PIN, 1] = pin
        space.allow(Header.COMMAND, 2, sum(Command))
        space.allow(Header.CACHE_LINE, 2, 0xFFFF)
        space.allow(Header.INTERRUPT_LINE, 1, 0xFF)

    def _add_msix(self, vectors: int) -> None:
        number = max((n + bar.registers for n, bar in self.bars.items()), default=0)
        at = 0

        def control() -> int:
            return self.space[at + CONTROL, 2]

        self.msix = MsiX(vectors, control, self._message)
        body, writable = self.msix.body(number)
        at = self.space.add_capability(
            Capability.MSIX, body, writable, on_write=lambda *_: self._msix_changed()
        )
        self.bars[number] = self.msix.bar()

    def _msix_changed(self) -> None:
        assert self.msix is not None
        self.msix.flush()
        self._drive_pin()

    def _moved(self) -> None:
        if self.upstream is not None:
            self.upstream.moved()

    def _message(self, address: int, data: int) -> None:
        if self.upstream is not None and self.is_bus_master:
            self.upstream.message(address, data)

    def _drive_pin(self) -> None:
        """The wire: asserted, not disabled, and not replaced by MSI-X."""
        quiet = self.command & Command.NO_INTX or (self.msix and self.msix.is_enabled())
        if self.upstream is not None and self.space[Header.INTERRUPT_PIN, 1]:
            self.upstream.intx(self, self._intx and not quiet)
