"""What a machine's scheduler works with: guests, and physical CPUs with who has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hwmodel.pcpu import Pcpu
from hwmodel.timing.clock import Clock
from vmm.devices.platform import Board
from vmm.sched.placed import Placed
from vmm.sched.task import Place, Task
from vmm.vcpu import Vcpu


@dataclass(slots=True)
class Guest:
    """What a VM brings: its engine on each physical CPU, and who says whether it goes on.

    `stopped` and `idle` are as RoundRobin has them.
    """

    vcpus: Sequence[Vcpu]
    board: Board
    clock: Clock
    pcpus: Sequence[Pcpu]
    stopped: Callable[[], bool]
    idle: Callable[[int | None], bool]
    is_over: Callable[[], bool] = lambda: False
    """Whether it has ended for good, and others of its machine go on."""
    placed: Placed | None = None
    """Where turns are taken away."""


@dataclass(slots=True, eq=False)
class Core:
    """A physical CPU and who has it. `used` are the cycles that guests had of it so far."""

    place: Place
    now: int = 0
    task: Task | None = None
    since: int = 0
    slice_ends: int = 0
    last: Task | None = None
    used: int = 0
    switches: int = 0
    used_at: dict[int, int] = field(default_factory=dict)
    """By guest: what `used` was when its engine's clock was last right."""
    asked_last: bool = False
    """Who left is to be had by another."""
