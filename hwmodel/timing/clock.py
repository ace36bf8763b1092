"""The one virtual clock: a count of cycles, and what it means in nanoseconds.

Everything timed (devices, the guest's TSC, the scheduler) reads this clock; only the physical CPU
advances it. All arithmetic is on integers and rounds down, so a run is the same on every host.
"""

from typing import Final

NS_PER_SECOND: Final = 1_000_000_000
FOREVER: Final = 1 << 62
"""A cycle that no clock reaches."""
DEFAULT_FREQUENCY: Final = 2_500_000_000


class Clock:
    """A count of cycles at a fixed frequency.

    `now` is absolute, in cycles since power-on. `frequency` is in Hz.
    """

    __slots__ = ("frequency", "now")

    def __init__(self, frequency: int = DEFAULT_FREQUENCY, now: int = 0) -> None:
        """Start at cycle `now`. Raises ValueError for a frequency that is not positive."""
        if frequency <= 0:
            raise ValueError(f"clock frequency {frequency} Hz must be positive")
        self.frequency: Final = frequency
        self.now = now

    def ns(self) -> int:
        """Nanoseconds since power-on, rounded down."""
        return self.ns_of_cycles(self.now)

    def cycles_of_ns(self, ns: int) -> int:
        """The whole cycles that fit in `ns` nanoseconds."""
        return ns * self.frequency // NS_PER_SECOND

    def ns_of_cycles(self, cycles: int) -> int:
        """The whole nanoseconds that fit in `cycles` cycles."""
        return cycles * NS_PER_SECOND // self.frequency

    def __repr__(self) -> str:
        return f"Clock(now={self.now}, frequency={self.frequency})"
