"""``ring1 snapshot``: write a VM at one moment to a file, and go on from it."""

import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vmm.cli import debug_command
from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm.config import Config
    from vmm.debug.session import Session

app = typer.Typer(
    help="Write a VM at one moment to a file, and go on from it.", rich_markup_mode=None
)
_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}
_NOT_KEPT = ("record", "stats", "serial_file", "timeout", "gdb", "wait", "trace", "verbose")


@app.command(context_settings=_PASS_ON)
def save(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="F", help="The snapshot to write.")],
    at: Annotated[
        str, typer.Option(metavar="cycle:N|step:N|instruction:N|exit:N", help="When.")
    ] = "step:0",
) -> int:
    """Run IMAGE up to a point and write the whole VM to F; all options of run are taken."""
    from vmm import VM
    from vmm.debug import checkpoints, snapshot_file
    from vmm.debug.session import Session

    options = debug_command.options_of(context.args)
    config = debug_command.travelling(debug_command.parse(context.args))
    with VM(config.image, config=config, serial_output=_say) as vm:
        session = Session(vm)
        _go(session, at)
        kept = {name: value for name, value in options.items() if name not in _NOT_KEPT}
        taken = checkpoints.take(session.driver, None)
        size = snapshot_file.write(Path(file), taken, kept, config)
    print(f"ring1: {file}: {session.last.moment}, {size >> 10} KiB", file=sys.stderr)
    return 0


@app.command()
def run(
    file: Annotated[str, typer.Argument(metavar="F", help="A snapshot.")],
    stats: Annotated[
        str | None, typer.Option(metavar="table|json|FILE", help="Form of the statistics.")
    ] = None,
) -> int:
    """Go on from F to the end, as the run that was written would have."""
    from vmm import VM
    from vmm.cli.session import write_end
    from vmm.cli.sink import SerialSink
    from vmm.debug import checkpoints
    from vmm.debug.driver import Driver, Goal

    loaded, config = _load(Path(file), {"stats": stats})
    with ExitStack() as outputs:
        sink = outputs.enter_context(closing(SerialSink.open(config.serial_file)))
        began = time.monotonic()
        with VM(config.image, config=config, serial_output=sink.write) as vm:
            driver = Driver(vm)
            checkpoints.put(driver, loaded.checkpoint)
            driver.advance(Goal())
            result = vm.result
            assert result is not None
            sink.flush()
            write_end(config, result, vm, time.monotonic() - began)
        return result.status


@app.command()
def show(file: Annotated[str, typer.Argument(metavar="F", help="A snapshot.")]) -> int:
    """Say what F holds."""
    from vmm.debug import snapshot_file

    loaded = snapshot_file.read(Path(file))
    print(f"{loaded.checkpoint.moment}")
    for path, digest in loaded.files.items():
        print(f"{digest}  {path}")
    print(f"{len(loaded.checkpoint.snapshot.pages)} pages, {len(loaded.checkpoint.looks)} vCPUs")
    return 0


def _say(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def _go(session: "Session", at: str) -> None:
    kind, _, number = at.partition(":")
    ways = {
        "cycle": session.goto_cycle, "step": session.goto_step, "exit": session.goto_exit,
        "instruction": session.goto_instruction,
    }  # fmt: skip
    if kind not in ways or not number.isdigit():
        raise UsageError(f"--at {at!r} is no point of a run; write cycle:N, step:N or exit:N")
    if int(number):
        ways[kind](int(number))
    if session.vm.is_stopped():
        raise UsageError(f"--at {at} is behind the end of the run, which is {session.now}")


def _load(path: Path, outputs: dict[str, Any]) -> "tuple[Any, Config]":
    from vmm.cli import run_command
    from vmm.debug import snapshot_file
    from vmm.debug.recording import check_files

    loaded = snapshot_file.read(path)
    options = loaded.options | {name: value for name, value in outputs.items() if value}
    config = debug_command.travelling(run_command.config_of(options))
    check_files(loaded, config)
    return loaded, config
