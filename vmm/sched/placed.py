"""Placed preemption: whoever comes to an instruction loses its turn there, each n-th time.

An instruction within a lock's critical section is only reached by who holds the lock: "preempt
whoever holds this lock, here". Nothing else moves: stops are invisible to a guest.
"""

from collections.abc import Sequence
from typing import Final

from hwmodel.cpu.stops import EngineStops, Mode
from hwmodel.pcpu import Pcpu
from vmm.vcpu import Vcpu

_NUMBER: Final = 1  # of the one stop that each engine has


class Placed:
    """The place, in every engine of a guest."""

    def __init__(self, pcpus: Sequence[Pcpu], address: int, each: int) -> None:
        """`address` is linear; the turn is taken at arrival `each`, 2 `each`, and so on."""
        self.address: Final = address
        self.each: Final = each
        self.arrivals = 0
        self._stops: Final = {id(pcpu): pcpu.stops for pcpu in pcpus}
        self._seen: set[int] = set()
        for stops in self._stops.values():
            stops.at_code(_NUMBER, address, physical=False)
            stops.arm(Mode.STOP, renew=True)

    def _of(self, vcpu: Vcpu) -> EngineStops:
        return self._stops[id(vcpu.pcpu)]

    def entering(self, vcpu: Vcpu) -> None:
        """It goes on from where it was stopped: that arrival has been counted."""
        if vcpu.index not in self._seen:
            return
        if int(vcpu.regs.rip) == self.address:
            stops = self._of(vcpu)
            stops.passed(stops.steps)
        else:
            self._seen.discard(vcpu.index)

    def has_stopped(self, vcpu: Vcpu) -> bool:
        """Whether its run ended before the instruction; asked once."""
        stops = self._of(vcpu)
        if stops.hit() is None:
            return False
        stops.arm(Mode.STOP, renew=False)
        return True

    def takes_turn(self, vcpu: Vcpu) -> bool:
        """Count an arrival; whether it is one of those that lose their turn."""
        self._seen.add(vcpu.index)
        self.arrivals += 1
        return self.arrivals % self.each == 0
