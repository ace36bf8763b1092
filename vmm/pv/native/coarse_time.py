"""Time by hypercall: for guests that are not to measure what others do.

READ_TIME tells the clock's ns; with `+quantised` in steps of `QUANTUM_NS`, with `+limited` at most
`READS` times in `WINDOW_NS` on each processor. The TSC moves in the same steps then (RDTSC exits),
since a fine clock beside a coarse one would make that useless. Wei-Ming Hu, "Reducing Timing
Channels with Fuzzy Time" (1991), has the idea.
"""

from collections.abc import Mapping

from vmm.pv.dialect import Hypercall, Processor, State
from vmm.pv.native.abi import Call, Error, Feature
from vmm.pv.native.offer import QUANTUM_NS, READS, WINDOW_NS
from vmm.pv.native.part import Handler, Part, Room


class CoarseTime(Part):
    """The clock that is asked."""

    name = "coarse_time"
    features = frozenset({Feature.READ_TIME})

    def __init__(self, room: Room) -> None:
        """Nobody has asked yet."""
        super().__init__(room)
        self._windows = [[0, 0] for _ in range(room.machine.cpus)]
        """Of each processor: the number of the window, and the answers in it."""

    def calls(self) -> Mapping[Call, Handler]:
        """One."""
        return {Call.READ_TIME: self._read}

    def _read(self, cpu: Processor, _call: Hypercall) -> int:
        ns = self.room.machine.clock.ns()
        if "limited" in self.room.options:
            window = self._windows[cpu.index]
            if window[0] != ns // WINDOW_NS:
                window[:] = [ns // WINDOW_NS, 0]
            if window[1] >= READS:
                return -Error.LIMIT
            window[1] += 1
        return ns // QUANTUM_NS * QUANTUM_NS if "quantised" in self.room.options else ns

    def reset(self, index: int) -> None:
        """It may ask again."""
        self._windows[index] = [0, 0]

    def save(self) -> State:
        """Who asked how often."""
        return {"windows": [list(window) for window in self._windows]}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        windows = state["windows"]
        assert isinstance(windows, list)
        self._windows[:] = [list(window) for window in windows]
