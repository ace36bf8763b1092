"""Timers and the end of interrupts: both change the host's state, so both are hypercalls.

A timer may come late by its slack, and never early. It is let wait for others: the one that cannot
wait any longer takes along all, of all processors, whose time has come (the fewest interruptions
that keep every promise). A storm stays bounded: on one processor two expiries are at least
`LEAST_NS` apart, however often timers are set, and a processor has at most `MOST` of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vmm.pv.dialect import Hypercall, Processor, State
from vmm.pv.native.abi import FOREVER, Call, Error, Feature
from vmm.pv.native.part import Handler, Part, Room

LEAST_NS: Final = 20_000
"""KVM bounds its local APIC's periodic timer likewise (min_timer_period_us, 200); one-shot timers
of a native guest may be ten times as fine."""
MOST: Final = 32
_FIRST_VECTOR: Final = 32
_FIXED: Final = 0  # delivery mode


@dataclass(frozen=True, slots=True)
class Timer:
    """One timer of one processor, in ns since power-on."""

    deadline: int
    slack: int

    @property
    def latest(self) -> int:
        """When it must have fired."""
        return self.deadline + self.slack


class Timers(Part):
    """The timers of all virtual CPUs: one for each vector."""

    name = "timers"
    features = frozenset({Feature.TIMER, Feature.TIMER_SLACK})

    def __init__(self, room: Room) -> None:
        """Nothing is set."""
        super().__init__(room)
        self._set: dict[tuple[int, int], Timer] = {}
        """By processor and vector."""
        self._quiet = [0] * room.machine.cpus
        """The time before which a processor's next timer does not fire."""
        self.expiries = 0
        self.interruptions = 0
        """How often any timer fired, and at how many different moments of a processor."""

    def calls(self) -> Mapping[Call, Handler]:
        """Two."""
        return {Call.SET_TIMER: self._set_timer, Call.ACK_INTERRUPT: self._acknowledge}

    def _set_timer(self, cpu: Processor, call: Hypercall) -> int:
        deadline, slack, vector = call.arguments[:3]
        if not _FIRST_VECTOR <= vector <= 0xFF:
            return -Error.BAD_ARGUMENT
        if slack and not self.room.contract.works(Feature.TIMER_SLACK):
            return -Error.NOT_ACTIVE
        key = cpu.index, vector
        if deadline == FOREVER:
            self._set.pop(key, None)
        elif key not in self._set and sum(index == cpu.index for index, _ in self._set) >= MOST:
            return -Error.LIMIT
        else:
            self._set[key] = Timer(deadline, min(slack, FOREVER - deadline))
        cpu.reschedule()
        return 0

    def _acknowledge(self, cpu: Processor, call: Hypercall) -> int:
        if cpu.in_service() != call.arguments[0]:
            return -Error.BAD_ARGUMENT
        cpu.end_of_interrupt()
        return 0

    # ---- events ----

    def _due_ns(self) -> int | None:
        """When the first timer can wait no longer, unless its processor is to be left alone."""
        moments = (max(t.latest, self._quiet[index]) for (index, _), t in self._set.items())
        return min(moments, default=None)

    def next_event(self) -> int | None:
        """Return the cycle of that moment."""
        due = self._due_ns()
        return None if due is None else self.room.machine.clock.cycle_of_tick(1_000_000_000, due)

    def fire(self) -> None:
        """Let all go whose time has come; with them goes none that could still wait alone."""
        now = self.room.machine.clock.ns()
        for index, cpu in enumerate(self.room.cpus):
            if self._quiet[index] > now:
                continue
            due = [key for key, t in self._set.items() if key[0] == index and t.deadline <= now]
            for key in due:
                del self._set[key]
                cpu.interrupt(_FIXED, key[1])
            if due:
                self._quiet[index] = now + LEAST_NS
                self.expiries += len(due)
                self.interruptions += 1

    # ---- life ----

    def released(self, feature: Feature) -> None:
        """Without the feature nothing fires."""
        if feature is Feature.TIMER:
            self._set.clear()

    def reset(self, index: int) -> None:
        """Its timers are gone."""
        self._set = {key: timer for key, timer in self._set.items() if key[0] != index}
        self._quiet[index] = 0

    def save(self) -> State:
        """Every timer, and who is to be left alone."""
        timers = [[*key, timer.deadline, timer.slack] for key, timer in self._set.items()]
        return {"timers": timers, "quiet": list(self._quiet)}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        timers, quiet = state["timers"], state["quiet"]
        assert isinstance(timers, list)
        assert isinstance(quiet, list)
        self._set = {(cpu, vector): Timer(at, slack) for cpu, vector, at, slack in timers}
        self._quiet[:] = quiet
