"""The scheduler that a VM's options ask for, and the face that every one of them has."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from hwmodel.timing.clock import Clock
from vmm.devices.platform import Board
from vmm.errors import UsageError
from vmm.sched.credit import Credit, Times
from vmm.sched.fair import Gangs, Turns
from vmm.sched.host import Guest, HostScheduler
from vmm.sched.round_robin import RoundRobin
from vmm.sched.task import Place, Policy, Task
from vmm.schedule import PolicyName, SchedOptions
from vmm.vcpu import Vcpu

_POLICIES: Final[dict[PolicyName, Callable[[Sequence[Place], Sequence[Task], Times], Policy]]] = {
    PolicyName.CREDIT: Credit,
    PolicyName.ROUND_ROBIN: Turns,
    PolicyName.GANG: Gangs,
}
_BOOST_NS: Final = 10_000_000  # a tick of Xen's: csched_vcpu_acct() ends a boost
_PERIOD_NS: Final = 30_000_000  # CSCHED_DEFAULT_TSLICE_MS: its accounting


class Scheduler(Protocol):
    """What a VM asks of whatever runs its virtual CPUs."""

    idle_limit: int

    @property
    def current(self) -> Vcpu:
        """The vCPU that ran last."""

    def run(self, limit: int) -> None:
        """Run until stopped, asleep for good, or until the clock reads `limit` cycles."""

    def next_turn(self, limit: int) -> tuple[Vcpu, int] | None:
        """Let time pass until a vCPU can run; return it and where its turn ends. None: never."""

    def sleep_until(self, cycle: int) -> None:
        """Nobody can run: let time pass."""

    def give_turn(self, index: int) -> bool:
        """Let vCPU `index` have the next turn, if it could run; whether it can."""

    def yield_turn(self) -> bool:
        """Let whoever waits have the next turn; whether somebody does."""

    def save(self) -> tuple[int, int, int]:
        """Whose turn it is."""

    def restore(self, state: tuple[int, int, int]) -> None:
        """Take over what save() returned."""


def turns_of(scheduler: Scheduler) -> RoundRobin:
    """Return the turns on one physical CPU. Raises UsageError where virtual CPUs share several."""
    if not isinstance(scheduler, RoundRobin):
        raise UsageError(
            "traces and debuggers know one physical CPU; leave --pcpus and --sched out"
        )
    return scheduler


def build_scheduler(
    vcpus: list[Vcpu], board: Board, clock: Clock, options: SchedOptions | None, pcpus: int, *,
    stopped: Callable[[], bool], idle: Callable[[int | None], bool], numa: int = 1,
) -> Scheduler:  # fmt: skip
    """Build turns on one physical CPU, or what `--sched` and `--pcpus` say."""
    if pcpus == 1 and options is None:
        return RoundRobin(vcpus, board, clock, stopped, idle)
    options = options or SchedOptions()
    engines = vcpus[0].machine
    guest = Guest(vcpus, board, clock, engines, stopped, idle)
    return build_host([guest], [options], pcpus, numa=[numa])


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
