"""The parts of the native dialect that are built, in the order in which their hooks are called."""

from typing import Final

from vmm.pv.native.batch import Multicall
from vmm.pv.native.mmu import Mmu
from vmm.pv.native.part import Part

PARTS: Final[tuple[type[Part], ...]] = (Multicall, Mmu)
"""Each names the features that it serves; what no part serves is not offered."""
