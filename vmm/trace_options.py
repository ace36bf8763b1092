"""What ``--trace`` takes: FILE, of which kind, and how much of the run it keeps."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from vmm.errors import UsageError


class TraceKind(StrEnum):
    """The form of a trace file, by its ending."""

    PERFETTO = "perfetto"
    FTRACE = "txt"
    RECORDS = "ring"
    """The records themselves, for ``ring1 trace convert`` and ``ring1 report``."""


_ENDINGS: Final = {
    ".perfetto": TraceKind.PERFETTO,
    ".pftrace": TraceKind.PERFETTO,
    ".perfetto-trace": TraceKind.PERFETTO,
    ".txt": TraceKind.FTRACE,
    ".ring": TraceKind.RECORDS,
}
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
LAST_MIN: Final = 2 << 20


@dataclass(frozen=True, slots=True)
class TraceFile:
    """Where a trace goes. `last`: bytes of the newest records to keep, 0 for all."""

    path: Path
    kind: TraceKind
    last: int = 0

    @classmethod
    def of(cls, text: "str | Path | TraceFile") -> "TraceFile":
        """Read "F.perfetto", "F.txt" or "F.ring", each also with ",last=64M"."""
        if isinstance(text, TraceFile):
            return text
        name, comma, option = str(text).rpartition(",last=")
        name, last = (name, _last(option, str(text))) if comma else (str(text), 0)
        return cls(Path(name), kind_of(name, "--trace"), last)


def kind_of(name: str, option: str) -> TraceKind:
    """Return what a file of that name holds. Raises UsageError for an ending nobody knows."""
    kind = _ENDINGS.get(Path(name).suffix)
    if kind is None:
        raise UsageError(
            f"{option} {name!r} has no ending that says its form; "
            "write F.perfetto, F.txt (ftrace) or F.ring (records)"
        )
    return kind


def _last(text: str, whole: str) -> int:
    digits, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    if not (digits.isascii() and digits.isdigit()) or unit not in _UNITS:
        raise UsageError(f"--trace {whole!r}: last={text} is not a size; write last=64M")
    size = int(digits) * _UNITS[unit]
    if size < LAST_MIN:
        raise UsageError(f"--trace {whole!r}: last={text} is too little; give 2M or more")
    return size
