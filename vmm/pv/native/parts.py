"""The parts of the native dialect that are built, in the order in which their hooks are called."""

from typing import Final

from vmm.pv.native.part import Part

PARTS: Final[tuple[type[Part], ...]] = ()
"""Each names the features that it serves; what no part serves is not offered."""
