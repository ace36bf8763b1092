"""What translating an address costs in the engine: the walk, its caches, the modelled TLB."""

import time
from statistics import median
from typing import Final

from hwmodel.arch.controls import Primary, Secondary
from hwmodel.arch.registers import Cr0, Cr4, Efer
from hwmodel.arch.vmcs import Field
from hwmodel.mem.ram import PAGE, Ram
from hwmodel.pcpu import Pcpu
from hwmodel.timing.clock import Clock
from hwmodel.vmx.state import Vmcs
from vmm.cli.benchmarks.row import Bound, Row
from vmm.memory.ept import Ept, Slot, pages_for

GUEST: Final = 16 * PAGE
LINEAR: Final = 0x7F_1234_5000
ROUNDS: Final = 20_000  # at 1 percent
_NAMES: Final = {  # DESIGN: a walk of 24 references 150 ns, a TLB hit 40; the issue: hot caches 60
    0: ("nested walk, 24 references", 150.0),
    1: ("nested walk, hot caches", 60.0),
    2: ("modelled TLB hit", 40.0),
}


def measure(runs: int, percent: int) -> list[Row]:
    """Return a row each, in nanoseconds."""
    pcpu, vmcs = _machine()
    rounds = ROUNDS * percent
    rows = []
    for how, (name, limit) in _NAMES.items():
        pcpu.repeat_walk(vmcs, LINEAR, 10, how)
        nanoseconds = median(_once(pcpu, vmcs, rounds, how) for _ in range(runs))
        rows.append(Row("walk", name, "ns", nanoseconds, {}, (Bound("ns", nanoseconds, limit),)))
    pcpu.close()
    return rows


def _once(pcpu: Pcpu, vmcs: Vmcs, rounds: int, how: int) -> float:
    began = time.process_time()
    pcpu.repeat_walk(vmcs, LINEAR, rounds, how)
    return (time.process_time() - began) / rounds * 1e9


def _machine() -> tuple[Pcpu, Vmcs]:
    """A guest with 4-level tables of small pages, behind a 4-level EPT of small pages."""
    slots = [Slot(0, GUEST, 0)]
    ram = Ram(GUEST + pages_for(slots) * PAGE)
    ept = Ept(ram, GUEST, ram.size - GUEST, slots, largest=PAGE)
    for level, table in zip((4, 3, 2, 1), range(PAGE, 5 * PAGE, PAGE), strict=True):
        at = table + 8 * (LINEAR >> 3 + 9 * level & 511)
        ram.view[at : at + 8] = (table + PAGE | 7).to_bytes(8, "little")
    vmcs = Vmcs()
    secondary = Secondary.of(enable_ept=1, enable_vpid=1, unrestricted_guest=1)
    for field, value in {
        Field.CPU_BASED_VM_EXEC_CONTROL: Primary.of(activate_secondary_controls=1),
        Field.SECONDARY_VM_EXEC_CONTROL: secondary,
        Field.VIRTUAL_PROCESSOR_ID: 1,
        Field.EPT_POINTER: ept.pointer(),
        Field.GUEST_CR0: Cr0.of(pe=1, pg=1, wp=1),
        Field.GUEST_CR3: PAGE,
        Field.GUEST_CR4: Cr4.of(pae=1, pge=1),
        Field.GUEST_IA32_EFER: Efer.of(lme=1, lma=1, nxe=1),
    }.items():
        vmcs[field] = int(value)
    return Pcpu(ram, Clock()), vmcs
