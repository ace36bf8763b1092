"""The C engine's record of a page walk, in the words of `hwmodel.mem.reference`."""

from typing import Any, Final

from hwmodel.mem.reference import (
    Exited,
    Raised,
    Reference,
    ServedBy,
    Structure,
    Translated,
    Verdict,
    Walk,
)

_STRUCTURES: Final = tuple(Structure)
_VERDICTS: Final = tuple(Verdict)
_SERVED_BY: Final = tuple(ServedBy)


def _reference_of(cell: Any) -> Reference:
    """Take a `struct walk_reference` over."""
    return Reference(
        _STRUCTURES[cell.kind], cell.level, cell.gpa, cell.hpa, cell.entry,
        _VERDICTS[cell.verdict], _SERVED_BY[cell.cache],
    )  # fmt: skip


def _end_of(outcome: Any) -> Translated | Raised | Exited:
    """Take a `struct walk_outcome` over."""
    if outcome.result == 0:
        return Translated(outcome.gpa, outcome.hpa, outcome.shift, outcome.rights)
    if outcome.result == 1:
        return Raised(outcome.vector, outcome.error)
    return Exited(outcome.reason, outcome.qualification, outcome.gpa)


def walk_of(cells: Any, outcome: Any) -> Walk:
    """Take a whole walk over: its references and its end."""
    return Walk(tuple(map(_reference_of, cells[0 : outcome.count])), _end_of(outcome))
