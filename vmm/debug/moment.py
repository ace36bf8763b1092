"""A point of a run, by which it is found again: the same in every run of the same image and inputs.

Between two neighbouring moments one of these happens: an instruction retires, an event is
delivered, an exit is taken, its handler runs, or nobody can run and time passes.
"""

from dataclasses import dataclass
from functools import total_ordering


@total_ordering
@dataclass(frozen=True, slots=True, eq=True)
class Moment:
    """`cycle` of the clock; `steps` made (instructions retired and events delivered); exits taken.

    `is_open`: the last exit has been taken, its handler has not run. All counts include what
    software completed for the guest.
    """

    cycle: int
    steps: int
    exits: int
    is_open: bool = False

    @property
    def key(self) -> tuple[int, int, int]:
        """By which moments are ordered; none of its parts ever falls in a run."""
        return self.cycle, self.steps, 2 * self.exits - self.is_open

    def __lt__(self, other: "Moment") -> bool:
        return self.key < other.key

    def __str__(self) -> str:
        at = " (before its handler)" if self.is_open else ""
        return f"cycle {self.cycle:,}, step {self.steps:,}, exit {self.exits:,}{at}"


START = Moment(0, 0, 0)
