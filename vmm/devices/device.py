"""What every device is: registers behind offsets, a next event, a state that can be written down.

A device never raises for what a guest does to it: it answers as hardware would. It reads the clock
and never moves it. Its outputs (interrupt line, characters, "power off") are callables given at
construction, so a device imports nothing of those who listen.
"""

from collections.abc import Callable
from typing import Protocol

IrqLine = Callable[[bool], None]
"""The level of one interrupt wire; True is asserted. Told only when it may have changed."""

State = dict[str, object]
"""A device written down: plain ints, bytes and lists of ints, with the key "version"."""


class Clock(Protocol):
    """The part of `hwmodel.timing.clock.Clock` that devices read."""

    @property
    def now(self) -> int:
        """Cycles since the machine was switched on."""

    @property
    def frequency(self) -> int:
        """Cycles in a second of virtual time; it may change."""

    def ns(self) -> int:
        """Nanoseconds since the machine was switched on."""

    def cycles_of_ns(self, ns: int) -> int:
        """The cycles in a time, at today's frequency."""

    def ticks(self, hz: int) -> int:
        """How often an oscillator of `hz` has ticked."""

    def cycle_of_tick(self, hz: int, tick: int) -> int:
        """The first cycle at which it has ticked so often."""

    def tsc(self) -> int:
        """The processor's time-stamp counter."""

    def cycle_of_tsc(self, value: int) -> int:
        """The first cycle at which that reads `value` or more."""


class Registers(Protocol):
    """What a bus asks of those who answer on it."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def read(self, offset: int, size: int, /) -> int:
        """Return `size` (1, 2, 4, 8) bytes at `offset`, little-endian."""

    def write(self, offset: int, size: int, value: int, /) -> None:
        """Store the low `size` (1, 2, 4, 8) bytes of `value` at `offset`."""


class Timed(Protocol):
    """What the scheduler asks."""

    def next_event(self) -> int | None:
        """Return the absolute cycle of the next thing the device does by itself, or None."""

    def fire(self) -> None:
        """Do what is due (clock.now >= next_event()); the next event is then later, or None."""


class Device(Registers, Timed, Protocol):
    """One device as bus, scheduler and snapshots see it."""

    def save(self) -> State:
        """Return the whole state."""

    def restore(self, state: State) -> None:
        """Take over a state that save() of the same version made."""


class Untimed:
    """A device that does nothing by itself."""

    def next_event(self) -> int | None:
        """Nothing ever happens without an access."""
        return None

    def fire(self) -> None:
        """Nothing is ever due."""


class LineOnly:
    """A device whose registers reach a processor by its interrupt line and in no other way."""


class Stateless(Untimed):
    """A device that remembers nothing."""

    def save(self) -> State:
        """Only the version."""
        return {"version": 1}

    def restore(self, state: State) -> None:
        """Nothing to take over."""
