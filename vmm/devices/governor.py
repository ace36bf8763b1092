"""What sets the processor's frequency: `--freq` gives a plan, and it may be changed at any time.

Cycles get longer or shorter; devices and an invariant TSC keep their pace. Whoever has written a
rate down is told.
"""

from collections.abc import Callable
from typing import Final

from hwmodel.timing.clock import Clock
from vmm.devices.device import State

Plan = tuple[tuple[int, int], ...]
"""Times since power-on in ns, rising, each with the frequency in Hz from then on."""
Listener = Callable[[], None]
ALL_ONES: Final = (1 << 64) - 1


class Governor:
    """Changes the clock's frequency as planned."""

    name = "governor"

    def __init__(self, clock: Clock, plan: Plan = ()) -> None:
        """The clock starts with its own frequency; a plan at time 0 is the caller's to apply."""
        self._clock: Final = clock
        self._plan: Final = tuple(step for step in plan if step[0] > 0)
        self._done = 0
        self.changed: list[Listener] = []
        """Called after each change, and after a restored state."""

    def set(self, hz: int) -> None:
        """Run at `hz` from now on. Raises ValueError if that is not positive."""
        self._clock.set_frequency(hz)
        self._tell()

    def _tell(self) -> None:
        for listener in self.changed:
            listener()

    def next_event(self) -> int | None:
        """Return the cycle of the next planned change."""
        if self._done == len(self._plan):
            return None
        return self._clock.cycle_of_tick(1_000_000_000, self._plan[self._done][0])

    def fire(self) -> None:
        """Make the changes that are due."""
        while (event := self.next_event()) is not None and event <= self._clock.now:
            self._done += 1
            self.set(self._plan[self._done - 1][1])

    def read(self, _offset: int, size: int) -> int:
        """No register."""
        return ALL_ONES >> 64 - 8 * size

    def write(self, _offset: int, _size: int, _value: int) -> None:
        """No register."""

    def save(self) -> State:
        """How far the plan is, and what the clock needs to know."""
        return {"version": 1, "done": self._done, "clock": self._clock.save()}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        done, clock = state["done"], state["clock"]
        assert isinstance(done, int)
        assert isinstance(clock, list)
        self._done = done
        self._clock.restore(clock)
        self._tell()
