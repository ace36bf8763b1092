"""Every exit reason: the test that reaches it, or what forbids it. A house test keeps this complete.

`reached` names a file and a function below tests/; `forbidden` names a control that is not offered
(then the exit cannot come), or says which feature this processor has not.
"""

from dataclasses import dataclass

from hwmodel.arch.controls import Secondary, Tertiary
from hwmodel.arch.exits import ExitReason as R
from hwmodel.arch.word import Word


@dataclass(frozen=True, slots=True)
class Reached:
    """A test reaches it."""

    file: str
    function: str


@dataclass(frozen=True, slots=True)
class Control:
    """It needs a control that the capability MSRs do not allow."""

    word: type[Word]
    name: str


@dataclass(frozen=True, slots=True)
class Cr4:
    """It needs a bit of CR4 that IA32_VMX_CR4_FIXED1 does not allow: #UD comes first."""

    bit: str


@dataclass(frozen=True, slots=True)
class Activity:
    """It needs an activity state that IA32_VMX_MISC does not report."""

    misc: str


@dataclass(frozen=True, slots=True)
class Absent:
    """No model has the feature, by CPUID or otherwise."""

    feature: str


Row = Reached | Control | Cr4 | Activity | Absent


def _exits(function: str) -> Reached:
    return Reached("hwmodel/test_pcpu_exits.py", function)


def _vmx(file: str, function: str) -> Reached:
    return Reached(f"hwmodel/vmx/{file}.py", function)


_ROW = _vmx("test_controls", "test_what_exits")
_INSTRUCTION = _exits("test_qualification_and_length")
_VMX = _vmx("test_controls", "test_vmx_instructions_exit")

