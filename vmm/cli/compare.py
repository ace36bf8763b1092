"""``ring1 compare``: one image under several techniques, as a table, JSON or a chart."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm.observe.compare import Comparison

DIFFERENT = 66  # the guest saw a difference, or ended in different ways


def _text(name: str, metavar: str, words: str) -> Any:
    return typer.Option(name, metavar=metavar, help=words)


def compare(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="The kernel.")],
    way: Annotated[
        list[str] | None,
        _text("--way", "trap|vtx+shadow|vtx+ept|vtx+native|pv", "May be repeated [all but pv]."),
    ] = None,
    dialect: Annotated[
        list[str] | None, _text("--dialect", "kvm,-steal_time,...", "Paravirtual dialects [kvm].")
    ] = None,
    cpus: Annotated[str | None, _text("--cpus", "N", "Processors [1].")] = None,
    memory: Annotated[str | None, _text("--memory", "SIZE", "RAM [256M].")] = None,
    cmdline: Annotated[str | None, _text("--cmdline", "S", "Words for the guest.")] = None,
    initrd: Annotated[
        list[str] | None, _text("--initrd", "F", 'A module, "FILE words"; may be repeated.')
    ] = None,
    timing: Annotated[
        str | None, _text("--timing", "fast|cycle|detailed", "What a cycle is [cycle].")
    ] = None,
    cpu_model: Annotated[
        str | None, _text("--cpu-model", "NAME", "Processor [cascade-lake].")
    ] = None,
    max_cycles: Annotated[
        str | None, _text("--max-cycles", "N", "Stop each run after N cycles.")
    ] = None,
    max_instructions: Annotated[
        str | None, _text("--max-instructions", "N", "Stop each run after N instructions.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    chart: Annotated[str | None, _text("--chart", "F.svg", "Draw exits and cycles.")] = None,
) -> int:
    """Run IMAGE once in each way, and print exits, walks and cycles side by side."""
    from vmm.observe.compare import USUAL, WAYS
    from vmm.observe.compare import compare as run_all

    ways = tuple(dict.fromkeys(way or USUAL))
    for name in ways:
        if name not in WAYS:
            raise UsageError(f"--way {name!r} is not one of {', '.join(WAYS)}; choose one")
    target = _chart_file(chart)
    options = {
        "image": Path(image), "dialects": dialect, "cpus": cpus, "memory": memory,
        "cmdline": cmdline, "initrds": initrd, "timing": timing or "cycle", "cpu_model": cpu_model,
        "max_cycles": max_cycles, "max_instructions": max_instructions, "reboot": False,
    }  # fmt: skip
    found = run_all(options, ways)
    if json:
        typer.echo(found.to_json())
    else:
        _print(found)
    if target is not None:
        from vmm.cli.compare_chart import draw

        draw(found, target)
    return 0 if found.same else DIFFERENT


def _chart_file(chart: str | None) -> Path | None:
    """Refuse early what cannot be drawn or written."""
    if chart is None:
        return None
    from importlib.util import find_spec

    path = Path(chart)
    if path.suffix != ".svg":
        raise UsageError(f"--chart {chart!r} is no SVG file; write F.svg")
    if find_spec("matplotlib") is None:
        raise UsageError("--chart needs matplotlib; install it, or leave --chart out")
    try:
        path.touch()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(
            f"--chart {chart!r} cannot be written: {reason}; name a file in a writable folder"
        ) from None
    return path


def _print(found: "Comparison") -> None:
    """The table goes to stdout: it is what was asked for."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title_justify="left")
    table.add_column("")
    for run in found.runs:
        table.add_column(run.way, justify="right")
    before = ""
    for group, what, counts in found.rows():
        if before and group != before:
            table.add_section()
        before = group
        label = f"cycles: {what}" if group == "cycles" else what
        table.add_row(label, *(f"{count:,}" if count else "-" for count in counts))
    table.add_section()
    table.add_row("instructions", *(f"{run.instructions:,}" for run in found.runs))
    table.add_row("ended", *(f"{run.reason}, {run.status}" for run in found.runs))
    table.add_row("digest", *(run.digest[:12] for run in found.runs))
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    if not found.same:
        console.print("the guest did not end alike under each", soft_wrap=True)
