"""A prediction beside a published figure."""

from dataclasses import asdict, dataclass
from typing import Any

WITHIN = 0.25
"""The error that a prediction should stay within."""


@dataclass(frozen=True, slots=True)
class Figure:
    """`predicted` comes out of a run; `published` is None where nobody published one.

    `in_file`: the figure, or one that it was made of, stands in the model's file, so that the row
    shows that the arithmetic holds and validates nothing. `note` says why the model is off.
    """

    section: str
    model: str
    what: str
    unit: str
    predicted: float
    published: float | None
    source: str
    in_file: bool = False
    note: str = ""

    @property
    def error(self) -> float | None:
        """How far the prediction is off, as a part of what was published."""
        return None if not self.published else self.predicted / self.published - 1

    @property
    def verdict(self) -> str:
        """Whether that is near enough, in a word."""
        if self.error is None:
            return "no figure"
        if self.in_file:
            return "in file"
        return "yes" if abs(self.error) <= WITHIN else "no"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"error": self.error, "verdict": self.verdict}


def number(value: float) -> str:
    """Three digits for small figures, whole ones for others."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def markdown(figures: list[Figure]) -> str:
    """Return a table of one section."""
    lines = [
        "| model | what | predicted | published | error | within 25 % | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in figures:
        published = "" if one.published is None else number(one.published)
        error = "" if one.error is None else f"{one.error:+.0%}"
        source = f"{one.source}. {one.note}" if one.note else one.source
        what = f"{one.what} ({one.unit})"
        shown = (one.model, what, number(one.predicted), published, error, one.verdict, source)
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)
