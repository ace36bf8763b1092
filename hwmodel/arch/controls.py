"""The control words of the VMCS, and which settings of them a processor allows.

A processor reports, per word, the bits that must be 1 and those that may be ("Reserved Controls and
Default Settings"). Bits without a name are reserved: some are "default1" and stay 1 unless the TRUE
capability MSRs say otherwise.
"""

from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from hwmodel.arch.word import Word, flag


class PinBased(Word):
    """Pin-based VM-execution controls."""

    external_interrupt_exiting = flag(0)
    nmi_exiting = flag(3)
    virtual_nmis = flag(5)
    activate_vmx_preemption_timer = flag(6)
    process_posted_interrupts = flag(7)


class Primary(Word):
    """Primary processor-based VM-execution controls."""

    interrupt_window_exiting = flag(2)
    use_tsc_offsetting = flag(3)
    hlt_exiting = flag(7)
    invlpg_exiting = flag(9)
    mwait_exiting = flag(10)
    rdpmc_exiting = flag(11)
    rdtsc_exiting = flag(12)
    cr3_load_exiting = flag(15)
    cr3_store_exiting = flag(16)
    activate_tertiary_controls = flag(17)
    cr8_load_exiting = flag(19)
    cr8_store_exiting = flag(20)
    use_tpr_shadow = flag(21)
    nmi_window_exiting = flag(22)
    mov_dr_exiting = flag(23)
    uncond_io_exiting = flag(24)
    use_io_bitmaps = flag(25)
    monitor_trap_flag = flag(27)
    use_msr_bitmaps = flag(28)
    monitor_exiting = flag(29)
    pause_exiting = flag(30)
    activate_secondary_controls = flag(31)


class Secondary(Word):
    """Secondary processor-based VM-execution controls."""

    virtualize_apic_accesses = flag(0)
    enable_ept = flag(1)
    descriptor_table_exiting = flag(2)
    enable_rdtscp = flag(3)
    virtualize_x2apic_mode = flag(4)
    enable_vpid = flag(5)
    wbinvd_exiting = flag(6)
    unrestricted_guest = flag(7)
    apic_register_virtualization = flag(8)
    virtual_interrupt_delivery = flag(9)
    pause_loop_exiting = flag(10)
    rdrand_exiting = flag(11)
    enable_invpcid = flag(12)
    enable_vm_functions = flag(13)
    vmcs_shadowing = flag(14)
    enable_encls_exiting = flag(15)
    rdseed_exiting = flag(16)
    enable_pml = flag(17)
    ept_violation_ve = flag(18)
    conceal_vmx_from_pt = flag(19)
    enable_xsaves_xrstors = flag(20)
    pasid_translation = flag(21)
    mode_based_execute_control_for_ept = flag(22)
    sub_page_write_permissions_for_ept = flag(23)
    intel_pt_uses_guest_physical_addresses = flag(24)
    use_tsc_scaling = flag(25)
    enable_user_wait_and_pause = flag(26)
    enable_pconfig = flag(27)
    enable_enclv_exiting = flag(28)
    vmm_bus_lock_detection = flag(30)
    instruction_timeout = flag(31)


class Tertiary(Word):
    """Tertiary processor-based VM-execution controls (64 bits)."""

    loadiwkey_exiting = flag(0)
    enable_hlat = flag(1)
    ept_paging_write_control = flag(2)
    guest_paging_verification = flag(3)
    ipi_virtualization = flag(4)
    enable_msr_list_instructions = flag(6)
    virtualize_ia32_spec_ctrl = flag(7)
    apic_timer_virtualization = flag(8)


class ExitControls(Word):
    """Primary VM-exit controls."""

    save_debug_controls = flag(2)
    host_address_space_size = flag(9)
    load_ia32_perf_global_ctrl = flag(12)
    acknowledge_interrupt_on_exit = flag(15)
    save_ia32_pat = flag(18)
    load_ia32_pat = flag(19)
    save_ia32_efer = flag(20)
    load_ia32_efer = flag(21)
    save_vmx_preemption_timer_value = flag(22)
    clear_ia32_bndcfgs = flag(23)
    conceal_vmx_from_pt = flag(24)
    clear_ia32_rtit_ctl = flag(25)
    clear_ia32_lbr_ctl = flag(26)
    clear_uinv = flag(27)
    load_cet_state = flag(28)
    load_pkrs = flag(29)
    save_ia32_perf_global_ctl = flag(30)
    activate_secondary_exit_controls = flag(31)


class SecondaryExit(Word):
    """Secondary VM-exit controls (64 bits)."""

    save_ia32_fred = flag(0)
    load_ia32_fred = flag(1)
    load_host_ia32_spec_ctrl = flag(2)
    prematurely_busy_shadow_stack = flag(3)


class EntryControls(Word):
    """VM-entry controls."""

    load_debug_controls = flag(2)
    ia32e_mode_guest = flag(9)
    entry_to_smm = flag(10)
    deactivate_dual_monitor_treatment = flag(11)
    load_ia32_perf_global_ctrl = flag(13)
    load_ia32_pat = flag(14)
    load_ia32_efer = flag(15)
    load_ia32_bndcfgs = flag(16)
    conceal_vmx_from_pt = flag(17)
    load_ia32_rtit_ctl = flag(18)
    load_uinv = flag(19)
    load_cet_state = flag(20)
    load_guest_ia32_lbr_ctl = flag(21)
    load_pkrs = flag(22)
    load_ia32_fred = flag(23)
    load_guest_ia32_spec_ctrl = flag(24)


class VmFunction(Word):
    """VM-function controls (64 bits)."""

    eptp_switching = flag(0)


W = TypeVar("W", bound=Word)


def _bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


@dataclass(frozen=True, slots=True)
class Default1:
    """The bits of a control word that are 1 by default, and those that even TRUE settings keep."""

    legacy: int
    true: int


DEFAULT1: dict[type[Word], Default1] = {
    PinBased: Default1(_bits(1, 2, 4), _bits(1, 2, 4)),
    Primary: Default1(_bits(1, 4, 5, 6, 8, 13, 14, 15, 16, 26), _bits(1, 4, 5, 6, 8, 13, 14, 26)),
    ExitControls: Default1(
        _bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 14, 16, 17),
        _bits(0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 13, 14, 16, 17),
    ),
    EntryControls: Default1(
        _bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 12), _bits(0, 1, 3, 4, 5, 6, 7, 8, 12)
    ),
}


@dataclass(frozen=True, slots=True)
class Allowed(Generic[W]):
    """The settings that a processor allows for one control word."""

    word: type[W]
    must_be_1: int
    may_be_1: int

    @classmethod
    def of(cls, word: type[W], supported: W, *, true: bool = True) -> Self:
        """The settings of a processor that supports these controls.

        With `true` unset, what the capability MSR without TRUE says: every default1 bit is fixed.
        """
        default1 = DEFAULT1.get(word, Default1(0, 0))
        fixed = default1.true if true else default1.legacy
        return cls(word, fixed, int(supported) | default1.legacy)

    def msr(self) -> int:
        """The capability MSR: allowed-0 settings in bits 31:0, allowed-1 in bits 63:32."""
        return self.may_be_1 << 32 | self.must_be_1

    def refuses(self, value: int) -> W:
        """The bits of `value` that have a setting the processor does not allow; 0 if none."""
        return self.word(self.must_be_1 & ~value | value & ~self.may_be_1)

    def adjust(self, value: int) -> W:
        """`value` with the fixed bits at the setting they must have."""
        return self.word((value | self.must_be_1) & self.may_be_1)
