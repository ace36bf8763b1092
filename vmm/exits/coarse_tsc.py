"""RDTSC and RDTSCP that exit: because somebody watches, or because the TSC is shown in steps."""

from typing import TYPE_CHECKING, Final

from hwmodel.vmx.exit import Exit
from vmm.exits.observed import handle_observed
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_LOW: Final = 0xFFFF_FFFF


def handle_rdtsc(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Show the time-stamp counter in the steps that a dialect asks for; else as it is."""
    if not vcpu.dialects.tsc_step:
        return handle_observed(vcpu, vmexit)
    tsc = vcpu.shown_tsc()
    vcpu.regs.rax, vcpu.regs.rdx = tsc & _LOW, tsc >> 32
    return Outcome.SKIP


def handle_rdtscp(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Show it, with IA32_TSC_AUX."""
    if vcpu.dialects.tsc_step:
        vcpu.regs.rcx = vcpu.vmcs.native.tsc_aux & _LOW
    return handle_rdtsc(vcpu, vmexit)
