"""A CPU model's paging as the C engine takes it."""

from typing import Any

from hwmodel.arch.model import CpuModel
from hwmodel.cpu.unicorn import ffi


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


def counts_of(native: Any, kind: str) -> dict[str, int | list[int]]:
    """Take a structure of counters over, lists as lists."""
    values = ((name, getattr(native, name)) for name, _ in ffi.typeof(kind).fields)
    return {name: v if isinstance(v, int) else list(v) for name, v in values}
