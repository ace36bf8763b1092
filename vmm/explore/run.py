"""One attempt: the guest from its mark to its end, under one schedule and nothing of chance.

Time plays no part: one virtual CPU runs until it sleeps, PAUSEs, yields or is preempted, and the
next one in order that can run follows. That is fair, so a loop that waits for another processor
with PAUSE costs no preemption (Musuvathi and Qadeer, "Fair Stateless Model Checking", PLDI 2008).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hwmodel.arch.controls import Primary
from hwmodel.arch.vmcs import Field
from hwmodel.cpu.stops import Mode
from hwmodel.timing.clock import FOREVER
from vmm.errors import UsageError
from vmm.explore.schedule import Point, Schedule
from vmm.outcome import Stop, StopReason
from vmm.state.reset import ResetPoint
from vmm.vcpu import Vcpu
from vmm.vm import VM

_PAUSE_EXITS: Final = int(Primary.of(pause_exiting=1))
_IDLE_MOST: Final = 64  # events that come and wake nobody


class End(StrEnum):
    """How an attempt ended."""

    PASSED = "passed"
    FAILED = "failed"
    """The guest said so, or was stopped."""
    ASLEEP = "asleep"
    """Nobody can run, and nobody will ever wake: a lost wake-up, a deadlock."""
    ENDLESS = "endless"
    """More instructions than any schedule should need."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of a schedule: how it ended, in so many steps; where each virtual CPU stood."""

    schedule: Schedule
    end: End
    steps: int
    message: str
    rips: tuple[int, ...]
    switched: tuple[tuple[Point, int, int], ...]
    """Each preemption that took place: whose turn it was, and before which instruction."""

    @property
    def is_broken(self) -> bool:
        """Whether the guest did not end as it should."""
        return self.end is not End.PASSED


class Explored(VM):
    """A VM that can end again and again."""

    @property
    def stopped(self) -> Stop | None:
        """How this attempt ended, if it has."""
        return self._stop

    def forget_end(self) -> None:
        """The state was put back: it has not ended."""
        self._stop, self.interrupted, self._reset_requested = None, None, False


class Stage:
    """A VM at the mark, and every way on from there."""

    def __init__(self, vm: Explored, mark: int | None, most: int) -> None:
        """Run `vm` to the instruction at linear address `mark`; an attempt has `most` steps.

        Raises UsageError if it ends before that.
        """
        self.vm: Final = vm
        self.most: Final = most
        if mark is not None:
            _run_to(vm, mark)
        self._first = vm.current
        for vcpu in vm.vcpus:
            vcpu.vmcs[Field.CPU_BASED_VM_EXEC_CONTROL] |= _PAUSE_EXITS
            vcpu.give_turn, vcpu.yield_turn = self._give, self._give_any
        self._point = ResetPoint(vm.snapshot(), vm.keeper, vm.vcpus, vm.board)
        self._base = vm.pcpu.instructions
        self._now, self._wish = self._first, -1

    # ---- whose turn ----

    def _give(self, index: int) -> bool:
        """As RoundRobin's: the turn ends in favour of another, if that one could run."""
        vcpu = self.vm.vcpus[index]
        if vcpu is self._now or not vcpu.is_runnable():
            return False
        self._wish = index
        return True

    def _give_any(self) -> bool:
        count = len(self.vm.vcpus)
        return any(self._give((self._now.index + step) % count) for step in range(1, count))

    def _switch(self, vcpu: Vcpu) -> None:
        if vcpu is not self._now:
            self._now.descheduled()
            self._now = vcpu
            vcpu.scheduled()

    def _next_runnable(self) -> bool:
        """Pass the turn on from who cannot run; False if nobody can, or ever will."""
        vcpus, first = self.vm.vcpus, self._now.index
        for _ in range(_IDLE_MOST):
            for step in range(len(vcpus)):
                vcpu = vcpus[(first + step) % len(vcpus)]
                if vcpu.is_runnable():
                    self._switch(vcpu)
                    return True
            event = self.vm.board.next_event()
            if event is None or not any(vcpu.can_wake() for vcpu in vcpus):
                return False
            self.vm.pcpu.idle(max(0, event - self.vm.clock.now))
            self.vm.board.fire()
        return False

    # ---- an attempt ----

    @property
    def steps(self) -> int:
        """Instructions since the mark."""
        completed = sum(vcpu.vmcs.native.retire for vcpu in self.vm.vcpus)
        return int(self.vm.pcpu.instructions + completed - self._base)

    def attempt(
        self, schedule: Schedule, each: Callable[[int, Vcpu], None] | None = None
    ) -> Attempt:
        """Go back to the mark, and run. `each` sees every step: its number, and who makes it."""
        self._go_back()
        left, switched = list(schedule.points), list[tuple[Point, int, int]]()
        while not self.vm.is_stopped() and self.steps < self.most:
            if not self._next_runnable():
                return self._end(schedule, End.ASLEEP, switched)
            while left and left[0].step <= self.steps:
                self._preempt(left.pop(0), switched)
            if each is not None:
                each(self.steps, self._now)
            self._run(left[0].step if left else self.most, single=each is not None)
        ended = self.vm.is_stopped()
        return self._end(schedule, self._verdict() if ended else End.ENDLESS, switched)

    def _go_back(self) -> None:
        self._point.restore()
        self.vm.forget_end()
        self._now, self._wish = self._first, -1

    def _preempt(self, point: Point, switched: list[tuple[Point, int, int]]) -> None:
        to = self.vm.vcpus[point.vcpu]
        if to is not self._now and to.is_runnable():
            switched.append((point, self._now.index, int(self._now.regs.rip)))
            self._switch(to)

    def _run(self, until: int, *, single: bool) -> None:
        vm, vcpu = self.vm, self._now
        event = vm.board.next_event()
        if event is not None and event <= vm.clock.now:
            vm.board.fire()
        vcpu.look_for_events = True
        done = sum(v.vmcs.native.retire for v in vm.vcpus if v is not vcpu)
        goal = min(until, self.steps + 1) if single else until
        vm.pcpu.pace.limit(max(0, self._base + goal - done))
        self._wish = -1
        vcpu.run(FOREVER)
        vm.pcpu.pace.limit(None)
        if self._wish >= 0:
            self._switch(vm.vcpus[self._wish])

    def _verdict(self) -> End:
        result = self.vm.stopped
        good = result is not None and (
            result.reason in (StopReason.POWEROFF, StopReason.HALTED)
            or (result.reason is StopReason.DEBUG_EXIT and result.status == 1)
        )
        return End.PASSED if good else End.FAILED

    def _end(self, schedule: Schedule, end: End, switched: list[tuple[Point, int, int]]) -> Attempt:
        stop = self.vm.stopped
        said = f"{stop.reason}, status {stop.status}" if stop is not None else str(end)
        rips = tuple(int(vcpu.regs.rip) for vcpu in self.vm.vcpus)
        return Attempt(schedule, end, self.steps, said, rips, tuple(switched))


def _run_to(vm: Explored, address: int) -> None:
    """Run until the instruction at a linear address is next."""
    stops = vm.pcpu.stops
    stops.at_code(1, address, physical=False)
    stops.arm(Mode.STOP, renew=True)
    while not vm.is_stopped() and stops.hit() is None:
        turn = vm.scheduler.next_turn(vm.next_look())
        if turn is not None:
            turn[0].run(turn[1])
        vm.between_turns()
    reached = stops.hit() is not None
    stops.clear()
    stops.arm(Mode.OFF, renew=True)
    if not reached:
        raise UsageError(f"the guest ended before {address:#x} was reached; give another --from")
