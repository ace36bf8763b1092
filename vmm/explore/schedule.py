"""A schedule: where a virtual CPU loses its turn, and to whom. Everything else follows."""

import re
from dataclasses import dataclass
from itertools import pairwise

from vmm.errors import UsageError

_POINT = re.compile(r"([0-9]{1,12})>([0-9]{1,3})")


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """Before instruction `step`, counted on all virtual CPUs, `vcpu` gets the turn."""

    step: int
    vcpu: int

    def __str__(self) -> str:
        return f"{self.step}>{self.vcpu}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Preemptions in order. Else the turn passes on only from who sleeps, yields or PAUSEs."""

    points: tuple[Point, ...] = ()

    @classmethod
    def of(cls, text: str) -> "Schedule":
        """Read "120>1,340>0", or "" for no preemption. Raises UsageError."""
        points = []
        for word in filter(None, text.replace(" ", "").split(",")):
            found = _POINT.fullmatch(word)
            if found is None:
                raise UsageError(f"{word!r} is no preemption; write STEP>VCPU, as in 120>1,340>0")
            points.append(Point(int(found[1]), int(found[2])))
        if any(a.step >= b.step for a, b in pairwise(points)):
            raise UsageError(f"schedule {text!r} goes back in time; put later steps last")
        return cls(tuple(points))

    def __str__(self) -> str:
        return ",".join(map(str, self.points))

    def then(self, point: Point) -> "Schedule":
        """With one more preemption."""
        return Schedule((*self.points, point))
