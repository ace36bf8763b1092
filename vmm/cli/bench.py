"""``ring1 bench``: the numbers to reach, measured here and now beside their peers."""

import argparse
import json
import platform
from collections.abc import Callable
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from vmm.cli.benchmarks import (
    cases,
    costs,
    devices,
    linux,
    loop,
    repeat,
    startup,
    timing,
    tracing,
    travel,
    walks,
    xen,
)
from vmm.cli.benchmarks.machines import qemu_missing
from vmm.cli.benchmarks.row import Row
from vmm.errors import UsageError

Section = Callable[[int, int], list[Row]]
SECTIONS: dict[str, Section] = {
    "loop": loop.measure,
    "costs": costs.measure,
    "walks": walks.measure,
    "timing": timing.measure,
    "trace": tracing.measure,
    "travel": lambda runs, _percent: travel.measure(runs),
    "tests": cases.measure,
    "startup": lambda runs, _percent: startup.measure(runs),
    "linux": lambda runs, _percent: linux.measure(runs),
    "devices": lambda runs, _percent: devices.measure(runs),
    "xen": lambda runs, _percent: xen.measure(runs),
    "repeat": lambda _runs, _percent: repeat.measure(),
}
PEERS = ("qemu", "qemu q35", "unicorn")


class _Parser(argparse.ArgumentParser):
    """Errors as everywhere: one line, status 64."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see ring1 bench --help")


def bench(arguments: list[str]) -> int:
    """Measure, print; status 0 even where a number is not reached: it is a report, not a test."""
    if arguments[:1] == ["validate"]:
        from vmm.cli.validate import validate

        return validate(arguments[1:])
    try:
        options = _parser().parse_args(arguments)
    except SystemExit:  # --help
        return 0
    rows: list[Row] = []
    for name in options.only or SECTIONS:
        rows += SECTIONS[name](options.runs, options.percent)
    if options.json:
        print(json.dumps(_as_json(rows, options), indent=2))
    else:
        _print_tables(rows, options.runs)
    return 0


def _parser() -> _Parser:
    parser = _Parser(
        prog="ring1 bench",
        description="Measure speed on this host; validate: the cycle model.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not tables")
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="may be repeated")
    parser.add_argument("--runs", type=_positive, default=5, metavar="N", help="medians of N [5]")
    parser.add_argument(
        "--percent", type=_positive, default=100, metavar="P", help="length of each run [100]"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _as_json(rows: list[Row], options: argparse.Namespace) -> dict[str, Any]:
    return {
        "schema": 1,
        "host": platform.machine(),
        "runs": options.runs,
        "percent": options.percent,
        "missing": {"qemu": reason} if (reason := qemu_missing()) else {},
        "rows": [row.as_dict() for row in rows],
    }


def _print_tables(rows: list[Row], runs: int) -> None:
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 132
    for section in dict.fromkeys(row.section for row in rows):
        console.print(_table(section, [row for row in rows if row.section == section]))
    console.print(f"Medians of {runs} runs, in CPU time but for the start, which is wall time.")
    if reason := qemu_missing():
        console.print(f"No column for QEMU: {reason}.")


def _table(section: str, rows: list[Row]) -> Table:
    peers = [peer for peer in PEERS if any(peer in row.peers for row in rows)]
    table = Table(title=section, title_justify="left")
    table.add_column("what")
    for heading in ("ring1", *peers, "unit"):
        table.add_column(heading, justify="left" if heading == "unit" else "right")
    table.add_column("reach")
    table.add_column("note")
    for row in rows:
        figures = [_figure(row.ring1), *(_figure(row.peers.get(peer)) for peer in peers)]
        table.add_row(row.name, *figures, row.unit, _reach(row), row.note)
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _reach(row: Row) -> str:
    """The bounds in words: "0.9 qemu <= 1: yes"."""
    return "\n".join(
        f"{_figure(bound.value)} {bound.name} {'>=' if bound.at_least else '<='} {bound.limit:g}: "
        + ("yes" if bound.met else "[bold red]no[/]")
        for bound in row.bounds
    )