EXIT_REASONS: dict[R, Row] = {
    R.EXCEPTION_NMI: _exits("test_exceptions"),
    R.EXTERNAL_INTERRUPT: _vmx(
        "test_controls", "test_an_external_interrupt_exits_with_its_vector_if_acknowledged"
    ),
    R.TRIPLE_FAULT: _exits("test_triple_fault"),
    R.INIT_SIGNAL: _vmx("test_controls", "test_an_init_exits_before_all_else"),
    R.SIPI_SIGNAL: Activity("activity_wait_for_sipi"),
    R.IO_SMI: Absent("system-management mode"),
    R.OTHER_SMI: Absent("system-management mode"),
    R.INTERRUPT_WINDOW: _exits("test_interrupt_window_opens_behind_the_shadow"),
    R.NMI_WINDOW: _ROW,
    R.TASK_SWITCH: _vmx("test_exit_reasons", "test_a_task_switch_exits"),
    R.CPUID: _INSTRUCTION,
    R.GETSEC: Cr4("smxe"),
    R.HLT: _INSTRUCTION,
    R.INVD: _INSTRUCTION,
    R.INVLPG: _INSTRUCTION,
    R.RDPMC: _INSTRUCTION,
    R.RDTSC: _INSTRUCTION,
    R.RSM: Absent("system-management mode"),
    R.VMCALL: _INSTRUCTION,
    R.VMCLEAR: _VMX,
    R.VMLAUNCH: _VMX,
    R.VMPTRLD: _VMX,
    R.VMPTRST: _VMX,
    R.VMREAD: _VMX,
    R.VMRESUME: _VMX,
    R.VMWRITE: _VMX,
    R.VMOFF: _VMX,
    R.VMON: _VMX,
    R.CR_ACCESS: _INSTRUCTION,
    R.DR_ACCESS: _INSTRUCTION,
    R.IO_INSTRUCTION: _INSTRUCTION,
    R.MSR_READ: _INSTRUCTION,
    R.MSR_WRITE: _INSTRUCTION,
    R.INVALID_STATE: _vmx("test_entry_checks", "test_the_check_refuses"),
    R.MSR_LOAD_FAIL: _vmx(
        "test_msr_lists", "test_an_entry_that_it_may_not_load_fails_with_its_number"
    ),
    R.MWAIT_INSTRUCTION: _ROW,
    R.MONITOR_TRAP_FLAG: _vmx(
        "test_controls", "test_monitor_trap_after_each_instruction_whatever_it_is"
    ),
    R.MONITOR_INSTRUCTION: _ROW,
    R.PAUSE_INSTRUCTION: _ROW,
    R.MCE_DURING_VMENTRY: Absent("machine checks"),
    R.TPR_BELOW_THRESHOLD: _vmx(
        "test_apicv", "test_a_tpr_below_the_threshold_exits_behind_the_instruction"
    ),
    R.APIC_ACCESS: _vmx("test_apic_access", "test_what_is_not_virtualized_exits"),
    R.EOI_INDUCED: _vmx("test_apicv", "test_an_eoi_takes_the_next_and_may_exit"),
    R.GDTR_IDTR: _exits("test_descriptor_tables"),
    R.LDTR_TR: _exits("test_descriptor_tables"),
    R.EPT_VIOLATION: _exits("test_ept_violation"),
    R.EPT_MISCONFIG: _vmx("test_exit_reasons", "test_an_ept_misconfiguration_exits"),
    R.INVEPT: _VMX,
    R.RDTSCP: _INSTRUCTION,
    R.PREEMPTION_TIMER: _vmx(
        "test_controls", "test_the_preemption_timer_counts_cycles_and_is_saved"
    ),
    R.INVVPID: _VMX,
    R.WBINVD: _INSTRUCTION,
    R.XSETBV: Cr4("osxsave"),
    R.APIC_WRITE: _vmx("test_apicv", "test_a_self_ipi_of_a_low_vector_is_software_s_business"),
    R.RDRAND: _INSTRUCTION,
    R.INVPCID: _vmx("test_exit_reasons", "test_invpcid_exits_with_invlpg"),
    R.VMFUNC: Reached("hwmodel/test_ept_events.py", "test_vm_functions_that_exit_or_do_not_exist"),
    R.ENCLS: Control(Secondary, "enable_encls_exiting"),
    R.RDSEED: _INSTRUCTION,
    R.PML_FULL: _vmx("test_exit_reasons", "test_a_full_page_modification_log_exits"),
    R.XSAVES: Control(Secondary, "enable_xsaves_xrstors"),
    R.XRSTORS: Control(Secondary, "enable_xsaves_xrstors"),
    R.PCONFIG: Control(Secondary, "enable_pconfig"),
    R.SPP_EVENT: Control(Secondary, "sub_page_write_permissions_for_ept"),
    R.UMWAIT: Control(Secondary, "enable_user_wait_and_pause"),
    R.TPAUSE: Control(Secondary, "enable_user_wait_and_pause"),
    R.LOADIWKEY: Control(Tertiary, "loadiwkey_exiting"),
    R.ENCLV: Control(Secondary, "enable_enclv_exiting"),
    R.ENQCMD_PASID_FAILURE: Control(Secondary, "pasid_translation"),
    R.ENQCMDS_PASID_FAILURE: Control(Secondary, "pasid_translation"),
    R.BUS_LOCK: Control(Secondary, "vmm_bus_lock_detection"),
    R.NOTIFY: Control(Secondary, "instruction_timeout"),
    R.SEAMCALL: Absent("SEAM"),
    R.TDCALL: Absent("SEAM"),
    R.RDMSRLIST: Control(Tertiary, "enable_msr_list_instructions"),
    R.WRMSRLIST: Control(Tertiary, "enable_msr_list_instructions"),
    R.URDMSR: Absent("USER_MSR"),
    R.UWRMSR: Absent("USER_MSR"),
    R.MSR_READ_IMM: Absent("RDMSR with an immediate"),
    R.MSR_WRITE_IMM: Absent("RDMSR with an immediate"),
}
