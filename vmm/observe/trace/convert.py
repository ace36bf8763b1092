"""Records into the form that a tool reads."""

import os
from pathlib import Path

from vmm.observe.trace.records import opened
from vmm.trace_options import TraceKind


def convert(source: Path, target: Path, kind: TraceKind) -> None:
    """Write `target` from the records in `source`; a regular file appears whole or not at all.

    Raises UsageError for a source that is no trace, OSError where the target cannot be written.
    """
    if kind is TraceKind.PERFETTO:
        from vmm.observe.trace.perfetto import write_perfetto as write
    else:
        from vmm.observe.trace.ftrace import write_ftrace as write
    replaces = not target.exists() or target.is_file()
    made = target.with_name(f".{target.name}.{os.getpid()}") if replaces else target
    with opened(source) as trace:
        try:
            with made.open("wb") as file:
                write(trace, file)
            if replaces:
                made.replace(target)
        except BaseException:
            if replaces:
                made.unlink(missing_ok=True)
            raise
