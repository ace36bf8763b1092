"""A comparison as a chart: exits by name, and cycles by heading, a bar for each way."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmm.observe.compare import Comparison

_SHOWN = 16  # of the exits, the most frequent
_BAR = 0.8  # of the room of one row, for all its bars


def draw(found: "Comparison", path: Path) -> None:
    """Write an SVG; the same comparison gives the same bytes."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "ring1"
    from matplotlib import pyplot as plt

    rows = list(found.rows())
    exits = [row for row in rows if row[0] == "exits" and row[1] not in ("total", "patched")]
    cycles = [row for row in rows if row[0] == "cycles" and any(row[2])]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 6), layout="constrained")
    _bars(left, exits[:_SHOWN], found, "exits")
    _bars(right, cycles, found, "cycles")
    left.legend([run.way for run in found.runs])
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def _bars(axes: Any, rows: list[tuple[str, str, tuple[int, ...]]], found: Any, what: str) -> None:
    height = _BAR / len(found.runs)
    for place in range(len(found.runs)):
        at = [row + place * height for row in range(len(rows))]
        axes.barh(at, [counts[place] for _, _, counts in rows], height)
    axes.set_yticks(
        [row + _BAR / 2 - height / 2 for row in range(len(rows))], [row[1] for row in rows]
    )
    axes.set_xscale("symlog", linthresh=1)
    axes.invert_yaxis()
    axes.set_xlabel(f"{what} (logarithmic)")
