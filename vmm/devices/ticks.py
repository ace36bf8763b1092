"""A device's own oscillator, derived exactly from the clock's cycles (integers only, no drift)."""

from vmm.devices.device import Clock


class Oscillator:
    """Ticks at `hz`; tick n happens at the first cycle whose time is at least n / hz seconds."""

    def __init__(self, clock: Clock, hz: int) -> None:
        """`hz` is the oscillator's frequency; the clock brings its own."""
        self._clock = clock
        self.hz = hz

    def now(self) -> int:
        """Return how many ticks have happened."""
        return self._clock.ticks(self.hz)

    def cycle(self, tick: int) -> int:
        """Return the first cycle at which now() >= tick."""
        return self._clock.cycle_of_tick(self.hz, tick)
