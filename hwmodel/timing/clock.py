"""The one virtual clock: a count of core cycles, and what it means in time and for the TSC.

Everything timed (devices, the guest's TSC, the scheduler) reads this clock; only the physical CPU
advances it. Its frequency may change: cycles before and after last differently long, and what
counts time (devices' oscillators, an invariant TSC) goes on at its own rate. All arithmetic is on
integers and rounds down, so a run is the same on every host.
"""

from typing import Final

NS_PER_SECOND: Final = 1_000_000_000
FOREVER: Final = 1 << 62
"""A cycle that no clock reaches."""
DEFAULT_FREQUENCY: Final = 2_500_000_000


class Clock:
    """A count of cycles at a frequency.

    `now` is absolute, in cycles since power-on. `frequency` is in Hz. `tsc_hz` is the rate of an
    invariant TSC; 0: the TSC counts cycles, however long they are.
    """

    __slots__ = ("_ns", "_since", "_tsc", "frequency", "now", "tsc_hz")

    def __init__(
        self, frequency: int = DEFAULT_FREQUENCY, now: int = 0, *, tsc_hz: int = 0
    ) -> None:
        """Start at cycle `now`. Raises ValueError for a frequency that is not positive."""
        if frequency <= 0:
            raise ValueError(f"clock frequency {frequency} Hz must be positive")
        self.frequency = frequency
        self.now = now
        self.tsc_hz: Final = tsc_hz
        self._since = self._ns = self._tsc = 0

    def set_frequency(self, hz: int) -> None:
        """Run at another frequency from now on. Raises ValueError if it is not positive."""
        if hz <= 0:
            raise ValueError(f"clock frequency {hz} Hz must be positive")
        self._ns, self._tsc, self._since = self.ns(), self.tsc(), self.now
        self.frequency = hz

    def save(self) -> list[int]:
        """Return frequency, and cycle, time and TSC of its last change; `now` is the pCPU's."""
        return [self.frequency, self._since, self._ns, self._tsc]

    def restore(self, state: list[int]) -> None:
        """Take over what save() returned."""
        self.frequency, self._since, self._ns, self._tsc = state

    # ---- time ----

    def ns(self) -> int:
        """Nanoseconds since power-on, rounded down."""
        return self.ns_at(self.now)

    def ns_at(self, cycle: int) -> int:
        """The time of an absolute cycle, as far as the frequency is known now."""
        return self._ns + self.ns_of_cycles(cycle - self._since)

    def cycle_at(self, ns: int) -> int:
        """The last cycle that is not after a time since power-on."""
        return self._since + self.cycles_of_ns(ns - self._ns)

    def cycles_of_ns(self, ns: int) -> int:
        """The whole cycles that fit in `ns` nanoseconds, at today's frequency."""
        return ns * self.frequency // NS_PER_SECOND

    def ns_of_cycles(self, cycles: int) -> int:
        """The whole nanoseconds that fit in `cycles` cycles, at today's frequency."""
        return cycles * NS_PER_SECOND // self.frequency

    # ---- counters with a rate of their own ----

    def ticks(self, hz: int) -> int:
        """How often an oscillator of `hz` has ticked since power-on."""
        parts = self._ns * self.frequency + (self.now - self._since) * NS_PER_SECOND
        return parts * hz // (self.frequency * NS_PER_SECOND)

    def cycle_of_tick(self, hz: int, tick: int) -> int:
        """The first cycle at which `ticks` returns `tick` or more."""
        parts = (tick * NS_PER_SECOND - self._ns * hz) * self.frequency
        return self._since - (-parts // (hz * NS_PER_SECOND))

    # ---- the TSC ----

    def tsc(self) -> int:
        """What the time-stamp counter of the processor reads."""
        rate, per = self.tsc_rate()
        return self._tsc + (self.now - self._since) * rate // per

    def cycle_of_tsc(self, value: int) -> int:
        """The first cycle at which tsc() returns `value` or more."""
        rate, per = self.tsc_rate()
        return self._since - (-(value - self._tsc) * per // rate)

    def tsc_rate(self) -> tuple[int, int]:
        """TSC ticks, and the cycles in which they come."""
        return (self.tsc_hz, self.frequency) if self.tsc_hz else (1, 1)

    def tsc_origin(self) -> tuple[int, int]:
        """A cycle, and what the TSC read there: since then it has had today's rate."""
        return self._since, self._tsc

    def __repr__(self) -> str:
        return f"Clock(now={self.now}, frequency={self.frequency})"
