"""``ring1 trace``: records of a run into the form that a tool reads."""

from pathlib import Path
from typing import Annotated

import typer

from vmm.errors import UsageError

app = typer.Typer(help="Traces; ring1 run --trace F writes them.", rich_markup_mode=None)


@app.callback()
def trace() -> None:
    """Work on traces; ring1 run --trace F writes them."""


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="F.ring", help="Records of a run.")],
    target: Annotated[
        str, typer.Argument(metavar="F.perfetto|F.txt|-", help="What to write; - is text, here.")
    ] = "-",
) -> int:
    """Make a trace of the records that a run left: one that was killed, or --trace F.ring."""
    import sys

    from vmm.observe.trace.convert import convert as write
    from vmm.observe.trace.ftrace import write_ftrace
    from vmm.observe.trace.records import opened
    from vmm.trace_options import TraceKind, kind_of

    if target == "-":
        with opened(Path(source)) as records:
            write_ftrace(records, sys.stdout.buffer)
        return 0
    kind = kind_of(target, "ring1 trace convert")
    if kind is TraceKind.RECORDS:
        raise UsageError(f"{target!r} would be records again; write F.perfetto or F.txt")
    try:
        write(Path(source), Path(target), kind)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(
            f"{target!r} cannot be written: {reason}; name a file in a writable folder"
        ) from None
    return 0
