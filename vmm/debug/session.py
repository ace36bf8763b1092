"""A debugging session: one VM, stopped, that runs forwards and backwards.

    with VM("kernel.elf") as vm:
        session = Session(vm)
        session.break_at(0x100020)
        session.resume()
        session.reverse_step()

Debugging changes nothing that a guest, the clock or the ledger could show: reading is free of side
effects through `vm.memory` and `look`, stopping splits no turn, checkpoints keep the caches. What
the user writes is his own doing: `changed` then forgets the future.
"""

from typing import Final

from hwmodel.cpu.stops import Hit, Kind, Mode, Watch
from hwmodel.vmx.exit import Exit
from vmm.debug.checkpoints import Checkpoints
from vmm.debug.driver import Driver, Goal, Why
from vmm.debug.moment import Moment
from vmm.debug.search import Search
from vmm.debug.stop import AnyStop, Stop, StopKind
from vmm.debug.stoplist import StopList
from vmm.errors import InternalError
from vmm.vcpu import Vcpu
from vmm.vm import VM

INTERVAL: Final = 1 << 24  # steps between checkpoints: some 50 ms of this host's time
_KINDS: Final = {
    Why.GOAL: StopKind.GOAL, Why.BREAKPOINT: StopKind.BREAKPOINT,
    Why.WATCHPOINT: StopKind.WATCHPOINT, Why.EXIT: StopKind.EXIT,
    Why.PAUSED: StopKind.PAUSED, Why.ENDED: StopKind.ENDED,
}  # fmt: skip


