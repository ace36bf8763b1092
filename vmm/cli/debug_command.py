"""``ring1 debug``: on a terminal full-screen, or verbs from a file, for people or for programs."""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from vmm.cli import run_command
from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm import VM
    from vmm.config import Config
    from vmm.debug.session import Session
    from vmm.debug.shell import Shell
    from vmm.host.tape import Tape


def debug(
    context: typer.Context,
    commands: Annotated[
        str | None,
        typer.Option("--commands", metavar="FILE", help="Carry out the verbs in FILE (-: stdin)."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Answer each verb with one line of JSON.")
    ] = False,
    record: Annotated[
        str | None,
        typer.Option("--replay", metavar="F", help="Debug a run that ring1 run --record wrote."),
    ] = None,
    dap: Annotated[
        bool, typer.Option("--dap", help="Speak the Debug Adapter Protocol with an editor.")
    ] = False,
    checkpoints: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory for checkpoints [twice the guest's]."),
    ] = None,
) -> int:
    """Step a kernel through its VM-exits, forwards and backwards; all options of run are taken."""
    if dap:
        return _serve_editor(context.args, limit=checkpoints)
    config, tape = _what(context.args, record)
    if commands is None and as_json:
        raise UsageError("--json answers verbs of a file; give --commands FILE (- is stdin)")
    if commands is None and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "ring1 debug needs a terminal; give --commands FILE to run verbs from FILE"
        )
    limit = None if checkpoints is None else _size(checkpoints)
    with ExitStack() as stack:
        lines = None if commands is None else stack.enter_context(_open(commands))
        return _debug(config, tape, lines, commands or "", as_json=as_json, limit=limit)


def _serve_editor(words: list[str], *, limit: str | None) -> int:
    """Standard input and output belong to the editor; it may name the image, or `words` do."""
    from vmm import VM
    from vmm.dap.adapter import Adapter
    from vmm.dap.channel import Channel

    if words:
        parse(list(words))  # what is wrong with them is said at once

    def make(arguments: dict[str, Any], serial: Callable[[bytes], None]) -> "VM":
        image = arguments.get("image") or arguments.get("program")
        more = [str(word) for word in arguments.get("arguments", arguments.get("args", []))]
        config = travelling(parse([*words, *more, *([str(image)] if image else [])]))
        return VM(config.image, config=config, serial_output=serial)

    size = None if limit is None else _size(limit)
    return Adapter(Channel(0, 1), make, limit=size).run()


def parse(arguments: list[str]) -> "Config":
    """Read the options of `ring1 run`, IMAGE among them. Raises UsageError."""
    return run_command.config_of(options_of(arguments))


def options_of(arguments: list[str]) -> dict[str, Any]:
    """Return the options of `ring1 run` as typed, by their names there."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(run_command.run)
    command: Any = typer.main.get_command(app)
    with command.make_context("ring1", list(arguments)) as inner:
        return dict(inner.params)


def travelling(config: "Config") -> "Config":
    """Keep what the guest writes to disks in memory, so that going back takes it back."""
    disks = tuple(replace(disk, snapshot=not disk.readonly) for disk in config.disks)
    return replace(config, disks=disks)


def _size(text: str) -> int:
    from vmm.config import parse_size

    return parse_size(text)


def _open(name: str) -> IO[str]:
    try:
        return sys.stdin if name == "-" else Path(name).open(encoding="utf-8")
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise UsageError(f"--commands {name!r} cannot be read: {words}") from None


def _what(arguments: list[str], record: str | None) -> "tuple[Config, Tape | None]":
    """Return what to run, and what comes from outside if that is recorded."""
    if record is None:
        return travelling(parse(arguments)), None
    from vmm.cli.replay_command import load
    from vmm.host.tape import Tape

    if len(arguments) > 1:
        raise UsageError(f"--replay {record} has its own options; give IMAGE at most")
    loaded, config = load(Path(record), arguments[0] if arguments else None, {}, partial=True)
    return travelling(config), Tape(loaded.entries, closed=True)


def _debug(
    config: "Config", tape: "Tape | None", lines: IO[str] | None, name: str, *, as_json: bool,
    limit: int | None,
) -> int:  # fmt: skip
    from vmm.debug.session import Session
    from vmm.debug.shell import Shell

    with _machine(config, tape) as vm:
        session = Session(vm, limit=limit)
        if lines is None:
            return _full_screen(session)
        return _follow(Shell(session), lines, name, as_json=as_json)


def _machine(config: "Config", tape: "Tape | None") -> "VM":
    """The VM to debug: a kernel's, or that of a test's case (NAME.toml) at its start."""
    if isinstance(config.image, Path) and config.image.suffix == ".toml":
        from vmm.testing.replay import first_case, guest_at_start

        return guest_at_start(first_case(config.image))
    from vmm import VM

    return VM(config.image, config=config, tape=tape)


def _full_screen(session: "Session") -> int:
    from vmm.cli.debugger.app import Debugger

    Debugger(session).run()
    return 0


def _follow(shell: "Shell", lines: IO[str], name: str, *, as_json: bool) -> int:
    """Carry out verbs until the file ends or one fails."""
    for number, line in enumerate(lines, 1):
        try:
            answer = shell.execute(line)
        except UsageError as error:
            if as_json:
                print(json.dumps({"verb": line.strip(), "error": str(error)}), flush=True)
                continue
            raise UsageError(f"{name}:{number}: {error}") from None
        if as_json and line.strip():
            print(json.dumps({"verb": line.strip()} | answer.data), flush=True)
        elif answer.lines:
            print(f"> {line.strip()}", *answer.lines, sep="\n", flush=True)
        if answer.ends:
            break
    return 0
