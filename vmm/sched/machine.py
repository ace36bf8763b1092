"""The scheduler of a machine with several physical CPUs, or several VMs, from their options."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from vmm.sched.core import Guest
from vmm.sched.credit import Credit, Times
from vmm.sched.fair import Gangs, Turns
from vmm.sched.host import HostScheduler
from vmm.sched.placed import Placed
from vmm.sched.task import Place, Policy, Task
from vmm.schedule import PolicyName, SchedOptions

_POLICIES: Final[dict[PolicyName, Callable[[Sequence[Place], Sequence[Task], Times], Policy]]] = {
    PolicyName.CREDIT: Credit,
    PolicyName.ROUND_ROBIN: Turns,
    PolicyName.GANG: Gangs,
}
FAR_NS: Final = 57
"""Memory of another socket, beyond one's own: 138 ns against 81 (Intel Memory Latency Checker, two
sockets of Skylake-SP; of the order that SLIT's 21 against 10 says too)."""
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
    host = HostScheduler(
        guests, places, tasks, _POLICIES[first.policy](places, tasks, times),
        window=first.window, switch=first.switch if priced else 0, ratelimit=times.ratelimit,
        wake_delay=first.wake,
    )  # fmt: skip
    for number, guest in enumerate(guests):
        if (where := options[number].preempt) is not None:
            guest.placed = Placed(guest.pcpus, *where)
        if numa[number] > 1 and first.nodes > 1:
            _lay_out_nodes(guest, host, [t for t in tasks if t.guest == number], first.nodes)
    return host


def _lay_out_nodes(guest: Guest, host: HostScheduler, tasks: Sequence[Task], nodes: int) -> None:
    """A guest's memory lies on the nodes in equal shares: what is far costs, hints move tasks."""
    memory = guest.vcpus[0].memory

    def place_near(task: Task, gpa: int) -> None:
        hpa = memory.hpa(gpa)
        if hpa is not None:
            host.place_near(task, hpa * nodes // memory.size)

    for core, pcpu in zip(host.cores, guest.pcpus, strict=True):
        node = core.place.node
        far = pcpu.clock.cycles_of_ns(FAR_NS) if pcpu.is_priced else 0
        pcpu.set_near(memory.size * node // nodes, memory.size * (node + 1) // nodes, far)
    for vcpu, task in zip(guest.vcpus, tasks, strict=True):
        vcpu.place_near = partial(place_near, task)


def _affinity(options: SchedOptions, pcpus: int) -> frozenset[int]:
    return options.affinity or frozenset(range(pcpus))
