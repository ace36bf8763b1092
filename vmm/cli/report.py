"""``ring1 report``: run a guest, and write one page of HTML about its exits."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vmm.cli.session import Onlooker
from vmm.errors import UsageError

if TYPE_CHECKING:
    from vmm import VM
    from vmm.observe.report.gather import Report
    from vmm.observe.stats import RunResult
    from vmm.observe.trace.recording import Recording


def report(
    context: typer.Context,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="F.html", help="Where the page goes.")
    ] = "ring1-report.html",
) -> int:
    """Run IMAGE with the options of ring1 run; write a page with charts, which needs no network."""
    from vmm.cli.run_command import config_of_words
    from vmm.cli.session import run_session

    config = config_of_words(context.args, "ring1 report")
    if config.trace is not None:
        raise UsageError("ring1 report makes a trace of its own; leave out --trace")
    path = Path(output)
    try:
        path.open("ab").close()
    except OSError as error:
        raise _unwritable(path, error) from None
    with tempfile.TemporaryDirectory(prefix="ring1-") as folder:
        return run_session(config, _Reporter(path, Path(folder) / "records.ring"))


def _unwritable(path: Path, error: OSError) -> UsageError:
    reason = (error.strerror or str(error)).lower()
    return UsageError(
        f"--output {str(path)!r} cannot be written: {reason}; name a file in a writable folder"
    )


class _Reporter(Onlooker):
    """Records the run, and writes the page at its end, however that comes."""

    def __init__(self, path: Path, records: Path) -> None:
        self._path, self._records = path, records
        self._recording: Recording | None = None

    @contextmanager
    def on(self, vm: "VM") -> Iterator[None]:
        """Record what runs within."""
        from vmm.observe.trace.recording import RecordFile, Recording
        from vmm.trace_options import TraceFile

        file = RecordFile(TraceFile.of(self._records))
        self._recording = Recording(vm, file, lambda line: typer.echo(f"ring1: {line}", err=True))
        try:
            yield
        finally:
            self._recording.stop()

    def report(self, vm: "VM", result: "RunResult", wall_seconds: float) -> None:
        """Write the page."""
        from vmm.observe.report.page import page

        text = page(self._gather(vm))
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            if self._path.is_file():
                beside.write_text(text, encoding="utf-8")
                beside.replace(self._path)
            else:
                self._path.write_text(text, encoding="utf-8")
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise _unwritable(self._path, error) from None
        total = sum(result.exits.values())
        typer.echo(
            f"{result.reason}, status {result.status}: {total:,} exits in {wall_seconds:.3f} s, "
            f"told in {self._path}",
            err=True,
        )

    def _gather(self, vm: "VM") -> "Report":
        from vmm.observe.report.gather import gather
        from vmm.observe.trace.records import opened
        from vmm.symbols.guest import GuestNames

        names = GuestNames(vm.config, vm.plan)
        image = names.settle(vm.current) if len(names.image) else None

        def symbol(rip: int) -> str:
            text = image.text(rip) if image is not None else ""
            return text.partition("<")[2].rstrip(">")

        with opened(self._records) as trace:
            return gather(trace, symbol=symbol)
