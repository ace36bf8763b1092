"""ACPI's fixed hardware (ACPI 6.4, "ACPI Hardware Features"): PM1 blocks and PM timer.

    offset 0  PM1 status    2  PM1 enable    4  PM1 control    8  PM timer, 32 bits at 3.579545 MHz

There is no SMI command port, so ACPI mode is always on. The event interrupt (SCI) is a level while
a status bit and its enable bit are both set. Of the sleep types only S5, power off, does anything.
"""

from collections.abc import Callable
from enum import IntFlag

from vmm.devices.device import Clock, IrqLine, State
from vmm.devices.saved import restore_fields, save_fields
from vmm.devices.ticks import Oscillator

PM_TIMER_HZ = 3_579_545
STATUS, ENABLE, CONTROL, TIMER, SIZE = 0, 2, 4, 8, 12
TIMER_MASK = 0xFFFF_FFFF
HALF = 1 << 31
"""The timer's status bit is set whenever its highest bit changes."""
SCI_ENABLE, SLEEP = 1 << 0, 1 << 13
_CONTROL_WRITABLE = 0x1C02  # sleep type, bus master reload
_POWER_OFF_TYPE = 0


class Event(IntFlag):
    """Bits of status and enable."""

    TIMER = 1 << 0
    GLOBAL_LOCK = 1 << 5
    POWER_BUTTON = 1 << 8
    RTC = 1 << 10  # can be enabled, as kernels insist, and never comes: the RTC has line 8


_SAVED = ("_status", "_enable", "_control", "_seen")


class AcpiPm:
    """The PM1 register group."""

    def __init__(
        self, clock: Clock, sci: IrqLine, poweroff: Callable[[], None], name: str = "acpi-pm"
    ) -> None:
        """`sci` is the event interrupt; `poweroff` is called when the guest enters S5."""
        self.name = name
        self._oscillator = Oscillator(clock, PM_TIMER_HZ)
        self._sci = sci
        self._poweroff = poweroff
        self._status = 0
        self._enable = 0
        self._control = SCI_ENABLE
        self._seen = 0  # how often the highest bit had changed when we last looked

    def press_power_button(self) -> None:
        """Tell the guest that somebody wants it to shut down."""
        self._status |= Event.POWER_BUTTON
        self._drive()

    def read(self, offset: int, size: int) -> int:
        """Return up to four bytes of one register block."""
        if offset >= TIMER:
            timer = self._oscillator.now() & TIMER_MASK
            return timer >> 8 * (offset - TIMER) & (1 << 8 * size) - 1
        self._look()
        words = (self._status, self._enable, self._control, 0)
        whole = sum(word << 16 * place for place, word in enumerate(words))
        return whole >> 8 * offset & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Acknowledge status by ones, choose what may interrupt, sleep."""
        self._look()
        given = (1 << 8 * size) - 1 << 8 * offset
        value = (value << 8 * offset) & given
        self._status &= ~(value & 0xFFFF)
        if given >> 16 & 0xFFFF:
            keep = self._enable & ~(given >> 16)
            self._enable = (keep | value >> 16) & sum(Event)
        if given >> 32 & 0xFFFF:
            self._write_control(given >> 32 & 0xFFFF, value >> 32 & 0xFFFF)
        self._drive()

    def next_event(self) -> int | None:
        """Return when the timer's highest bit changes, if that would interrupt."""
        if not self._enable & Event.TIMER or self._status & Event.TIMER:
            return None
        return self._oscillator.cycle((self._seen + 1) * HALF)

    def fire(self) -> None:
        """Interrupt for the timer."""
        self._look()

    def save(self) -> State:
        """Status, enable, control, and how far the timer was seen."""
        return save_fields(self, _SAVED)

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, _SAVED, state)

    def _look(self) -> None:
        """Note that the timer's highest bit has changed since the last look."""
        halves = self._oscillator.now() // HALF
        if halves != self._seen:
            self._seen = halves
            self._status |= Event.TIMER
            self._drive()

    def _write_control(self, given: int, value: int) -> None:
        writable = given & _CONTROL_WRITABLE
        self._control = self._control & ~writable | value & writable
        if value & SLEEP and self._control >> 10 & 7 == _POWER_OFF_TYPE:
            self._poweroff()

    def _drive(self) -> None:
        self._sci(bool(self._status & self._enable))
