"""The scheduler of a machine with several physical CPUs, or several VMs, from their options."""

from collections.abc import Callable, Sequence
from typing import Final

from vmm.sched.credit import Credit, Times
from vmm.sched.fair import Gangs, Turns
from vmm.sched.host import Guest, HostScheduler
from vmm.sched.task import Place, Policy, Task
from vmm.schedule import PolicyName, SchedOptions

_POLICIES: Final[dict[PolicyName, Callable[[Sequence[Place], Sequence[Task], Times], Policy]]] = {
    PolicyName.CREDIT: Credit,
    PolicyName.ROUND_ROBIN: Turns,
    PolicyName.GANG: Gangs,
}
_BOOST_NS: Final = 10_000_000  # a tick of Xen's: csched_vcpu_acct() ends a boost
_PERIOD_NS: Final = 30_000_000  # CSCHED_DEFAULT_TSLICE_MS: its accounting


def build_host(
    guests: Sequence[Guest], options: Sequence[SchedOptions], pcpus: int, *, numa: Sequence[int]
) -> HostScheduler:
    """Build the scheduler of a machine: policy, slice, nodes are those of the first guest."""
    first, clock = options[0], guests[0].clock
    places = [Place(n, n * first.nodes // pcpus) for n in range(pcpus)]
    tasks: list[Task] = []
    for number, (guest, wish) in enumerate(zip(guests, options, strict=True)):
        for index in range(len(guest.vcpus)):
            node = index * numa[number] // len(guest.vcpus)
            tasks.append(Task(
                len(tasks), number, wish.weight, wish.cap, _affinity(wish, pcpus),
                node=node if numa[number] > 1 and first.nodes > 1 else None,
                gang=first.policy is PolicyName.GANG, pcpu=min(_affinity(wish, pcpus)),
            ))  # fmt: skip
    ratelimit = first.ratelimit_ns if first.policy is PolicyName.CREDIT else 0
    times = Times(*(
        clock.cycles_of_ns(ns) for ns in (first.slice_ns, ratelimit, _PERIOD_NS, _BOOST_NS)
    ))  # fmt: skip
    priced = guests[0].pcpus[0].is_priced
    return HostScheduler(
        guests, places, tasks, _POLICIES[first.policy](places, tasks, times),
        window=first.window, switch=first.switch if priced else 0, ratelimit=times.ratelimit,
        wake_delay=first.wake,
    )  # fmt: skip


def _affinity(options: SchedOptions, pcpus: int) -> frozenset[int]:
    return options.affinity or frozenset(range(pcpus))
