"""Exit reason to handler: complete, and nothing else."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hwmodel.arch.exits import ExitReason as R
from hwmodel.vmx.exit import Exit
from vmm.exits import (
    coarse_tsc,
    cpuid,
    cr,
    engine_stop,
    ept,
    exception,
    hypercall,
    idle,
    io,
    msr,
    observed,
    plain,
    virtual_apic,
    windows,
)
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

Handler = Callable[["Vcpu", Exit], Outcome]


def _handle_task_switch(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    from vmm.exits.task_switch import handle_task_switch  # hardly any guest has a task

    return handle_task_switch(vcpu, vmexit)


HANDLERS: Final[dict[int, Handler]] = dict.fromkeys(R, exception.unhandled) | {
    R.EXCEPTION_NMI: exception.handle_exception_nmi,
    R.TRIPLE_FAULT: exception.handle_triple_fault,
    R.INTERRUPT_WINDOW: windows.handle_window,
    R.NMI_WINDOW: windows.handle_window,
    R.TASK_SWITCH: _handle_task_switch,
    R.CPUID: cpuid.handle_cpuid,
    R.HLT: idle.handle_hlt,
    R.PAUSE_INSTRUCTION: idle.handle_pause,
    R.INVD: plain.handle_nothing_to_do,
    R.WBINVD: plain.handle_nothing_to_do,
    R.RDRAND: plain.handle_random,
    R.RDSEED: plain.handle_random,
    R.VMCALL: hypercall.handle_vmcall,
    R.VMCLEAR: plain.handle_not_offered,
    R.VMLAUNCH: plain.handle_not_offered,
    R.VMPTRLD: plain.handle_not_offered,
    R.VMPTRST: plain.handle_not_offered,
    R.VMREAD: plain.handle_not_offered,
    R.VMRESUME: plain.handle_not_offered,
    R.VMWRITE: plain.handle_not_offered,
    R.VMOFF: plain.handle_not_offered,
    R.VMON: plain.handle_not_offered,
    R.INVEPT: plain.handle_not_offered,
    R.INVVPID: plain.handle_not_offered,
    R.MWAIT_INSTRUCTION: plain.handle_not_offered,
    R.MONITOR_INSTRUCTION: plain.handle_not_offered,
    R.CR_ACCESS: cr.handle_cr_access,
    R.IO_INSTRUCTION: io.handle_io,
    R.MSR_READ: msr.handle_msr_read,
    R.MSR_WRITE: msr.handle_msr_write,
    R.RDTSC: coarse_tsc.handle_rdtsc,
    R.RDTSCP: coarse_tsc.handle_rdtscp,
    R.RDPMC: observed.handle_observed,
    R.INVLPG: observed.handle_observed,
    R.DR_ACCESS: observed.handle_observed,
    R.GDTR_IDTR: observed.handle_observed,
    R.LDTR_TR: observed.handle_observed,
    R.APIC_ACCESS: virtual_apic.handle_apic_access,
    R.APIC_WRITE: virtual_apic.handle_apic_write,
    R.EOI_INDUCED: virtual_apic.handle_eoi_induced,
    R.EPT_VIOLATION: ept.handle_ept_violation,
    R.INVALID_STATE: exception.handle_entry_failure,
    R.MSR_LOAD_FAIL: exception.handle_entry_failure,
    **engine_stop.HANDLERS,
}


def handlers_of(*, shadows: bool, traps: bool, pv: bool = False) -> dict[int, Handler]:
    """Return the table for a guest: under EPT, with shadowed page tables, deprivileged, Xen PV.

    Under the trap technique operations stand above the exit reasons. What is not used is not
    imported: that is much of a start.
    """
    if pv:
        from vmm.exits.xen import HANDLERS as XEN

        return XEN
    if traps:
        from vmm.exits.trapped.table import HANDLERS as TRAPPED

        return HANDLERS | TRAPPED
    if shadows:
        from vmm.exits.shadowed import HANDLERS as SHADOWED

        return HANDLERS | SHADOWED
    return HANDLERS
