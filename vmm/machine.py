"""Several VMs on one machine: their virtual CPUs share its physical ones.

    with VM(one, cpus=4, pcpus=2) as a, VM(other, pcpus=2, sched="credit,weight=512") as b:
        results = Machine(a, b).run()

Each VM has an engine for every physical CPU, so translations of several VMs do not push each other
out of its TLB; that those of one VM's virtual CPUs do is modelled. Policy, slice, window, cost of a
switch and nodes are the first VM's; weight, cap and affinity each VM's own.
"""

from typing import Final

from hwmodel.timing.clock import FOREVER
from vmm.errors import UsageError
from vmm.outcome import Result
from vmm.sched.core import Guest
from vmm.sched.host import HostScheduler
from vmm.sched.machine import build_host
from vmm.schedule import SchedOptions
from vmm.vcpu import Vcpu
from vmm.vm import VM


class _Share:
    """What one VM sees of the machine's scheduler."""

    def __init__(self, host: HostScheduler, number: int) -> None:
        self._host: Final = host
        self._number: Final = number
        self.idle_limit = 0

    @property
    def current(self) -> Vcpu:
        return self._host.currents[self._number]

    def run(self, limit: int) -> None:
        raise UsageError(_ALONE)

    def next_turn(self, limit: int) -> tuple[Vcpu, int] | None:
        raise UsageError(_ALONE)

    def sleep_until(self, cycle: int) -> None:
        raise UsageError(_ALONE)

    def give_turn(self, index: int) -> bool:
        return self._host.give_turn(index)

    def yield_turn(self) -> bool:
        return self._host.yield_turn()

    def save(self) -> tuple[int, int, int]:
        return self._host.save()

    def restore(self, state: tuple[int, int, int]) -> None:
        self._host.restore(state)


_ALONE: Final = "a VM of a machine does not run alone; call Machine.run()"


class Machine:
    """A machine with the VMs that it was made for; none of them may have run yet."""

    def __init__(self, *vms: VM) -> None:
        """Raise UsageError for VMs that differ in physical CPUs, clock rate or timing."""
        if not vms:
            raise UsageError("a machine without a VM runs nothing; give it one")
        alike = {(len(vm.pcpus), vm.clock.frequency, vm.config.timing) for vm in vms}
        if len(alike) > 1:
            raise UsageError("VMs of one machine have the same --pcpus, --freq and --timing")
        self.vms: Final = vms
        self._over: Final[set[int]] = set()
        guests = [self._guest(number, vm) for number, vm in enumerate(vms)]
        options = [vm.config.sched or SchedOptions() for vm in vms]
        numa = [vm.config.numa for vm in vms]
        self.host: Final = build_host(guests, options, len(vms[0].pcpus), numa=numa)
        for number, vm in enumerate(vms):
            vm.scheduler = _Share(self.host, number)

    def _guest(self, number: int, vm: VM) -> Guest:
        def is_over() -> bool:
            return number in self._over

        def stopped() -> bool:
            return not is_over() and vm.pauses()

        return Guest(vm.vcpus, vm.board, vm.clock, vm.pcpus, stopped, lambda _cycle: False, is_over)

    def run(self, until: int = FOREVER) -> list[Result | None]:
        """Run all to their ends, or to a cycle; None for those that have not ended.

        A VM that ended leaves its physical CPUs to the others.
        """
        while len(self._over) < len(self.vms) and self.host.time < until:
            limits = [vm.next_look() for n, vm in enumerate(self.vms) if n not in self._over]
            before = self.host.time, self._sum()
            self.host.run(min(*limits, until))
            for number, vm in enumerate(self.vms):
                if number not in self._over:
                    vm.between_turns()
                    if vm.is_stopped():
                        self._over.add(number)
            if (self.host.time, self._sum()) == before:
                break
        return [vm.result for vm in self.vms]

    def _sum(self) -> tuple[int, int]:
        return sum(vm.pcpus.instructions for vm in self.vms), len(self._over)
