"""Which cost table prices the instructions of a CPU model."""

from typing import Final

from hwmodel.arch.model import CpuModel
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
    """The table's name. Raises ModelError if nobody said which."""
    name = NEAREST.get(model.name, model.name)
    if name not in cost_tables():
        known = ", ".join(cost_tables())
        raise ModelError(f"CPU model {model.name} has no cost table; there are: {known}")
    return name
