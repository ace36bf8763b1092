"""NUMA hints: which processors work with which memory, so that they can be placed near it.

A guest knows what the hypervisor would have to guess. The last hint counts for each processor; it
is advice, and says nothing of where anything is. Without nodes it changes nothing.
"""

from collections.abc import Mapping
from typing import Final

from hwmodel.mem.ram import PAGE
from vmm.pv.dialect import Hypercall, Processor
from vmm.pv.native.abi import Call, Error, Feature
from vmm.pv.native.part import Handler, Part

_MOST_PAGES: Final = 1 << 40


class Numa(Part):
    """Takes hints."""

    name = "numa"
    features = frozenset({Feature.NUMA})

    def calls(self) -> Mapping[Call, Handler]:
        """One."""
        return {Call.NUMA_HINT: self._hint}

    def _hint(self, _cpu: Processor, call: Hypercall) -> int:
        mask, gpa, pages = call.arguments[:3]
        if not mask or mask >> self.room.machine.cpus or not 0 < pages < _MOST_PAGES:
            return -Error.BAD_ARGUMENT
        if gpa % PAGE:
            return -Error.MISALIGNED
        if self.room.machine.memory.hpa(gpa, pages * PAGE) is None:
            return -Error.BAD_ADDRESS
        for cpu in self.room.cpus:
            if mask >> cpu.index & 1:
                cpu.prefer(gpa + pages // 2 * PAGE)
        return 0
