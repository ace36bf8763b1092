"""Which cost table prices the instructions of a CPU model."""

from typing import Final

from hwmodel.arch.model import CpuModel, names
from hwmodel.arch.sourced import ModelError
from hwmodel.cpu.pace import cost_tables

NEAREST: Final = {
    "sapphire-rapids": "ice-lake-server",
    "westmere": "sandy-bridge",
    "nehalem": "sandy-bridge",
    "core-2": "sandy-bridge",
    "pentium-4-672": "sandy-bridge",
}
"""Models that LLVM 14 has no scheduling of: the nearest one, as LLVM's own X86.td chooses for
Core 2 to Westmere. Of the Pentium 4 nothing is known there: its blocks cost what Sandy Bridge's do.
"""


def table_of(model: CpuModel) -> str:
    """The table's name; a model of one's own has that of the processor with its identity.

    Raises ModelError if there is none.
    """
    tables = cost_tables()
    name = NEAREST.get(model.name, model.name)
    if name not in tables:
        name = _of_identity(model)
    if name not in tables:
        raise ModelError(
            f"CPU model {model.name} (family {model.family}, model {model.model}) has no table of "
            f"block costs; give it the identity of one of {', '.join(names())}, or --timing fast"
        )
    return name


def _of_identity(model: CpuModel) -> str:
    """The shipped model with this vendor, family and model, and its table."""
    for name in names():
        shipped = CpuModel.load(name)
        if (shipped.vendor, shipped.family, shipped.model) == (
            model.vendor, model.family, model.model,
        ):  # fmt: skip
            return NEAREST.get(name, name)
    return ""
