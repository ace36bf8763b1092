"""Tour 1.3: virtual CPUs take turns on one pCPU; devices fire between turns; idle time is skipped.

Everything is decided by cycles: a turn ends at the quantum, at a device's event or at a limit,
each on its exact instruction.
"""

from collections.abc import Callable
from typing import Final

from hwmodel.timing.clock import Clock
from vmm.devices.platform import Board
from vmm.vcpu import Activity, Vcpu

QUANTUM: Final = 1 << 18  # instructions; about 0.1 ms of guest time


class RoundRobin:
    """One pCPU's run queue. `stopped` says when the run is over; `idle` may wait in host time."""

    def __init__(
        self,
        vcpus: list[Vcpu],
        board: Board,
        clock: Clock,
        stopped: Callable[[], bool],
        idle: Callable[[int], bool],
    ) -> None:
        """Start with the first vCPU's turn."""
        self.vcpus: Final = vcpus
        self.board: Final = board
        self.clock: Final = clock
        self.stopped: Final = stopped
        self.idle: Final = idle
        self.turn = 0
        self.turn_ends = 0

    def run(self, limit: int) -> None:
        """Run until stopped, halted for good, or until `limit` (absolute, in cycles)."""
        while not self.stopped() and self.clock.now < limit:
            event = self.fire_due()
            vcpu = self.pick()
            if vcpu is None:
                if not self.pass_time(event, limit):
                    return
                continue
            ends = min(limit, self.turn_ends if len(self.vcpus) > 1 else limit)
            ends = ends if event is None else min(ends, event)
            vcpu.run(vcpu.pcpu.instructions + vcpu.vmcs.native.retire + ends - self.clock.now)

    def fire_due(self) -> int | None:
        """Fire devices that are due; return the next event's cycle."""
        event = self.board.next_event()
        while event is not None and event <= self.clock.now:
            self.board.fire()
            self.look_again()
            event = self.board.next_event()
        return event

    def look_again(self) -> None:
        """An interrupt line may have changed for any vCPU."""
        for vcpu in self.vcpus:
            vcpu.look_for_events = True

    def pick(self) -> Vcpu | None:
        """Return the vCPU whose turn it is; the turn passes on at its end or when it sleeps."""
        count = len(self.vcpus)
        if self.clock.now >= self.turn_ends:
            self.turn = (self.turn + 1) % count
            self.turn_ends = self.clock.now + QUANTUM
        for offset in range(count):
            index = (self.turn + offset) % count
            if self.vcpus[index].is_runnable():
                if offset:
                    self.turn, self.turn_ends = index, self.clock.now + QUANTUM
                return self.vcpus[index]
        return None

    def pass_time(self, event: int | None, limit: int) -> bool:
        """Nobody can run: go to the next event. False when none will ever come."""
        if event is None:
            return self.idle(-1)
        if self.idle(min(event, limit)):
            return True
        pcpu = self.vcpus[0].pcpu
        pcpu.advance(min(event, limit) - self.clock.now)
        return True

    def all_halted_for_good(self) -> bool:
        """Whether every vCPU sleeps."""
        return all(vcpu.activity is not Activity.RUNNING for vcpu in self.vcpus)
