"""The VMX capability MSRs that are no list of controls ("VMX Capability Reporting Facility")."""

from hwmodel.arch.word import Word, bits, flag


class Basic(Word):
    """IA32_VMX_BASIC."""

    revision = bits(30, 0)
    region_bytes = bits(44, 32)
    addresses_are_32_bits = flag(48)
    dual_monitor = flag(49)
    memory_type = bits(53, 50)
    ins_outs_information = flag(54)
    true_controls = flag(55)
    error_code_optional = flag(56)
    """Whether a hardware exception may be injected with or without an error code."""
    nested_exception = flag(58)


class Misc(Word):
    """IA32_VMX_MISC."""

    preemption_timer_rate = bits(4, 0)
    """The timer counts down when this bit of the TSC changes."""
    exit_stores_lma = flag(5)
    activity_hlt = flag(6)
    activity_shutdown = flag(7)
    activity_wait_for_sipi = flag(8)
    pt_in_vmx = flag(14)
    rdmsr_smbase_in_smm = flag(15)
    cr3_targets = bits(24, 16)
    max_msr_list = bits(27, 25)
    """Recommended most entries of an MSR list: 512 * (n + 1)."""
    smm_monitor_ctl_bit2 = flag(28)
    vmwrite_any_field = flag(29)
    zero_length_injection = flag(30)
    mseg_revision = bits(63, 32)


class EptVpid(Word):
    """IA32_VMX_EPT_VPID_CAP."""

    execute_only = flag(0)
    walk_length_4 = flag(6)
    walk_length_5 = flag(7)
    memory_type_uc = flag(8)
    memory_type_wb = flag(14)
    pages_2m = flag(16)
    pages_1g = flag(17)
    invept = flag(20)
    accessed_dirty = flag(21)
    violation_information = flag(22)
    supervisor_shadow_stack = flag(23)
    invept_single = flag(25)
    invept_all = flag(26)
    invvpid = flag(32)
    invvpid_address = flag(40)
    invvpid_single = flag(41)
    invvpid_all = flag(42)
    invvpid_retaining_globals = flag(43)
    hlat_prefix_bits = bits(53, 48)
