"""One ``ring1 run`` from first to last: open what is written, attend the VM, report.

The order is the contract: nothing runs before every output can be written, the terminal is back
before a word of the report is printed, and statistics come last on stderr.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmm.cli.attendant import Attendant
from vmm.cli.screen import ScreenView
from vmm.cli.sink import SerialSink, StatsFile
from vmm.config import Config, Stats
from vmm.errors import UsageError
from vmm.observe.screen import capture
from vmm.outcome import Result, StopReason, exit_status

if TYPE_CHECKING:
    from vmm import VM
    from vmm.debug.recording import Record, Recorder
    from vmm.host.stream import Stream
    from vmm.observe.stats import RunResult
    from vmm.observe.trace.recording import RecordFile

_NOT_RECORDED = (
    "record", "stats", "serial_file", "timeout", "gdb", "wait", "trace", "verbose",
)  # fmt: skip
STOPPED_STATUS = exit_status(StopReason.UNHANDLED)


class Onlooker:
    """Who looks at a run from the command line; the statistics of `ring1 run` are then left out.

    This one does nothing.
    """

    shows_serial = True
    """Whether serial output goes to stdout when --serial-file names no other place."""

    def between(self, poll: Callable[[], bytes]) -> Callable[[], bytes]:
        """Return a `poll` that does something more, many times a second."""
        return poll

    @contextmanager
    def on(self, vm: "VM") -> Iterator[None]:
        """Look at what runs within."""
        del vm
        yield

    def report(self, vm: "VM", result: "RunResult", wall_seconds: float) -> None:
        """Say what was seen, when the guest has ended."""


def run_session(
    config: Config, onlooker: Onlooker | None = None, options: Mapping[str, Any] | None = None
) -> int:
    """Run what ``config`` says; return the process status. ``options`` are as typed."""
    from vmm import VM

    looks, config = onlooker or Onlooker(), _kept(config)
    with ExitStack() as outputs:
        report = (
            outputs.enter_context(closing(StatsFile(config.stats_file)))
            if config.stats_file
            else None
        )
        records = _record_file(config, outputs)
        recorder = _recorder(config, options or {}, outputs)
        sink = outputs.enter_context(closing(SerialSink.open(config.serial_file)))
        door = outputs.enter_context(closing(listen(config))) if config.gdb else None
        began = time.monotonic()
        attendant = Attendant(config.timeout, sink.flush)
        view = ScreenView(live=config.screen and attendant.interactive and os.isatty(1))
        hides_serial = (view.live or not looks.shows_serial) and config.serial_file is None
        with VM(
            config.image,
            config=config,
            serial_output=_drop if hides_serial else sink.write,
            poll_input=looks.between(view.between(attendant.poll) if view.live else attendant.poll),
            wait_idle=attendant.wait if attendant.interactive else None,
            log=_print_line,
            tape=recorder.tape if recorder is not None else None,
        ) as vm:
            _connect(vm, attendant, sink)
            with _traced(vm, records), attendant, view.on(lambda: capture(vm)), looks.on(vm):
                result = _run(vm, recorder) if door is None else serve(vm, door)
            sink.flush()
            if config.screen and not sink.closed:
                SerialSink(1).write(capture(vm).text().encode() + b"\n")
            wall_seconds = time.monotonic() - began
            _print_message(result, vm, quiet=sink.closed)
            if onlooker is None:
                _write_statistics(config, result, wall_seconds, report)
            else:
                onlooker.report(vm, result, wall_seconds)
        return result.status


def _connect(vm: "VM", attendant: Attendant, sink: SerialSink) -> None:
    attendant.interrupt, attendant.wake = vm.interrupt, vm.wake
    sink.on_closed = lambda: vm.interrupt("interrupted")
    vm.hear_lines()


def replay_session(record: "Record", config: Config) -> int:
    """Run a record again; return the process status."""
    from vmm import VM
    from vmm.debug.recording import check_end, run_driven
    from vmm.host.tape import Tape

    with ExitStack() as outputs:
        report = (
            outputs.enter_context(closing(StatsFile(config.stats_file)))
            if config.stats_file
            else None
        )
        records = _record_file(config, outputs)
        sink = outputs.enter_context(closing(SerialSink.open(config.serial_file)))
        began, attendant = time.monotonic(), Attendant(None, sink.flush)
        tape = Tape(record.entries, closed=True)
        with VM(
            config.image, config=config, serial_output=sink.write, log=_print_line, tape=tape
        ) as vm:  # fmt: skip
            attendant.interrupt = vm.interrupt
            vm.hear_lines()
            with _traced(vm, records), attendant:
                driver, result = run_driven(vm)
            sink.flush()
            _print_message(result, vm, quiet=sink.closed)
            _write_statistics(config, result, time.monotonic() - began, report)
            if result.reason != "interrupted" or driver.tape.peek() is None:
                check_end(record, vm, driver)
        return result.status


def _recorder(config: Config, options: Mapping[str, Any], outputs: ExitStack) -> "Recorder | None":
    """Open what --record writes to."""
    if not options.get("record"):
        return None
    if config.gdb is not None:
        raise UsageError("--record and --gdb do not go together; record, then ring1 debug --replay")
    from vmm.debug.recording import Recorder

    kept = {name: value for name, value in options.items() if name not in _NOT_RECORDED}
    recorder = Recorder(Path(options["record"]), kept, config)
    return outputs.enter_context(closing(recorder))


def _run(vm: "VM", recorder: "Recorder | None") -> "Result":
    """Run to the end, and write down how that was if the run is recorded."""
    if recorder is None:
        return vm.run()
    from vmm.debug.recording import run_driven

    driver, result = run_driven(vm)
    recorder.finish(vm, driver, result)
    if recorder.failure:
        print(f"ring1: --record: {recorder.failure}; the record is cut off", file=sys.stderr)
    return result


def write_end(config: Config, result: Result, vm: "VM", wall_seconds: float) -> None:
    """Say how a run ended, and its statistics."""
    with ExitStack() as outputs:
        name = config.stats_file
        report = outputs.enter_context(closing(StatsFile(name))) if name else None
        _print_message(result, vm, quiet=False)
        _write_statistics(config, result, wall_seconds, report)


def _record_file(config: Config, outputs: ExitStack) -> "RecordFile | None":
    """Open what --trace writes to."""
    if config.trace is None:
        return None
    from vmm.observe.trace.recording import RecordFile

    return outputs.enter_context(closing(RecordFile(config.trace)))


@contextmanager
def _traced(vm: "VM", records: "RecordFile | None") -> Iterator[None]:
    """Record what runs, if that is asked for; the trace is written however the run ends."""
    if records is None:
        yield
        return
    from vmm.observe.trace.recording import Recording

    recording = Recording(vm, records, _print_line)
    try:
        yield
    finally:
        recording.stop()


def _kept(config: Config) -> Config:
    """Return what to run: under gdb disks are written to in memory, so that time can go back."""
    if config.gdb is None:
        return config
    from vmm.cli.debug_command import travelling

    return travelling(config)


def listen(config: Config) -> "Stream":
    """Open the door for gdb. Raises UsageError if the port is taken."""
    from vmm.host.endpoint import Endpoint
    from vmm.host.stream import Stream

    assert config.gdb is not None
    return Stream.listening(Endpoint(*config.gdb), "--gdb")


def serve(vm: "VM", door: "Stream") -> "RunResult":
    """Run under a debugger, who may come late, or never."""
    from vmm.debug.session import Session
    from vmm.gdb.server import GdbServer

    config = vm.config
    server = GdbServer(Session(vm), door, has_monitor=config.gdb_monitor, say=_print_line)
    waits = "; nothing runs before" if config.wait else ""
    _print_line(f"gdb can connect: target remote {door.address}{waits}")
    return server.run(waits=config.wait)


def _print_line(line: str) -> None:
    """Say what a device complains of."""
    print(f"ring1: {line}", file=sys.stderr)


def _drop(_data: bytes) -> None:
    """Serial output while the screen has the terminal: --serial-file keeps it."""


def _print_message(result: "RunResult", vm: "VM", *, quiet: bool) -> None:
    """Say why the guest ended, unless it ended well or its reader has gone."""
    if result.message and not quiet:
        print(f"ring1: {result.message}", file=sys.stderr)
        if result.status == STOPPED_STATUS:
            for line in result.last_exits:
                print(f"  exit before: {line}", file=sys.stderr)
        for line in call_chain(vm):
            print(f"  {line}", file=sys.stderr)
    if not quiet:
        for line in referee_lines(vm):
            print(line, file=sys.stderr)


def referee_lines(vm: "VM") -> list[str]:
    """Return what a guest of Xen's did against its ABI; nothing of one that kept to it."""
    if vm.domain is None and "xen" not in vm.config.dialects:
        return []
    from vmm.pv.xen.referee import summary

    dialect: Any = None if vm.domain else vm.dialects["xen"]
    book = vm.domain.engine if vm.domain else dialect.book
    first, *others = summary(book.breaches(), book.breach_count()) or [""]
    lines = [f"ring1: {first}", *(f"  {line}" for line in others)] if first else []
    if unknown := vm.domain.unknown if vm.domain else {}:
        calls = ", ".join(f"{number} ({count} x)" for number, count in sorted(unknown.items()))
        lines.append(f"ring1: hypercalls that there are not, answered with ENOSYS: {calls}")
    return lines


def call_chain(vm: "VM") -> list[str]:
    """Return where the vCPU was that ran last, by name, if the image has names."""
    from vmm.symbols.guest import GuestNames, backtrace_lines

    names = GuestNames(vm.config, vm.plan)
    return backtrace_lines(names.backtrace(vm.current)) if len(names.image) else []


def _write_statistics(
    config: Config, result: "RunResult", wall_seconds: float, report: StatsFile | None
) -> None:
    from vmm.observe.stats import Statistics  # behind the run

    statistics = Statistics.of(result, wall_seconds, digest=config.stats is not Stats.TABLE)
    match config.stats:
        case Stats.TABLE:
            from vmm.cli.table import print_table

            print_table(statistics)
        case Stats.JSON:
            print(statistics.to_json(), file=sys.stderr)
        case Stats.FILE:
            assert report is not None
            report.commit(statistics.to_json() + "\n")
