"""``ring1 replay``: run again what ``ring1 run --record`` wrote down, without asking the host."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmm.cli import run_command

if TYPE_CHECKING:
    from vmm.config import Config
    from vmm.debug.recording import Record


def replay(
    file: Annotated[str, typer.Argument(metavar="F", help="A record of ring1 run --record F.")],
    image: Annotated[
        str | None, typer.Argument(metavar="[IMAGE]", help="The image, if it has moved.")
    ] = None,
    stats: Annotated[
        str | None,
        typer.Option(metavar="table|json|FILE", help="Form of the statistics [table]."),
    ] = None,
    trace: Annotated[
        str | None, typer.Option(metavar="F.perfetto|F.txt", help="Write a trace of it.")
    ] = None,
    serial_file: Annotated[
        str | None, typer.Option(metavar="F", help="Write serial output to F, not stdout.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Replay what is there of a truncated record.")
    ] = False,
) -> int:
    """Repeat a recorded run: the same instructions, exits and output, and the same end."""
    from vmm.cli.session import replay_session

    outputs = {"stats": stats, "trace": trace, "serial_file": serial_file}
    record, config = load(Path(file), image, outputs, partial=partial)
    return replay_session(record, config)


def load(
    path: Path, image: str | None, outputs: dict[str, Any], *, partial: bool = False
) -> "tuple[Record, Config]":
    """Read a record, and make its Config again. Raises UsageError if anything is another."""
    from vmm.debug.recording import check_files, read_record

    record = read_record(path, partial=partial)
    options = record.options | {name: value for name, value in outputs.items() if value}
    config = run_command.config_of(options | ({"image": image} if image else {}))
    check_files(record, config)
    return record, config
