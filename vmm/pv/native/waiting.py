"""Spinning and waiting: give up the turn, sleep on a value, wake who sleeps.

WAIT_ON_VALUE looks at the value and sleeps in one: whoever stores another value and then calls WAKE
either stored before the look, which is then no sleep, or wakes the sleeper. CHECK_THEN_SLEEP leaves
the look to the guest, and so a moment in which the WAKE can come and find nobody.
"""

from collections.abc import Mapping
from typing import Final

from vmm.pv.dialect import Hypercall, Processor, State
from vmm.pv.native.abi import FOREVER, Call, Error, Feature
from vmm.pv.native.part import Handler, Part, Room

_LOW: Final = 0xFFFF_FFFF


class Waiting(Part):
    """Who sleeps where. A sleeper that an interrupt woke is forgotten when that is noticed."""

    name = "waiting"
    features = frozenset({Feature.YIELD, Feature.WAIT_WAKE})

    def __init__(self, room: Room) -> None:
        """Nobody sleeps."""
        super().__init__(room)
        self._sleepers: dict[int, tuple[int, int | None]] = {}
        """By processor, in the order in which they went to sleep: address, and time-out in ns."""

    def calls(self) -> Mapping[Call, Handler]:
        """Turns, sleep and wake."""
        return {
            Call.YIELD: self._yield,
            Call.WAIT_ON_VALUE: self._wait_on_value,
            Call.CHECK_THEN_SLEEP: self._check_then_sleep,
            Call.WAKE: self._wake,
        }

    def _yield(self, cpu: Processor, call: Hypercall) -> int:
        target = call.arguments[0]
        if target == (FOREVER if call.wide else _LOW):
            cpu.yield_to_any()
        elif target < len(self.room.cpus):
            cpu.yield_to(target)
        else:
            return -Error.BAD_ARGUMENT
        return 0

    def _wait_on_value(self, cpu: Processor, call: Hypercall) -> int:
        gpa, value, timeout = call.arguments[:3]
        now = int.from_bytes(self.room.machine.memory.read(gpa, 4), "little")
        if now != value & _LOW:
            return -Error.CHANGED
        return self._sleep(cpu, gpa, timeout, call)

    def _check_then_sleep(self, cpu: Processor, call: Hypercall) -> int:
        return self._sleep(cpu, call.arguments[0], call.arguments[1], call)

    def _sleep(self, cpu: Processor, gpa: int, timeout: int, call: Hypercall) -> int:
        if cpu.has_wake_event():
            return -Error.INTERRUPTED
        clock = self.room.machine.clock
        endless = timeout == (FOREVER if call.wide else _LOW)
        until = None if endless else clock.ns() + timeout
        self._sleepers.pop(cpu.index, None)
        self._sleepers[cpu.index] = gpa, until
        cpu.wait(timed=until is not None)
        cpu.reschedule()
        return 0

    def _wake(self, cpu: Processor, call: Hypercall) -> int:
        gpa, most = call.arguments[:2]
        chosen = [index for index, (at, _) in self._sleepers.items() if at == gpa]
        woken = 0
        for index in chosen:
            sleeper = self.room.cpus[index]
            if woken == most:
                break
            del self._sleepers[index]
            if sleeper.is_waiting():
                sleeper.end_wait(0)
                woken += 1
        cpu.work(woken)
        return woken

    # ---- time-outs ----

    def next_event(self) -> int | None:
        """The first time-out."""
        ends = [until for _, until in self._sleepers.values() if until is not None]
        return self._cycle(min(ends)) if ends else None

    def _cycle(self, ns: int) -> int:
        """The first cycle that is not before a time."""
        clock = self.room.machine.clock
        return clock.cycle_at(ns) + (clock.ns_at(clock.cycle_at(ns)) < ns)

    def fire(self) -> None:
        """Wake those whose time is over."""
        now = self.room.machine.clock.ns()
        for index, (_, until) in list(self._sleepers.items()):
            if until is not None and until <= now:
                del self._sleepers[index]
                if self.room.cpus[index].is_waiting():
                    self.room.cpus[index].end_wait(-Error.TIMED_OUT)

    # ---- life ----

    def released(self, feature: Feature) -> None:
        """Nobody could wake them any more: all get up."""
        if feature is not Feature.WAIT_WAKE:
            return
        for index in list(self._sleepers):
            del self._sleepers[index]
            if self.room.cpus[index].is_waiting():
                self.room.cpus[index].end_wait(-Error.NOT_ACTIVE)

    def reset(self, index: int) -> None:
        """Power-up or INIT."""
        self._sleepers.pop(index, None)

    def save(self) -> State:
        """Who sleeps where."""
        return {"sleepers": [[index, gpa, until] for index, (gpa, until) in self._sleepers.items()]}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        sleepers = state["sleepers"]
        assert isinstance(sleepers, list)
        self._sleepers = {index: (gpa, until) for index, gpa, until in sleepers}
