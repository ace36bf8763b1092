"""Runs a VM as its scheduler would, and stops it at any moment without the guest noticing.

The loop is that of `Vcpu.run` inside that of `RoundRobin.run`, with a place to stop after each of
their statements that lets something happen. Where it stopped within a turn is kept (`Turn`), so
that going on is not a new turn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from hwmodel.timing.clock import FOREVER
from hwmodel.vmx.exit import (
    BEFORE_HANDLER,
    BREAKPOINT,
    DEADLINE,
    INTERRUPTED,
    TARGET,
    WATCHPOINT,
    Exit,
)
from vmm.debug.moment import Moment
from vmm.errors import UsageError
from vmm.host.input import POLL_CYCLES
from vmm.host.tape import Key, Kind, Tape
from vmm.inject import deliver_pending
from vmm.outcome import Outcome
from vmm.sched.build import turns_of
from vmm.vcpu import Vcpu
from vmm.vm import VM

if TYPE_CHECKING:
    from hwmodel.cpu.stops import EngineStops


class Why(Enum):
    """Why the driver came back."""

    GOAL = "goal"
    BREAKPOINT = "breakpoint"
    WATCHPOINT = "watchpoint"
    EXIT = "exit"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Goal:
    """Stop at the first moment that is no earlier than any of these; None: does not matter.

    `exits`: when exit number so is open, `handled`: when it has been handled. `vcpu`: when that one
    has made a step, if `vcpu_steps`.
    """

    steps: int | None = None
    cycle: int | None = None
    exits: int | None = None
    handled: int | None = None
    moment: Moment | None = None
    vcpu: int | None = None


@dataclass(slots=True)
class Turn:
    """A virtual CPU's turn that is not over: cycles at which it ends, and to look at devices."""

    vcpu: Vcpu
    ends: int
    until: int


Stepped = Callable[[Vcpu, int, int], None]
"""Hears that a virtual CPU ran: the steps before and after."""


Seen = Callable[[Vcpu], None]
"""Hears of an exit, before its handler and behind it: `now` says which."""
_STOPPED: Final = {
    TARGET: None,
    BREAKPOINT: Why.BREAKPOINT,
    WATCHPOINT: Why.WATCHPOINT,
}


