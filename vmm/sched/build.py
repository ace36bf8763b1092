"""The scheduler that a VM's options ask for, and the face that every one of them has."""

from collections.abc import Callable
from typing import Protocol

from hwmodel.timing.clock import Clock
from vmm.devices.platform import Board
from vmm.errors import UsageError
from vmm.sched.round_robin import RoundRobin
from vmm.schedule import SchedOptions
from vmm.vcpu import Vcpu


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
    from vmm.sched.core import Guest  # turns need none of it
    from vmm.sched.machine import build_host

    options = options or SchedOptions()
    engines = vcpus[0].machine
    guest = Guest(vcpus, board, clock, engines, stopped, idle)
    return build_host([guest], [options], pcpus, numa=[numa])
