"""What a scheduling policy knows of a virtual CPU, and what it has to answer."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

DEFAULT_WEIGHT = 256  # Xen docs, "Credit Scheduler": a domain's default


class Priority(IntEnum):
    """Classes of Xen's credit scheduler; the higher one runs."""

    PARKED = 0
    """It has used up its cap, and waits for the next period."""
    OVER = 1
    UNDER = 2
    BOOST = 3


@dataclass(slots=True, eq=False)
class Task:
    """A virtual CPU of machine-wide number `number`, one of guest `guest`.

    `cap` is in percent of one physical CPU for the whole guest, 0 for none; `affinity` are the
    physical CPUs that it may run on; `node` is where its memory is, None if that is everywhere.
    """

    number: int
    guest: int = 0
    weight: int = DEFAULT_WEIGHT
    cap: int = 0
    affinity: frozenset[int] = frozenset({0})
    node: int | None = None
    gang: bool = False
    credit: int = 0
    """In cycles of one physical CPU."""
    priority: Priority = Priority.UNDER
    pcpu: int = 0
    """Where it ran last, or waits."""
    ready_at: int = 0
    """The cycle from which on it may run."""
    waits: bool = False
    """Whether it is in a queue."""
    active: bool = field(default=False)
    """Whether it ran or waited since the last accounting."""


@dataclass(frozen=True, slots=True)
class Place:
    """One physical CPU, as policies see it."""

    number: int
    node: int = 0


class Policy(Protocol):
    """Who runs where. Every method is told the cycle; nothing else is known of time."""

    def ready(self, task: Task, now: int) -> None:
        """It woke up."""

    def put_back(self, task: Task, now: int) -> None:
        """It had to leave its physical CPU, and could go on."""

    def blocked(self, task: Task, now: int) -> None:
        """It left its physical CPU to sleep."""

    def ran(self, task: Task, cycles: int) -> None:
        """It had a physical CPU for so long."""

    def pick(self, place: Place, now: int) -> Task | None:
        """Choose who runs there next, and take it out of its queue."""

    def slice_end(self, task: Task, now: int) -> int:
        """Return the cycle at which it has to leave at the latest."""

    def preempts(self, place: Place, current: Task, since: int, now: int) -> bool:
        """Whether the current one has to leave at once, which has it since cycle `since`."""

    def prefer(self, task: Task, place: Place) -> bool:
        """Let one who waits be picked there next: somebody yields to it. False if it does not."""

    def next_tick(self) -> int | None:
        """Return the cycle of the next `tick`."""

    def tick(self, now: int) -> None:
        """Account for a period."""
