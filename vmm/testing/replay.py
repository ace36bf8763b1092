"""A case again: for the debugger, and with a trace."""

from contextlib import closing
from pathlib import Path
from typing import Any, Final

from vmm.errors import UsageError
from vmm.testing.cases.case import Case, read_cases
from vmm.testing.cases.run import load_case
from vmm.testing.guest import Guest, NeverEndedError
from vmm.testing.holds import options_of

_MOST_TRACED: Final = 100_000
"""Instructions: a test that never ends needs no trace of all of it."""


def first_case(path: Path) -> Case:
    """Return the first case of a file. Raises UsageError."""
    cases = read_cases(path)
    if not cases:
        raise UsageError(f"{path} holds no case; write one that begins with [[case]]")
    return cases[0]


def guest_at_start(case: Case, **options: Any) -> Guest:
    """Return a new guest in a case's initial state."""
    held = options_of(case.techniques[0] if case.techniques else "vtx")
    guest = Guest(case.environment, **dict(case.options), **held, **options)
    load_case(guest, case)
    return guest


def trace_case(path: Path, target: Path) -> None:
    """Run a file's first case and write a Perfetto trace of it."""
    from vmm.observe.trace.recording import RecordFile, Recording
    from vmm.trace_options import TraceFile

    with (
        guest_at_start(first_case(path)) as guest,
        closing(RecordFile(TraceFile.of(target))) as file,
    ):
        recording = Recording(guest, file, lambda _line: None)
        try:
            guest.run(min(guest.limit, _MOST_TRACED))
        except NeverEndedError:
            pass  # as the test did
        finally:
            recording.stop()
