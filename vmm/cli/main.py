"""The ``ring1`` command: its sub-commands, and how errors leave the process.

Whatever goes wrong leaves as one line on stderr, "ring1: ...", and a status (``vmm.errors``);
RING1_DEBUG=1 in the environment, or -v twice, shows the traceback as well. Sub-commands import
what they need when they are called: a tiny kernel starts within a quarter of a second.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from typer.main import get_command

from vmm.cli.unbuilt import UNBUILT
from vmm.errors import InternalError, NotBuiltError, Ring1Error, UsageError

# typer shows its parser's errors only through their public leaf; what we need is the branch.
PARSER_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
_SHARE = _PASS_ON | {"help_option_names": ["--help"]}  # the rest are those of ring1 run

_COMMANDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "run": ("run_command", "run", {}),
    "replay": ("replay_command", "replay", {}),
    "debug": ("debug_command", "debug", _SHARE),
    "compare": ("compare", "compare", {}),
    "explore": ("explore", "explore", {}),
    "lab": ("lab", "lab", {}),
    "symbols": ("symbols", "symbols", {}),
    "fuzz": ("fuzz", "fuzz", {}),
    "kut": ("kut", "kut", {}),
    "stat": ("stat", "stat", _SHARE),
    "report": ("report", "report", _SHARE),
    "doctor": ("main", "doctor", {}),
    "bench": ("main", "bench", _PASS_ON),
    "demo": ("main", "demo", _PASS_ON),
    "explain": ("explain", "app", {}),
    "snapshot": ("snapshot_command", "app", {}),
    "trace": ("trace", "app", {}),
}
"""Module, name in it (a function, or a group of commands), and how its words are parsed."""


def program(first: str = "") -> typer.Typer:
    """Return the program; where `first` is a command's name, with that command alone.

    The options of all the others take a tenth of a start.
    """
    app = typer.Typer(
        name="ring1",
        help="Run x86-64 kernels without hardware virtualization, and see every VM-exit.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback(invoke_without_command=True)(ring1)
    for name in [first] if first in _COMMANDS else _COMMANDS:
        module, attribute, settings = _COMMANDS[name]
        made = getattr(import_module(f"vmm.cli.{module}"), attribute)
        if isinstance(made, typer.Typer):
            app.add_typer(made, name=name)
        else:
            app.command(name, context_settings=settings)(made)
    for name, what in UNBUILT.items():
        _add_unbuilt(app, name, what)
    return app


def ring1(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Run x86-64 kernels without hardware virtualization, and see every VM-exit."""
    if show_version:
        typer.echo(f"ring1 {program_version()}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def doctor() -> int:
    """Show what this installation consists of and whether it works."""
    from vmm.cli.doctor import doctor as examine

    return examine()


def bench(context: typer.Context) -> int:
    """Measure speed on this host."""
    if find_spec("vmm.cli.bench") is None:
        raise NotBuiltError("ring1 bench is not built yet; see ring1 --help for what is")
    return int(import_module("vmm.cli.bench").bench(context.args))


def demo(context: typer.Context) -> int:
    """Boot a real kernel: demo linux fetches Debian's and boots it to a shell."""
    from vmm.cli.demo import demo_words

    words = demo_words(context.args)
    if words is None:
        return 0
    return int(_call(words))


def _add_unbuilt(app: typer.Typer, name: str, what: str) -> None:
    def refuse() -> None:
        raise NotBuiltError(f"ring1 {name} ({what}) is not built yet; see ring1 --help for what is")

    app.command(name, help=f"Not built yet: {what}.", context_settings=_PASS_ON)(refuse)


def program_version() -> str:
    """Return the installed version, or that of a bare source tree."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ring1")
    except PackageNotFoundError:
        return "(not installed)"


def _call(words: Sequence[str]) -> Any:
    app = program(words[0] if words else "")
    return get_command(app).main(args=list(words), prog_name="ring1", standalone_mode=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return the process status. Never raises for a fault of the user's."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = _call(words)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # SystemExit: how typer leaves on a broken pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered has no reader
        return 0
    except Exception as error:
        return _report(error, words)
    except KeyboardInterrupt:
        return 130
    return result if isinstance(result, int) else 0


def _report(error: Exception, words: Sequence[str]) -> int:
    """Print one line about ``error`` (and its traceback if asked for); return the status."""
    if os.environ.get("RING1_DEBUG") or "-vv" in words or words.count("-v") > 1:
        import traceback

        traceback.print_exception(error)
    known = _known(error)
    print(f"ring1: {known}", file=sys.stderr)
    return known.status


def _known(error: Exception) -> Ring1Error:
    """Turn any exception into one of ours."""
    if isinstance(error, Ring1Error):
        return error
    if isinstance(error, typer.Abort):
        return UsageError("stopped")
    if isinstance(error, PARSER_ERROR):
        text = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        context = getattr(error, "ctx", None)
        return UsageError(f"{text}; see {context.command_path if context else 'ring1'} --help")
    if isinstance(error, MemoryError):
        return UsageError("this host has not enough memory; give a smaller --memory")
    return InternalError(
        f"internal error: {type(error).__name__}: {error}; this is ours, RING1_DEBUG=1 shows where"
    )
