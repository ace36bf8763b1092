"""One line of the report: a figure, the same of other machines, and what is to be reached."""

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Bound:
    """`value` is a ratio or the figure itself; it should be at most `limit`, or at least."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """A measured figure in `unit`; `peers` are other machines' figures for the same work."""

    section: str
    name: str
    unit: str
    ring1: float
    peers: dict[str, float] = field(default_factory=dict)
    bounds: tuple[Bound, ...] = ()
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        plain = asdict(self)
        plain["bounds"] = [asdict(bound) | {"met": bound.met} for bound in self.bounds]
        return plain


def middle(runs: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each name over several runs; a name missing from one is left out."""
    names = [name for name in runs[0] if all(name in run for run in runs)] if runs else []
    return {name: median(run[name] for run in runs) for name in names}
