"""The slow bus behind the south bridge: an access to the old devices takes about a microsecond.

Guests rely on it: they write port 0x80 as a delay, and poll the 8254, the RTC, the VGA or the PM
timer until a time has passed, which would take millions of polls if each took one cycle. Ports
that exist for guests in a hypervisor (debug console, exit port, test device, serial) take no time.
"""

from typing import Final

from vmm.boardmap import PM_BASE, VGA_PORT
from vmm.devices.device import Clock, State
from vmm.devices.saved import restore_fields, save_fields

ACCESS_NS: Final = 1000
"""Linux, arch/x86/kernel/io_delay.c: a write to port 0x80 "takes about one microsecond"."""
SLOW_PORTS: Final = frozenset((
    *range(0xE0),  # the system board's, up to our own
    *range(VGA_PORT, VGA_PORT + 0x20),
    *range(PM_BASE, PM_BASE + 0x10),
))  # fmt: skip


class IsaBus:
    """Says how long accesses take, and how long they have taken together."""

    def __init__(self, clock: Clock, name: str = "isa") -> None:
        """`clock` gives the rate of cycles."""
        self.name = name
        self._clock: Final = clock
        self.spent = 0

    @property
    def access_cycles(self) -> int:
        """The cycles that one access takes."""
        return self._clock.cycles_of_ns(ACCESS_NS)

    def access(self) -> int:
        """Return the cycles that one access to a slow port takes, and count them."""
        cycles = self.access_cycles
        self.spent += cycles
        return cycles

    def save(self) -> State:
        """The sum of cycles."""
        return save_fields(self, ("spent",))

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, ("spent",), state)
