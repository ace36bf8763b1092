"""The parts of the native dialect that are built, in the order in which their hooks are called."""

from typing import Final

from vmm.pv.native.batch import Multicall
from vmm.pv.native.coarse_time import CoarseTime
from vmm.pv.native.entropy import Entropy
from vmm.pv.native.memory import Memory
from vmm.pv.native.mmu import Mmu
from vmm.pv.native.numa import Numa
from vmm.pv.native.part import Part
from vmm.pv.native.rings import Rings
from vmm.pv.native.time_page import TimePages
from vmm.pv.native.timers import Timers
from vmm.pv.native.turns import Turns
from vmm.pv.native.waiting import Waiting

PARTS: Final[tuple[type[Part], ...]] = (
    Multicall,
    Mmu,
    TimePages,
    Timers,
    CoarseTime,
    Rings,
    Entropy,
    Waiting,
    Turns,
    Memory,
    Numa,
)
"""Each names the features that it serves; what no part serves is not offered."""
