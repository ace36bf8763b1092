"""What the native dialect does by itself, timed as a device is: timers, time-outs, gauges."""

from typing import Final

from hwmodel.timing.clock import Clock
from vmm.pv.dialect import State
from vmm.pv.native.part import Part

_ALL_ONES: Final = (1 << 64) - 1


class Events:
    """The parts' events as one device without registers; their state is the dialect's."""

    name = "native"

    def __init__(self, clock: Clock, parts: list[Part]) -> None:
        """Ask `parts`."""
        self._clock: Final = clock
        self._parts: Final = [p for p in parts if type(p).next_event is not Part.next_event]

    def next_event(self) -> int | None:
        """Return the cycle at which the first part has something to do."""
        events = [event for part in self._parts if (event := part.next_event()) is not None]
        return min(events, default=None)

    def fire(self) -> None:
        """Let every part do what is due."""
        for part in self._parts:
            event = part.next_event()
            if event is not None and event <= self._clock.now:
                part.fire()

    def read(self, _offset: int, size: int) -> int:
        """No register."""
        return _ALL_ONES >> 64 - 8 * size

    def write(self, _offset: int, _size: int, _value: int) -> None:
        """No register."""

    def save(self) -> State:
        """Nothing: the dialect writes its parts down."""
        return {"version": 1}

    def restore(self, state: State) -> None:
        """Nothing to take over."""
