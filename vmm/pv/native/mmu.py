"""Page-table entries, translations and CR3 by hypercall: alone they save nothing, in a batch much.

Where page tables are shadowed, every INVLPG and every MOV to CR3 exits; a guest that collects them
pays one exit for all. Under EPT they do not exit, and a guest does better without.
"""

from collections.abc import Mapping

from vmm.pv.dialect import Hypercall, Processor
from vmm.pv.native.abi import NOWHERE, Call, Error, Feature
from vmm.pv.native.part import Handler, Part


class Mmu(Part):
    """What a guest does to its address space."""

    name = "mmu"
    features = frozenset({Feature.MMU_BATCH, Feature.LAZY_CR3})

    def calls(self) -> Mapping[Call, Handler]:
        """Update, flush, switch."""
        return {
            Call.MMU_UPDATE: self._update,
            Call.FLUSH: self._flush,
            Call.SET_CR3: self._set_cr3,
        }

    def _update(self, cpu: Processor, call: Hypercall) -> int:
        gpa, value, address = call.arguments[:3]
        if self.room.pages.collides(gpa, 8):
            return -Error.OVERLAP
        self.room.machine.memory.write(gpa, value.to_bytes(8, "little"))
        if address != NOWHERE:
            cpu.drop_translation(address)
        return 0

    def _flush(self, cpu: Processor, call: Hypercall) -> int:
        if call.arguments[0] == NOWHERE:
            cpu.flush_translations()
        else:
            cpu.drop_translation(call.arguments[0])
        return 0

    def _set_cr3(self, cpu: Processor, call: Hypercall) -> int:
        return 0 if cpu.load_cr3(call.arguments[0]) else -Error.BAD_ARGUMENT
