"""The interrupt lines of the board: several sources on one line, each line to its controllers."""

from collections.abc import Callable
from functools import partial

from vmm.devices.device import IrqLine, State
from vmm.devices.ioapic import PINS, IoApic
from vmm.devices.pic import CASCADE_LINE, Pic
from vmm.devices.saved import restore_fields, save_fields

TIMER_LINE, TIMER_PIN = 0, 2
"""Line 0 (the PIT) is wired to I/O APIC pin 2, as on every PC since the first with one."""
PIC_LINES = 16


class InterruptLines:
    """Lines 0..23: a line is asserted while any of its sources asserts it."""

    def __init__(self, pic: Pic, ioapic: IoApic, moved: Callable[[], None] = lambda: None) -> None:
        """Lines 0..15 reach both controllers, 16..23 the I/O APIC only, line 2 none.

        `moved` is told whenever a line rises or falls.
        """
        self._moved = moved
        self.name = "lines"
        self._pic = pic
        self._ioapic = ioapic
        self._sources = [0] * PINS  # a bit for each source that asserts the line
        self._used = [0] * PINS

    def source(self, line: int) -> IrqLine:
        """Return a wire of its own into `line`."""
        bit = 1 << self._used[line]
        self._used[line] += 1
        return partial(self._drive, line, bit)

    def save(self) -> State:
        """Who asserts what."""
        return save_fields(self, ("_sources",))

    def restore(self, state: State) -> None:
        """Take over what save() returned; the controllers restore their own view."""
        restore_fields(self, ("_sources",), state)

    def _drive(self, line: int, bit: int, level: bool) -> None:
        before = self._sources[line]
        after = before | bit if level else before & ~bit
        self._sources[line] = after
        if bool(before) == bool(after) or line == CASCADE_LINE:
            return
        self._moved()
        if line < PIC_LINES:
            self._pic.set_irq(line, bool(after))
        self._ioapic.set_pin(TIMER_PIN if line == TIMER_LINE else line, bool(after))
