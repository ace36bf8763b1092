"""Exits that only an observer asks for: the instruction needs no hypervisor.

RDTSC, INVLPG, MOV DR, MOV CR3, LGDT and the like run as on silicon unless a control says exit. When
one exits because somebody wants to see it, the control is lifted for exactly one instruction.
"""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.controls import Primary, Secondary
from hwmodel.arch.vmcs import Field
from hwmodel.timing.clock import FOREVER
from hwmodel.vmx.exit import Exit
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_PRIMARY: Final = ~int(
    Primary.of(
        rdtsc_exiting=1,
        rdpmc_exiting=1,
        invlpg_exiting=1,
        mov_dr_exiting=1,
        cr3_load_exiting=1,
        cr3_store_exiting=1,
    )
)
_SECONDARY: Final = ~int(Secondary.of(descriptor_table_exiting=1))


def handle_observed(vcpu: "Vcpu", _vmexit: Exit) -> Outcome:
    """Let the processor do the instruction, then watch again."""
    vmcs = vcpu.vmcs
    primary, secondary = Field.CPU_BASED_VM_EXEC_CONTROL, Field.SECONDARY_VM_EXEC_CONTROL
    watched = vmcs[primary], vmcs[secondary]
    vmcs[primary], vmcs[secondary] = watched[0] & _PRIMARY, watched[1] & _SECONDARY
    with vcpu.pcpu.pace.one_instruction(vcpu.vmcs.native.retire):
        vmexit = vcpu.enter(FOREVER)
    vmcs[primary], vmcs[secondary] = watched
    return vcpu.after_step(vmexit)
