"""Tour 1.3: virtual CPUs take turns on one pCPU; devices fire between turns; idle time is skipped.

Everything is decided by cycles: a turn ends at the quantum, at a device's event or at a limit,
each on its exact instruction.
"""

from collections.abc import Callable
from typing import Final

from hwmodel.timing.clock import Clock
from vmm.devices.platform import Board
from vmm.vcpu import Vcpu

QUANTUM: Final = 1 << 18  # instructions; about 0.1 ms of guest time


class RoundRobin:
    """One pCPU's run queue.

    `stopped` says when the run is over. `idle(cycle)` is told when nobody can run until `cycle`
    (None: ever); it may wait in host time, and says whether input came.
    """

    def __init__(
        self,
        vcpus: list[Vcpu],
        board: Board,
        clock: Clock,
        stopped: Callable[[], bool],
        idle: Callable[[int | None], bool],
    ) -> None:
        """Start with the first vCPU's turn."""
        self.vcpus: Final = vcpus
        self.board: Final = board
        self.clock: Final = clock
        self.stopped: Final = stopped
        self.idle: Final = idle
        self.current = vcpus[0]
        self.quantum = QUANTUM
        """Cycles of a turn."""
        self.turn = 0
        self.turn_ends = 0
        self.idle_limit = 0
        """Cycle up to which time may pass beyond the limit while nobody can run."""

    def run(self, limit: int) -> None:
        """Run until stopped, asleep for good, or until the clock reads `limit` cycles."""
        while not self.stopped() and self.clock.now < limit:
            turn = self.next_turn(limit)
            if turn is None:
                return
            vcpu, ends = turn
            vcpu.run(ends)

    def next_turn(self, limit: int) -> tuple[Vcpu, int] | None:
        """Let time pass until a vCPU can run; return it and where its turn ends. None: never."""
        while self.clock.now < limit:
            event = self.fire_due()
            if vcpu := self.pick():
                if vcpu is not self.current:
                    self.switch(vcpu)
                vcpu.look_for_events = True
                return vcpu, limit if len(self.vcpus) == 1 else min(limit, self.turn_ends)
            if not any(vcpu.can_wake() for vcpu in self.vcpus):
                return None
            if not self.pass_time(event, limit):
                return None
        return None

    def switch(self, vcpu: Vcpu) -> None:
        """Give the physical CPU to another one."""
        self.current.descheduled()
        self.current = vcpu
        vcpu.scheduled()

    def give_turn(self, index: int) -> bool:
        """Let vCPU `index` have the next turn, if it could run; whether it can."""
        if self.vcpus[index] is self.current or not self.vcpus[index].is_runnable():
            return False
        self.turn, self.turn_ends = index, self.clock.now + self.quantum
        return True

    def yield_turn(self) -> bool:
        """Let the next one that could run have the turn; whether there is one."""
        count, own = len(self.vcpus), self.current.index
        return any(self.give_turn((own + step) % count) for step in range(1, count))

    def sleep_until(self, cycle: int) -> None:
        """Nobody can run: let time pass."""
        self.vcpus[0].pcpu.idle(max(0, cycle - self.clock.now))

    def save(self) -> tuple[int, int, int]:
        """Whose turn it is, when it ends, and who ran last."""
        return self.turn, self.turn_ends, self.current.index

    def restore(self, state: tuple[int, int, int]) -> None:
        """Take over what save() returned."""
        self.turn, self.turn_ends, current = state
        self.current = self.vcpus[current]

    def fire_due(self) -> int | None:
        """Fire devices that are due; return the next event's cycle."""
        event = self.board.next_event()
        while event is not None and event <= self.clock.now:
            self.board.fire()
            event = self.board.next_event()
        return event

    def pick(self) -> Vcpu | None:
        """Return the vCPU whose turn it is; the turn passes on at its end or when it sleeps."""
        count = len(self.vcpus)
        if self.clock.now >= self.turn_ends and self.current.index == self.turn:
            self.turn_ends = max(self.turn_ends, self.clock.now + self.current.turn_over())
        if self.clock.now >= self.turn_ends:
            self.turn = (self.turn + 1) % count
            self.turn_ends = self.clock.now + self.quantum
        for offset in range(count):
            index = (self.turn + offset) % count
            if self.vcpus[index].is_runnable():
                if offset:
                    self.turn, self.turn_ends = index, self.clock.now + self.quantum
                return self.vcpus[index]
        return None

    def pass_time(self, event: int | None, limit: int) -> bool:
        """Nobody can run: skip to the next event. False when none will ever come."""
        latest = max(limit, self.idle_limit)
        target = None if event is None else min(event, latest)
        if self.idle(target):
            return True
        if target is None:
            return False
        pcpu = self.vcpus[0].pcpu
        for vcpu in self.vcpus:
            pcpu.settle(vcpu.vmcs)  # HLT itself is no idle time
        pcpu.idle(max(0, target - self.clock.now))
        return True