class Session:
    """One debugger's view of a VM; nobody else runs the VM meanwhile."""

    def __init__(self, vm: VM, *, limit: int | None = None, interval: int = INTERVAL) -> None:
        """Begin where the VM stands: earlier moments cannot be gone back to.

        Checkpoints take at most `limit` bytes, twice the guest's memory by default; `interval`
        is in steps.
        """
        self.vm: Final = vm
        vm.console.keep()
        self.driver: Final = Driver(vm)
        self.interval: Final = interval
        self.stops: Final = StopList(vm)
        self.checkpoints: Final = Checkpoints(self.driver, limit or 2 * vm.config.memory)
        self.frontier: Moment = self.driver.now
        """The latest moment that was ever reached."""
        self.last = Stop(StopKind.PAUSED, self.driver.now, 0)

    # ---- where it stands ----

    @property
    def now(self) -> Moment:
        """The present."""
        return self.driver.now

    @property
    def vcpu(self) -> Vcpu:
        """The virtual CPU whose turn it is, or was last."""
        return self.driver.vcpu

    @property
    def open_exit(self) -> Exit | None:
        """The exit whose handler has not run; setting its `handled` keeps the handler away."""
        return self.driver.open_exit

    @property
    def is_in_the_past(self) -> bool:
        """Whether the run has been further than now."""
        return self.now < self.frontier

    # ---- where to stop ----

    def break_at(self, address: int, *, physical: bool = False) -> AnyStop:
        """Stop before the instruction at a linear (or guest-physical) address."""
        return self.stops.add_code(address, physical=physical)

    def watch(
        self, address: int, size: int = 8, kinds: Watch = Watch.WRITE, *, physical: bool = False
    ) -> AnyStop:
        """Stop behind an access to memory, whether or not it changes what is there."""
        return self.stops.add_data(address, size, kinds, physical=physical)

    def break_on_exit(self, condition: str, *, after: bool = False) -> AnyStop:
        """Stop at exits that meet a condition (vmm/debug/condition.py), before their handlers.

        Raises UsageError, which points at the column, if it cannot be read.
        """
        return self.stops.add_exit(condition, after=after)

    def remove(self, number: int) -> None:
        """Remove a breakpoint of any kind. Raises UsageError if there is none of that number."""
        self.stops.remove(number)

    # ---- forwards ----

    def step(self, count: int = 1, vcpu: int | None = None) -> Stop:
        """Make steps: instructions, or events delivered; of one virtual CPU if it is given."""
        if vcpu is None:
            return self._go(Goal(steps=self.now.steps + count))
        stop = self.last
        for _ in range(count):
            stop = self._go(Goal(vcpu=vcpu))
            if stop.kind is not StopKind.GOAL:
                break
        return stop

    def resume(self, until: Goal = Goal()) -> Stop:  # noqa: B008  a frozen record
        """Run to the next breakpoint, the goal or the end."""
        return self._go(until)

    def next_exit(self, count: int = 1) -> Stop:
        """Run to the next exit, before its handler."""
        return self._go(Goal(exits=self.now.exits + count))

    def finish_exit(self) -> Stop:
        """Run the handler of the open exit; stop behind it."""
        return self._go(Goal(handled=self.now.exits))

    def pause(self) -> None:
        """Stop a run soon; from another thread."""
        self.driver.pause()

    # ---- backwards ----

    def reverse_step(self, count: int = 1, vcpu: int | None = None) -> Stop:
        """Take steps back: to the boundary before now that many instructions or events ago."""
        if vcpu is not None:
            return self._arrive(Search(self).step_of(vcpu, count), StopKind.GOAL)
        now = self.now
        self._goto_steps(now.steps)
        count -= self.now < now
        return self._goto_steps(max(0, now.steps - count)) if count else self._report()

    def reverse_resume(self) -> Stop:
        """Go back to the latest moment before now at which a breakpoint stops."""
        found = Search(self).last_hit()
        if found is None:
            return self._begin()
        moment, hit = found
        return self._arrive(moment, StopKind.GOAL, hit)

    def previous_exit(self, count: int = 1) -> Stop:
        """Go back to an earlier exit, before its handler."""
        now = self.now
        return self.goto_exit(now.exits - count + (0 if now.is_open else 1))

    # ---- anywhere ----

    def goto(self, moment: Moment) -> Stop:
        """Go to a moment of this run, in the past or the future; breakpoints do not count."""
        if self.now != moment:
            if moment < self.now:
                self.checkpoints.put(self.checkpoints.before(moment))
            self._run(Goal(moment=moment), Mode.OFF)
        return self._report()

    def goto_cycle(self, cycle: int) -> Stop:
        """Go to the first moment at which the clock reads `cycle` or more."""
        if self.now.cycle >= cycle:
            self.checkpoints.put(self.checkpoints.last(1 << 62, cycle, 1 << 62))
        self._run(Goal(cycle=cycle), Mode.OFF)
        return self._report()

    def goto_step(self, steps: int) -> Stop:
        """Go to the first moment at which so many steps have been made."""
        return self._goto_steps(steps)

    def goto_instruction(self, number: int) -> Stop:
        """Go to the first moment at which so many instructions have retired."""
        if self.instructions >= number:
            self.checkpoints.put(self.checkpoints.last_instruction(number))
        while self.instructions < number:
            goal = Goal(steps=self.now.steps + number - self.instructions)
            if self._run(goal, Mode.OFF) is Why.ENDED:
                break
        return self._report()

    def goto_exit(self, number: int) -> Stop:
        """Go to an exit, before its handler; to the beginning if it was before that."""
        if number <= self.checkpoints.first.moment.exits:
            return self._begin()
        now = self.now
        if now.exits > number or (now.exits == number and not now.is_open):
            self.checkpoints.put(self.checkpoints.last(1 << 62, 1 << 62, number))
        self._run(Goal(exits=number), Mode.OFF)
        return self._report()

    def last_write(self, address: int, size: int = 8, *, physical: bool = True) -> Stop:
        """Go back behind the last write of guest memory before now."""
        with self.stops.only_data(address, size, physical=physical):
            return self.reverse_resume()

    def changed(self) -> None:
        """The user wrote registers or memory: what was the future is not any more.

        A run that comes by here again, from the past, finds what was written.
        """
        self.checkpoints.forget_after(self.now)
        self.checkpoints.take_edit()
        self.driver.tape.cut()
        self.frontier = self.now

    @property
    def instructions(self) -> int:
        """Instructions retired so far, with what software completed."""
        vm = self.vm
        completed: int = sum(vcpu.vmcs.native.retire for vcpu in vm.vcpus)
        return vm.pcpu.instructions + completed

    # ---- how ----

    def _goto_steps(self, steps: int) -> Stop:
        if self.now.steps >= steps:
            self.checkpoints.put(self.checkpoints.last(steps, 1 << 62, 1 << 62))
        self._run(Goal(steps=steps), Mode.OFF)
        return self._report()

    def _begin(self) -> Stop:
        self.checkpoints.put(self.checkpoints.first)
        return self._report(StopKind.BEGIN)

    def _go(self, goal: Goal) -> Stop:
        """Run forwards with the breakpoints armed."""
        self.stops.pass_here(self.now)
        why = self._run(goal, Mode.STOP)
        if why is Why.EXIT:
            hit = self.driver.stops.hit()
            assert hit is not None
            if self.stops.is_after(hit.id):
                self._run(Goal(handled=self.now.exits), Mode.OFF)
            return self._report(StopKind.EXIT, hit)
        hit = self.driver.stops.hit() if why in (Why.BREAKPOINT, Why.WATCHPOINT) else None
        return self._report(_KINDS[why], hit)

    def _run(self, goal: Goal, mode: Mode) -> Why:
        """Run to a goal, with checkpoints on the way where nobody has been yet."""
        self.stops.arm(self.driver, mode)
        try:
            while True:
                due = self.frontier.steps // self.interval * self.interval + self.interval
                edit = self.checkpoints.next_edit(self.now)
                why = self.driver.advance(self._bounded(goal, due, edit.moment if edit else None))
                now = self.now
                if edit is not None and now == edit.moment:
                    self.checkpoints.put(edit)
                    self.stops.arm(self.driver, mode)
                if now > self.frontier:
                    self.frontier = now
                if now.steps >= due and why is not Why.ENDED:
                    self.checkpoints.take()
                if why is not Why.GOAL or self.driver.is_at(goal):
                    return why
        finally:
            self.driver.stops.target(None, 0)
            if mode is Mode.STOP:
                self.stops.note_counts(self.driver)

    @staticmethod
    def _bounded(goal: Goal, due: int, edit: Moment | None) -> Goal:
        """Return the goal, or what comes before it: a checkpoint that is due, a change."""
        steps = due if goal.steps is None else min(due, goal.steps)
        moment = min((m for m in (goal.moment, edit) if m is not None), default=None)
        return Goal(steps, goal.cycle, goal.exits, goal.handled, moment, goal.vcpu)

    def _arrive(
        self, moment: Moment | None, kind: StopKind, hit: Hit | None = None
    ) -> Stop:  # fmt: skip
        if moment is None:
            return self._begin()
        self.goto(moment)
        if self.now != moment and not self.vm.is_stopped():
            raise InternalError(f"re-execution came to {self.now} instead of {moment}")
        kinds = {
            Kind.CODE: StopKind.BREAKPOINT, Kind.DATA: StopKind.WATCHPOINT, Kind.EXIT: StopKind.EXIT
        }  # fmt: skip
        return self._report(kinds[hit.kind] if hit is not None else kind, hit)

    def _report(self, kind: StopKind = StopKind.GOAL, hit: Hit | None = None) -> Stop:
        self.driver.stops.target(None, 0)  # a search that found nothing still has its last one
        if self.vm.is_stopped():
            kind = StopKind.ENDED
        elif kind is StopKind.GOAL and self.open_exit is not None:
            kind = StopKind.EXIT
        number, address, size, writes = None, None, 0, False
        if hit is not None:
            number, size, writes = hit.id, hit.size, hit.writes
            address = self.stops.address_of(hit)
        self.last = Stop(
            kind, self.now, self.vcpu.index, number, address, size, writes, self.open_exit,
            self.vm.result,
        )  # fmt: skip
        return self.last
