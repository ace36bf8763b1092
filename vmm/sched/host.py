"""Virtual CPUs of several guests on several physical ones, in virtual time.

Each physical CPU has a clock of its own. The one that is furthest behind runs next, up to a window
beyond the others: so none sees the others' stores much too early or late, and all of it is one
thread that does the same in every run.

1. Devices whose time has come fire, the policy accounts for its period, sleepers wake up.
2. Free physical CPUs are given to whom the policy picks. That costs cycles; who comes back to the
   physical CPU that it had finds its translations there still, since they carry its VPID.
3. The one furthest behind enters its guest until the window ends, an event is due, or its slice.
4. What happened is looked at: it goes on, it sleeps, or it gave up the rest of its slice.
"""

from collections.abc import Sequence
from typing import Final

from hwmodel.timing.ledger import Heading
from vmm.activity import Activity
from vmm.errors import UsageError
from vmm.sched.core import Core, Guest
from vmm.sched.homes import exchange
from vmm.sched.task import Place, Policy, Task
from vmm.vcpu import Vcpu


class HostScheduler:
    """The run loop of a machine. Its face is RoundRobin's, so that a VM can have either."""

    def __init__(
        self, guests: Sequence[Guest], places: Sequence[Place], tasks: Sequence[Task],
        policy: Policy, *, window: int, switch: int, ratelimit: int = 0, wake_delay: int = 0,
    ) -> None:  # fmt: skip
        """`tasks` are the virtual CPUs of all guests, in order; everything else is in cycles."""
        self.guests: Final = list(guests)
        self.cores: Final = [Core(place) for place in places]
        self.tasks: Final = list(tasks)
        self.policy: Final = policy
        self._vcpus: Final = [vcpu for guest in guests for vcpu in guest.vcpus]
        self._window, self._switch, self._ratelimit = window, switch, ratelimit
        self.wake_delay = wake_delay
        self.time = 0
        self.idle_limit = 0
        self.currents: Final = [guest.vcpus[0] for guest in guests]
        self._running: Core | None = None
        self._yields = False
        self._favoured: Task | None = None
        self._turn: tuple[Vcpu, int] | None = None
        self._taken = False
        self._delayed: list[Task] = []
        self._strangers: list[Task] = []
        for vcpu in self._vcpus:
            vcpu.became_ready = self._cut

    # ---- what RoundRobin has too ----

    @property
    def current(self) -> Vcpu:
        """The vCPU that ran last, of the first guest."""
        return self.currents[0]

    def run(self, limit: int) -> None:
        """Run until stopped, asleep for good, or until every clock reads `limit` cycles."""
        while not any(guest.stopped() for guest in self.guests) and self.time < limit:
            turn = self.next_turn(limit)
            if turn is None:
                break
            vcpu, ends = turn
            vcpu.run(ends)
        self._conclude()
        self._advance()
        for core in self.cores:
            for number in range(len(self.guests)):
                if core.task is None or core.task.guest != number:
                    self._catch_up(core, number, self.time)
        self._set_clocks()

    def next_turn(self, limit: int) -> tuple[Vcpu, int] | None:
        """Let time pass until a vCPU can run; return it and where its turn ends. None: never."""
        if self._turn is not None and self._goes_on(*self._turn):
            return self._turn
        self._conclude()
        while True:
            self._advance()
            if self.time >= limit:
                return None
            event = self._fire_due()
            self._wake()
            self._dispatch()
            core = self._furthest_behind()
            if core is None:
                if not self._pass_time(event, limit):
                    return None
            elif not self._must_leave(core):
                return self._enter(core, self._turn_end(core, event, limit))

    def give_turn(self, index: int) -> bool:
        """Let vCPU `index` of the guest that runs have its physical CPU next; whether it can."""
        core = self._running
        assert core is not None
        assert core.task is not None
        of_guest = [task for task in self.tasks if task.guest == core.task.guest]
        self._yields = self.policy.prefer(of_guest[index], core.place)
        self._favoured = of_guest[index] if self._yields else None
        return self._yields

    def yield_turn(self) -> bool:
        """Let whoever waits for this physical CPU have it; whether there may be one."""
        core = self._running
        assert core is not None
        self._yields = any(t.waits and core.place.number in t.affinity for t in self.tasks)
        return self._yields

    def sleep_until(self, cycle: int) -> None:
        """Nobody can run: let time pass."""
        self.time = max(self.time, cycle)
        self._set_clocks()

    def save(self) -> tuple[int, int, int]:
        """At power-on there is nothing to write down; `restore` says what is missing."""
        return (-1, -1, -1)

    def restore(self, state: tuple[int, int, int]) -> None:
        """Raise UsageError: the physical CPUs' clocks are no part of a snapshot."""
        raise UsageError("a snapshot knows one physical CPU; leave --pcpus and --sched out")

    def place_near(self, task: Task, node: int) -> None:
        """Its memory is on that node. It moves at once if that drives nobody from its own."""
        task.node = node
        self._strangers.append(task)

    def is_running(self, vcpu: Vcpu) -> bool:
        """Whether a virtual CPU has a physical one now."""
        task = self.tasks[self._vcpus.index(vcpu)]
        return any(core.task is task for core in self.cores)

    # ---- 1: time, devices, sleepers ----

    def _advance(self) -> None:
        """The machine's time is that of the busy physical CPU which is furthest behind."""
        busy = [core.now for core in self.cores if core.task is not None]
        self.time = max(self.time, min(busy, default=self.time))
        self._set_clocks()

    def _set_clocks(self) -> None:
        for guest in self.guests:
            guest.clock.now = self.time

    def _fire_due(self) -> int | None:
        """Fire what is due; return the cycle of what comes next, a device's or the policy's."""
        tick = self.policy.next_tick()
        if tick is not None and tick <= self.time:
            self._put_back_due()
            self.policy.tick(self.time)
        first: int | None = None
        for guest in self.guests:
            if guest.is_over():
                continue
            event = guest.board.next_event()
            while event is not None and event <= self.time:
                guest.board.fire()
                event = guest.board.next_event()
            if event is not None and (first is None or event < first):
                first = event
        return first

    def _put_back_due(self) -> None:
        """Slices that end with the period end before it is accounted for."""
        for core in self.cores:
            if core.task is not None and core.now >= core.slice_ends:
                self._leave(core)

    def _wake(self) -> None:
        taken = [core.task for core in self.cores]
        for task in [task for task in self._delayed if task.ready_at <= self.time]:
            self._delayed.remove(task)
            self.policy.ready(task, self.time)
        for task, vcpu in zip(self.tasks, self._vcpus, strict=True):
            if task.waits or task in taken or task in self._delayed:
                continue
            if self.guests[task.guest].is_over() or not vcpu.is_runnable():
                continue
            # Whoever wakes it may be behind in time, by a window: it slept until it slept.
            vcpu.runnable_since = max(vcpu.runnable_since, task.ready_at)
            task.ready_at = vcpu.runnable_since + self.wake_delay
            if task.ready_at > self.time and self.wake_delay:
                self._delayed.append(task)
            else:
                self.policy.ready(task, self.time)

    def _cut(self) -> None:
        """Somebody woke up: the turn that runs ends with its exit, so that it can be seen to."""
        if self._running is not None and self._running.task is not None:
            vcpu = self._vcpus[self._running.task.number]
            vcpu.turn_ends, vcpu.look_for_events = 0, True

    def _pass_time(self, event: int | None, limit: int) -> bool:
        """Nobody can run: skip to the next event. False when none will ever come."""
        events = [task.ready_at for task in self._delayed]
        if event is not None:
            events.append(event)
        tick = self.policy.next_tick()
        if tick is not None and any(task.waits for task in self.tasks):
            events.append(tick)
        latest = max(limit, self.idle_limit)
        target = min([*events, latest]) if events else None
        if not any(
            vcpu.can_wake() for guest in self.guests if not guest.is_over() for vcpu in guest.vcpus
        ):
            return False
        if len(self.guests) == 1 and self.guests[0].idle(target):
            return True
        if target is None:
            return False
        for vcpu in self._vcpus:
            vcpu.pcpu.settle(vcpu.vmcs)  # HLT itself is no idle time
        self.time = max(self.time, target)
        self._set_clocks()
        return True

    # ---- 2: who runs where ----

    def _dispatch(self) -> None:
        for core in sorted(self.cores, key=lambda c: (c.asked_last, c.now, c.place.number)):
            core.asked_last = False
            if core.task is not None:
                continue
            task = self.policy.pick(core.place, self.time)
            if task is None:
                core.now = max(core.now, self.time)
            else:
                self._give(core, task)

    def _give(self, core: Core, task: Task) -> None:
        vcpu = self._vcpus[task.number]
        guest = self.guests[task.guest]
        core.now = max(core.now, task.ready_at)
        self._catch_up(core, task.guest, core.now)
        vcpu.move_to(guest.pcpus[core.place.number])
        core.task, core.since = task, core.now
        vcpu.scheduled()
        if core.last is not task:
            core.switches += 1
            if self._switch:
                vcpu.pcpu.book(vcpu.vmcs, Heading.HYPERVISOR, self._switch)
                core.used += self._switch
        core.last, core.now = task, guest.clock.now
        core.slice_ends = self.policy.slice_end(task, core.now)

    def _catch_up(self, core: Core, number: int, now: int) -> None:
        """Bring a guest's engine to the time of its physical CPU: it was idle, or others'."""
        guest = self.guests[number]
        engine = guest.pcpus[core.place.number]
        engine.idle(0)
        gap = now - guest.clock.now
        others = min(gap, core.used - core.used_at.get(number, 0))
        core.used_at[number] = core.used
        if others > 0:
            engine.pass_time(Heading.STEAL, others)
            gap -= others
        if gap > 0:
            engine.idle(gap)

    def _furthest_behind(self) -> Core | None:
        busy = [core for core in self.cores if core.task is not None]
        return min(busy, key=lambda core: (core.now, core.place.number), default=None)

    def _must_leave(self, core: Core) -> bool:
        """Take the physical CPU away if the slice is over, another goes first, or it sleeps."""
        assert core.task is not None
        vcpu = self._vcpus[core.task.number]
        self.guests[core.task.guest].clock.now = core.now
        if not vcpu.is_runnable() or self.guests[core.task.guest].is_over():
            self._sleep(core)
            return True
        if core.now >= core.slice_ends:
            core.slice_ends += vcpu.turn_over()
        over = core.now >= core.slice_ends
        if over or self.policy.preempts(core.place, core.task, core.since, core.now):
            self._leave(core)
            return True
        return False

    def _leave(self, core: Core) -> None:
        task = core.task
        assert task is not None
        self.guests[task.guest].clock.now = task.ready_at = core.now
        self._vcpus[task.number].descheduled()
        core.task = None
        self.policy.put_back(task, core.now)

    def _sleep(self, core: Core) -> None:
        task = core.task
        assert task is not None
        self.guests[task.guest].clock.now = core.now
        vcpu = self._vcpus[task.number]
        vcpu.pcpu.settle(vcpu.vmcs)
        core.now = task.ready_at = self.guests[task.guest].clock.now
        vcpu.descheduled()
        core.task = None
        self.policy.blocked(task, core.now)

    # ---- 3: a turn ----

    def _turn_end(self, core: Core, event: int | None, limit: int) -> int:
        others = [c.now for c in self.cores if c.task is not None and c is not core]
        ends = [limit, core.slice_ends, *(task.ready_at for task in self._delayed)]
        if others:
            ends.append(min(others) + self._window)
        if (tick := self.policy.next_tick()) is not None:
            ends.append(tick)
        if event is not None:
            ends.append(event)
        if core.now < core.since + self._ratelimit:
            ends.append(core.since + self._ratelimit)
        return max(core.now + 1, min(ends))

    def _enter(self, core: Core, ends: int) -> tuple[Vcpu, int]:
        assert core.task is not None
        vcpu = self._vcpus[core.task.number]
        self.currents[core.task.guest] = vcpu
        self.guests[core.task.guest].clock.now = core.now
        vcpu.look_for_events = True
        placed = self.guests[core.task.guest].placed
        if placed is not None:
            placed.entering(vcpu)
        self._running, self._yields, self._favoured = core, False, None
        self._turn, self._taken = (vcpu, ends), False
        return self._turn

    def _goes_on(self, vcpu: Vcpu, _ends: int) -> bool:
        """Whether it was only stopped at a place where turns are taken, and keeps this one."""
        assert self._running is not None
        assert self._running.task is not None
        placed = self.guests[self._running.task.guest].placed
        if placed is None or not placed.has_stopped(vcpu):
            return False
        self._taken = placed.takes_turn(vcpu)
        return not self._taken

    # ---- 4: what came of it ----

    def _conclude(self) -> None:
        core, self._running, self._turn = self._running, None, None
        if core is None or core.task is None:
            return
        task, vcpu = core.task, self._vcpus[core.task.number]
        now = self.guests[task.guest].clock.now
        core.used += now - core.now
        core.used_at[task.guest] = core.used
        self.policy.ran(task, now - core.now)
        core.now = now
        if vcpu.activity is not Activity.RUNNING:
            self._sleep(core)
        elif self._yields or self._taken:
            if self._taken:  # whoever waits of this guest has the next one
                of_guest = (t for t in self.tasks if t.waits and t.guest == task.guest)
                self._favoured = next(of_guest, None)
            self._leave(core)
            if self._favoured is not None:
                self.policy.prefer(self._favoured, core.place)
        self._yields = False
        while self._strangers:
            for mover in exchange(self._strangers.pop(0), self.cores):
                mover.asked_last = True
                self._leave(mover)
