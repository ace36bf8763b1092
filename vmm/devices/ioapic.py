"""An I/O APIC with 24 pins (Intel 82093AA data sheet).

Offset 0x00 chooses a register (IOREGSEL), 0x10 reads and writes it (IOWIN). Pins are told whether
they are asserted, so the polarity bit is kept but changes nothing. A masked edge is lost; a level
is delivered whenever it is asserted, unmasked and not already being serviced (remote IRR).
"""

from vmm.devices.device import State, Untimed
from vmm.devices.lapic_bus import EVERYONE, ApicBus, DeliveryMode, Message
from vmm.devices.saved import restore_fields, save_fields

PINS = 24
SELECT, WINDOW = 0x00, 0x10
REG_ID, REG_VERSION, REG_ARBITRATION, REG_TABLE = 0x00, 0x01, 0x02, 0x10
VERSION = 0x11 | (PINS - 1) << 16

LOGICAL, REMOTE_IRR, LEVEL, MASKED = 1 << 11, 1 << 14, 1 << 15, 1 << 16
WRITABLE_LOW = 0x0001_AFFF
"""All but delivery status (12) and remote IRR (14)."""

_SAVED = ("_select", "_id", "_table", "_lines")


class IoApic(Untimed):
    """Redirection table and pins."""

    def __init__(self, bus: ApicBus, name: str = "ioapic") -> None:
        """`bus` carries the messages and brings back the ends of interrupt."""
        self.name = name
        self._bus = bus
        self._select = 0
        self._id = 0
        self._table = [MASKED] * PINS
        self._lines = 0
        bus.on_eoi.append(self.end_of_interrupt)

    def set_pin(self, pin: int, level: bool) -> None:
        """Drive pin 0..23."""
        rises = level and not self._lines >> pin & 1
        self._lines = self._lines & ~(1 << pin) | level << pin
        entry = self._table[pin]
        if entry & LEVEL:
            self._service(pin)
        elif rises and not entry & MASKED:
            self._send(entry)

    def end_of_interrupt(self, vector: int) -> None:
        """A processor has serviced a level-triggered `vector`: look at its pins again."""
        for pin, entry in enumerate(self._table):
            if entry & REMOTE_IRR and entry & 0xFF == vector:
                self._table[pin] = entry & ~REMOTE_IRR
                self._service(pin)

    def can_send_nmi(self) -> bool:
        """Whether an unmasked pin is a non-maskable interrupt."""
        return any(entry & (MASKED | 0x700) == DeliveryMode.NMI << 8 for entry in self._table)

    def read(self, offset: int, size: int) -> int:
        """Return the index or the register that it chose."""
        if offset not in (SELECT, WINDOW):
            return 0
        value = self._select if offset == SELECT else self._read_register()
        return value & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Choose a register, or write the chosen one."""
        if offset == SELECT:
            self._select = value & 0xFF
        elif offset == WINDOW and size >= 4:
            self._write_register(value & 0xFFFF_FFFF)

    def save(self) -> State:
        """Index, ID, table and pin levels."""
        return save_fields(self, _SAVED)

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, _SAVED, state)

    def _read_register(self) -> int:
        if self._select in (REG_ID, REG_ARBITRATION):
            return self._id << 24
        if self._select == REG_VERSION:
            return VERSION
        pin, high = divmod(self._select - REG_TABLE, 2)
        return self._table[pin] >> 32 * high & 0xFFFF_FFFF if 0 <= pin < PINS else 0

    def _write_register(self, value: int) -> None:
        if self._select == REG_ID:
            self._id = value >> 24 & 15
        pin, high = divmod(self._select - REG_TABLE, 2)
        if not 0 <= pin < PINS:
            return
        entry = self._table[pin]
        if high:
            self._table[pin] = entry & 0xFFFF_FFFF | (value & 0xFF00_0000) << 32
        else:
            entry = entry & ~WRITABLE_LOW | value & WRITABLE_LOW
            # An entry made edge-triggered forgets the service that it waited for.
            self._table[pin] = entry if entry & LEVEL else entry & ~REMOTE_IRR
        self._service(pin)

    def _service(self, pin: int) -> None:
        """Deliver a level that is asserted, unmasked and not being serviced."""
        entry = self._table[pin]
        if entry & (LEVEL | MASKED | REMOTE_IRR) == LEVEL and self._lines >> pin & 1:
            # Remote IRR first: whoever takes the message may end it before we are back here.
            self._table[pin] = entry | REMOTE_IRR
            if not self._send(entry):
                self._table[pin] = entry

    def _send(self, entry: int) -> bool:
        destination = entry >> 56
        return self._bus.deliver(
            Message(
                DeliveryMode(entry >> 8 & 7),
                entry & 0xFF,
                EVERYONE if destination == 0xFF else destination,
                logical=bool(entry & LOGICAL),
                level_triggered=bool(entry & LEVEL),
            )
        )
