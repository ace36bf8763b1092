"""What a toolstack writes into xenstore while the guest runs: `--xenstore PATH=VALUE@TIME`.

`control/shutdown=poweroff@5s` is Xen's `xl shutdown` (docs/misc/xenstore-paths.pandoc): the guest
watches the node, writes it empty as its answer, and ends itself.
"""

from collections.abc import Sequence
from typing import Final

from hwmodel.timing.clock import Clock
from vmm.pv.dialect import State
from vmm.pv.xen.store import Store, check_path
from vmm.pv.xen.store_ring import OWN_PATH
from vmm.pv_options import StoreWrite

NS: Final = 1_000_000_000
ALL_ONES: Final = (1 << 64) - 1


class Toolstack:
    """Writes nodes at their times; a device to the board."""

    name = "xen-toolstack"

    def __init__(self, store: Store, clock: Clock, plan: Sequence[StoreWrite]) -> None:
        """What is planned for time 0 is there before the guest starts."""
        self._store: Final = store
        self._clock: Final = clock
        for step in plan:
            if not step.ns:
                self._write(step)
        self._plan: Final = sorted((s for s in plan if s.ns), key=lambda step: step.ns)
        self._done = 0

    def _write(self, step: StoreWrite) -> None:
        self._store.write(check_path(step.path, OWN_PATH), step.value.encode())

    def next_event(self) -> int | None:
        """Return the cycle of the next write."""
        if self._done == len(self._plan):
            return None
        return self._clock.cycle_of_tick(NS, self._plan[self._done].ns)

    def fire(self) -> None:
        """Write what is due."""
        while (event := self.next_event()) is not None and event <= self._clock.now:
            self._done += 1
            self._write(self._plan[self._done - 1])

    def read(self, _offset: int, size: int) -> int:
        """No register."""
        return ALL_ONES >> 64 - 8 * size

    def write(self, _offset: int, _size: int, _value: int) -> None:
        """No register."""

    def save(self) -> State:
        """How far the plan is."""
        return {"version": 1, "done": self._done}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        done = state["done"]
        assert isinstance(done, int)
        self._done = done

    def save_media(self) -> State:
        """A restarted guest is not told again: the time goes on."""
        return self.save()

    def restore_media(self, state: State) -> None:
        """Take over what save_media() returned."""
        self.restore(state)