class Driver:
    """The run loop of one VM under a debugger."""

    def __init__(self, vm: VM) -> None:
        """Nothing runs yet; the VM is at its start, or stopped between two turns."""
        self.vm: Final = vm
        self.stops: Final[EngineStops] = vm.pcpu.stops
        self.turn: Turn | None = None
        self.open_exit: Exit | None = None
        """An exit whose handler has not run; its `handled` keeps the handler away."""
        self.watches_handlers = False
        self.stepped: list[Stepped] = []
        self.seen: list[Seen] = []
        self.look: Callable[[], int] = vm.next_look
        """Returns the cycle at which to look around at the latest."""
        self.looked: Callable[[], None] = vm.between_turns
        self.tape: Final = vm.sources.tape or Tape()
        vm.sources.tape = self.tape
        self.tape.now = lambda: self.now.key
        vm.input.is_driven = True
        self._look_at = 0
        self._asked: Key | None = None
        self._paused = self._settling = False
        self._stepped_vcpu = False

    @property
    def now(self) -> Moment:
        """Where the VM stands."""
        vm = self.vm
        completed = sum(vcpu.vmcs.native.retire for vcpu in vm.vcpus)
        return Moment(
            vm.clock.now + completed, self.stops.steps + completed, self.stops.exits,
            self.open_exit is not None,
        )  # fmt: skip

    @property
    def vcpu(self) -> Vcpu:
        """The virtual CPU whose turn it is, or was."""
        return self.turn.vcpu if self.turn is not None else self.vm.current

    def pause(self) -> None:
        """Stop soon, at the next step; from any thread."""
        self._paused = True
        self.vm.pcpu.interrupt()

    def advance(self, goal: Goal) -> Why:
        """Run until the goal is reached, or something else stops the VM first."""
        vm = self.vm
        self._stepped_vcpu = False
        while True:
            if vm.is_stopped():
                self.turn = self.open_exit = None
                self.looked()
                if vm.is_stopped():
                    return Why.ENDED
            why = self._reached(goal)
            if why is None and not self._settling and self._look_outside():
                continue
            why = why or self._move(goal)
            if why is not None:
                return why

    def is_at(self, goal: Goal) -> bool:
        """Whether the goal is reached."""
        now = self.now
        return (
            (goal.steps is not None and now.steps >= goal.steps)
            or (goal.cycle is not None and now.cycle >= goal.cycle)
            or (goal.exits is not None and now.exits >= goal.exits)
            or (goal.handled is not None and now.exits - now.is_open >= goal.handled)
            or (goal.moment is not None and now >= goal.moment)
            or (goal.vcpu is not None and self._stepped_vcpu)
        )

    def _reached(self, goal: Goal) -> Why | None:
        if self.is_at(goal):
            return Why.GOAL
        if self._paused and not self._settling:
            self._paused = False
            return Why.PAUSED
        return None

    # ---- the host ----

    def _look_outside(self) -> bool:
        """Let in what the tape has for this moment, or what the host has; whether it had any."""
        vm = self.vm
        if self.open_exit is not None:
            return False
        if vm.pauses():
            self._look_at = 0
            self.looked()
            if vm.is_stopped():
                self._note_end()
                return True
        if self.tape.is_playing:
            return self._play()
        if not vm.input.is_watched():
            return False
        idle, now = self._is_idle(), self.now.key
        if (vm.clock.now < self._look_at and not idle) or now == self._asked:
            return False
        self._asked, self._look_at = now, vm.clock.now + POLL_CYCLES
        return vm.input.wait(vm.board.next_event()) if idle else vm.input.collect()

    def _play(self) -> bool:
        entry = self.tape.peek()
        if entry is None or entry.kind is Kind.ANSWER or self.now.key < entry.at:
            return False
        if self.now.key != entry.at:
            raise UsageError(
                f"the run is another than the recorded one: it is at {self.now.key}, and the next "
                f"input came at {entry.at}; has anything beside the image changed since?"
            )
        self.tape.take()
        if entry.kind is Kind.INPUT:
            self.vm.sources.doors[entry.source](entry.data)
        else:
            self.vm.interrupt(entry.data.decode())
            self.looked()
        return True

    def _note_end(self) -> None:
        """Who ended the run? The host may have; a repeated run ends here too."""
        result = self.vm.result
        ended = result is not None and result.reason in ("interrupted", "timeout")
        if ended and result is not None and not self.tape.is_playing:
            self.tape.note(Kind.END, "host", result.reason.encode())

    def _is_idle(self) -> bool:
        if self.turn is not None or any(vcpu.is_runnable() for vcpu in self.vm.vcpus):
            return False
        event = self.vm.board.next_event()
        return event is None or event > self.vm.clock.now

    def _input_at(self) -> Key | None:
        """The moment of the next input on the tape."""
        entry = self.tape.peek()
        return entry.at if entry is not None and entry.kind is not Kind.ANSWER else None

    # ---- what happens next ----

    def _move(self, goal: Goal) -> Why | None:
        """Let the next thing happen."""
        if self.open_exit is not None:
            return self._handle(self.open_exit)
        if self.turn is None and not self._begin_turn(goal):
            return None
        return self._enter(goal)

    def _begin_turn(self, goal: Goal) -> bool:
        """Have the scheduler choose; False: nobody can run before something is to be looked at."""
        vm, limit = self.vm, self.look()
        idle_limit, cycle = vm.scheduler.idle_limit, self._cycle_of(goal)
        if cycle is not None:
            cycle -= sum(v.vmcs.native.retire for v in vm.vcpus)
            limit, idle_limit = min(limit, cycle), min(idle_limit, cycle)
        vm.scheduler.idle_limit = max(limit, idle_limit)
        before = vm.clock.now
        chosen = vm.scheduler.next_turn(limit) if before < limit else None
        if chosen is None:
            self.looked()
            if not vm.is_stopped() and vm.clock.now == before < limit < FOREVER:
                vm.pcpu.idle(limit - before)  # only the host may wake it, and has not
            return False
        vcpu = chosen[0]
        ends = FOREVER if len(vm.vcpus) == 1 else turns_of(vm.scheduler).turn_ends
        self.turn = Turn(vcpu, ends, ends)
        return True

    def _cycle_of(self, goal: Goal) -> int | None:
        cycles = [goal.cycle, goal.moment.cycle if goal.moment is not None else None]
        key = self._input_at()
        cycles += [key[0]] if key is not None else []
        return min((c for c in cycles if c is not None), default=None)

    def _enter(self, goal: Goal) -> Why | None:
        """Enter the guest once."""
        turn = self.turn
        assert turn is not None
        vcpu = turn.vcpu
        if vcpu.look_for_events:
            event = self.vm.board.next_event()
            turn.until = turn.ends if event is None or event > turn.ends else event
        if self.vm.clock.now >= turn.until:  # an exit takes time too
            self._deadline(turn)
            return None
        if vcpu.look_for_events:
            deliver_pending(vcpu)
        cut = min(turn.until, self._cut(goal, vcpu))
        steps = self.stops.steps + vcpu.vmcs.native.retire
        others = self._others(vcpu)
        self.stops.target(self._target(goal, vcpu, steps + others), others)
        vmexit = vcpu.enter(cut)
        after = self.stops.steps
        self._stepped_vcpu |= vcpu.index == goal.vcpu and after > steps
        self._settling = False
        for hear in self.stepped:
            hear(vcpu, steps, after)
        return self._entered(turn, vmexit, goal)

    def _cut(self, goal: Goal, vcpu: Vcpu) -> int:
        """Return the cycle at which to leave the guest at the latest."""
        cut, cycle = self.look(), self._cycle_of(goal)
        if cycle is not None and self.now.cycle < cycle:
            cut = min(cut, cycle - self._others(vcpu))
        return cut

    def _target(self, goal: Goal, vcpu: Vcpu, steps: int) -> int | None:
        """Return the steps at which to leave it."""
        targets = [goal.steps] if goal.steps is not None else []
        if goal.moment is not None:
            # At its step but not at its exit yet: that exit comes before the next step.
            targets.append(max(goal.moment.steps, steps + 1))
        if (key := self._input_at()) is not None:
            targets.append(max(key[1], steps + 1))
        if self._settling or goal.vcpu == vcpu.index:
            targets.append(steps + 1)
        return min(targets, default=None)

    def _others(self, vcpu: Vcpu) -> int:
        """Return the steps that software completed for other virtual CPUs and nobody booked."""
        return sum(v.vmcs.native.retire for v in self.vm.vcpus if v is not vcpu)

    def _entered(self, turn: Turn, vmexit: Exit, goal: Goal) -> Why | None:
        if vmexit.reason in _STOPPED:
            return _STOPPED[vmexit.reason]
        if vmexit.reason == DEADLINE:
            self._deadline(turn)
            return None
        if vmexit.reason == INTERRUPTED:
            self._settling = True  # in the middle of a repeated instruction, perhaps
            return None
        if vmexit.reason == BEFORE_HANDLER:
            self.open_exit = vmexit.copy()
            self._hear(turn.vcpu)
            return Why.EXIT
        if vmexit.is_stop:
            self._finish(turn, turn.vcpu.handle(vmexit))
            return None
        if goal.exits is None and goal.moment is None and not self.seen:
            return self._handle(vmexit)
        self.open_exit = vmexit.copy()
        self._hear(turn.vcpu)
        return self._reached(goal) or self._handle(self.open_exit)

    def _hear(self, vcpu: Vcpu) -> None:
        for hear in self.seen:
            hear(vcpu)

    def _deadline(self, turn: Turn) -> None:
        if self.vm.clock.now >= turn.until:
            self.turn = None
        if self.vm.pauses() or self.vm.clock.now >= self.look():
            self.looked()

    def _handle(self, vmexit: Exit) -> Why | None:
        """Do what software does about an exit."""
        turn = self.turn
        assert turn is not None
        self.open_exit = None
        outcome = Outcome.RESUME if vmexit.handled else turn.vcpu.handle(vmexit)
        self._finish(turn, outcome)
        self._hear(turn.vcpu)
        if self.watches_handlers:
            now = self.now
            if self.stops.settle(now.steps, now.cycle):
                return Why.WATCHPOINT
        return None

    def _finish(self, turn: Turn, outcome: Outcome) -> None:
        if outcome is not Outcome.RESUME and self.turn is turn:
            self.turn = None
