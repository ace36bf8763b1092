"""A CPU model's event costs as the C engine takes them: `struct event_costs` of native.cdef.h."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.model import CpuModel

WALK_SHARE: Final = 8
"""Page tables have an eighth of each cache. An assumption: under `--timing cycle` nobody sees the
data that compete with them. Bhargava et al. 2008, table 4, has 15 to 25 % of the references of
page entries miss the second level, of programs with large working sets."""
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Near:
    """Devices that a hypervisor keeps in the kernel: ports and addresses, first and last."""

    ports: Sequence[Range] = ()
    memory: Sequence[Range] = ()


def fill(
    native: Any, model: CpuModel, near: Near, *, by_faults: bool = False, whole: bool = False
) -> None:
    """Write the prices of a virtual machine on this processor.

    `by_faults`: without VT-x. The way into the hypervisor is a fault, the way back as long, and
    there is no VMCS to read. `whole`: walks share the caches with all data, which is seen.
    """
    costs = model.costs
    native.vm_exit = costs.exception if by_faults else costs.vm_exit
    native.vm_entry = costs.exception if by_faults else costs.vm_entry
    for reason in range(len(native.handler)):
        native.handler[reason] = costs.handlers[reason] if by_faults else costs.handler(reason)
    native.kick = native.vm_exit + native.handler[ExitReason.EXTERNAL_INTERRUPT] + native.vm_entry
    native.far_device = costs.far_device
    for cells, ranges in ((native.near_port, near.ports), (native.near_memory, near.memory)):
        for cell, (first, last) in zip(cells, ranges, strict=False):
            cell[0], cell[1] = first, last
    native.near_ports, native.near_memories = len(near.ports), len(near.memory)
    _fill_processor(native, model, 1 if whole else WALK_SHARE)


def fill_bare(native: Any, model: CpuModel) -> None:
    """Write the prices of bare metal: no exit costs anything, a port what its bus takes."""
    native.bare = 1
    native.far_device = model.costs.port
    _fill_processor(native, model)


def _fill_processor(native: Any, model: CpuModel, share: int = WALK_SHARE) -> None:
    costs, walks = model.costs, model.costs.references
    native.exception, native.interrupt = costs.exception, costs.interrupt
    for index, cycles in enumerate((walks.level1, walks.level2, walks.level3, walks.memory)):
        native.latency[index] = cycles
    native.syscall, native.sysret, native.write_cr8 = costs.syscall, costs.sysret, costs.write_cr8
    native.mispredict = costs.mispredict
    native.structure_hit, native.nested_hit = walks.structure_hit, walks.nested_hit
    native.level2_hit = walks.tlb_level2_hit
    for cell, cache in zip(native.line, model.data_caches(), strict=False):
        cell.sets, cell.ways = cache.sets, max(1, cache.ways // share)
