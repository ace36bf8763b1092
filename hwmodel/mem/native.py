"""The C engine's record of a page walk, in the words of `hwmodel.mem.reference`."""

from typing import Any, Final

from hwmodel.arch.model import CpuModel
from hwmodel.cpu.unicorn import ffi
from hwmodel.mem.reference import (
    Exited,
    Raised,
    Reference,
    ServedBy,
    Structure,
    Translated,
    Verdict,
)

_STRUCTURES: Final = tuple(Structure)
_VERDICTS: Final = tuple(Verdict)
_SERVED_BY: Final = tuple(ServedBy)


def reference_of(cell: Any) -> Reference:
    """Take a `struct walk_reference` over."""
    return Reference(
        _STRUCTURES[cell.kind], cell.level, cell.gpa, cell.hpa, cell.entry,
        _VERDICTS[cell.verdict], _SERVED_BY[cell.cache],
    )  # fmt: skip


def end_of(outcome: Any) -> Translated | Raised | Exited:
    """Take a `struct walk_outcome` over."""
    if outcome.result == 0:
        return Translated(outcome.gpa, outcome.hpa, outcome.shift, outcome.rights)
    if outcome.result == 1:
        return Raised(outcome.vector, outcome.error)
    return Exited(outcome.reason, outcome.qualification, outcome.gpa)


def paging_model(model: CpuModel) -> Any:
    """Make a `struct paging_model`."""
    native = ffi.new("struct paging_model *", {"level_count": len(model.translation.tlbs)})
    native.physical_bits, native.linear_bits = model.physical_bits, model.linear_bits
    native.has_1g = "pdpe1gb" in model.features
    for cell, tlb in zip(native.level, model.translation.tlbs, strict=False):
        cell.level, cell.kinds, cell.sizes = tlb.level, tlb.kinds, tlb.sizes
        cell.sets, cell.ways = tlb.geometry.sets, tlb.geometry.ways
    caches = (*model.translation.structures, model.translation.nested)
    for cell, geometry in zip((*native.structure, native.nested), caches, strict=True):
        cell.sets, cell.ways = geometry.sets, geometry.ways
    return native
