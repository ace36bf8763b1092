"""What an experiment finds: a table, claims that hold or do not, and what its chart shows."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Cell = int | float | str
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence, and whether the figures bear it out."""

    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over one axis. `series` by name; logarithmic axes where that is said."""

    across: str
    up: str
    series: Mapping[str, Points]
    log_across: bool = False
    log_up: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """One run of an experiment. All figures are the model's: the same on every host."""

    name: str
    title: str
    words: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    claims: tuple[Claim, ...] = field(default=())
    chart: Chart | None = None

    def holds(self) -> bool:
        """Whether every claim does."""
        return all(claim.holds for claim in self.claims)

    def markdown(self) -> str:
        """The report as a page."""
        lines = [f"# {self.title}", "", self.words, ""]
        lines += [f"Made by `ring1 lab {self.name} --write docs/experiments`.", ""]
        lines += ["| " + " | ".join(self.columns) + " |", "|" + " ---: |" * len(self.columns)]
        lines += ["| " + " | ".join(map(text, row)) + " |" for row in self.rows]
        lines += ["", *(f"- {'holds' if c.holds else '**fails**'}: {c.text}" for c in self.claims)]
        if self.chart is not None:
            lines += ["", f"![{self.title}]({self.name}.svg)"]
        return "\n".join(lines).rstrip("\n") + "\n"

    def as_json(self) -> str:
        """The same for programs."""
        claims = [{"text": claim.text, "holds": claim.holds} for claim in self.claims]
        whole = {
            "name": self.name, "title": self.title, "columns": self.columns, "rows": self.rows,
            "claims": claims,
        }  # fmt: skip
        return json.dumps(whole, indent=1)


def text(cell: Cell) -> str:
    """Return a figure with four significant digits, anything else as it is."""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else cell
