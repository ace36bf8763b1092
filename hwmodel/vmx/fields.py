"""Which VMCS fields exist: some come with a feature, by the manual's "Field Encoding in VMCS".

A field exists if its control is one that the processor allows to be 1.
"""

from typing import Final

from hwmodel.arch.controls import (
    EntryControls,
    ExitControls,
    PinBased,
    Primary,
    Secondary,
    Tertiary,
)
from hwmodel.arch.vmcs import Field
from hwmodel.arch.word import Word
from hwmodel.vmx.capabilities import Capabilities

_WITH: Final[dict[tuple[type[Word], str], tuple[int, ...]]] = {
    (PinBased, "process_posted_interrupts"): (0x0002, 0x2016),
    (PinBased, "activate_vmx_preemption_timer"): (0x482E,),
    (Primary, "use_io_bitmaps"): (0x2000, 0x2002),
    (Primary, "use_msr_bitmaps"): (0x2004,),
    (Primary, "use_tpr_shadow"): (0x2012, 0x401C),
    (Primary, "activate_tertiary_controls"): (0x2034,),
    (Primary, "activate_secondary_controls"): (0x401E,),
    (Secondary, "enable_vpid"): (0x0000,),
    (Secondary, "ept_violation_ve"): (0x0004, 0x202A),
    (Secondary, "virtual_interrupt_delivery"): (0x0810, 0x201C, 0x201E, 0x2020, 0x2022),
    (Secondary, "enable_pml"): (0x0812, 0x200E),
    (Secondary, "virtualize_apic_accesses"): (0x2014,),
    (Secondary, "enable_vm_functions"): (0x2018, 0x2024),
    (Secondary, "enable_ept"): (0x201A, 0x280A, 0x280C, 0x280E, 0x2810, 0x2400),
    (Secondary, "vmcs_shadowing"): (0x2026, 0x2028),
    (Secondary, "enable_xsaves_xrstors"): (0x202C,),
    (Secondary, "enable_encls_exiting"): (0x202E,),
    (Secondary, "sub_page_write_permissions_for_ept"): (0x2030,),
    (Secondary, "use_tsc_scaling"): (0x2032,),
    (Secondary, "enable_enclv_exiting"): (0x2036,),
    (Secondary, "pasid_translation"): (0x2038, 0x203A),
    (Secondary, "enable_pconfig"): (0x203E,),
    (Secondary, "pause_loop_exiting"): (0x4020, 0x4022),
    (Secondary, "instruction_timeout"): (0x4024,),
    (Tertiary, "enable_hlat"): (0x0006, 0x2040),
    (Tertiary, "ipi_virtualization"): (0x0008, 0x2042),
    (Tertiary, "apic_timer_virtualization"): (0x000A, 0x204E, 0x2830),
    (Tertiary, "virtualize_ia32_spec_ctrl"): (0x204A, 0x204C),
    (Tertiary, "enable_msr_list_instructions"): (0x2402,),
    (ExitControls, "activate_secondary_exit_controls"): (0x2044,),
    (ExitControls, "load_ia32_pat"): (0x2C00,),
    (ExitControls, "load_ia32_efer"): (0x2C02,),
    (ExitControls, "load_ia32_perf_global_ctrl"): (0x2C04,),
    (ExitControls, "load_pkrs"): (0x2C06,),
    (ExitControls, "load_cet_state"): (0x6C18, 0x6C1A, 0x6C1C),
    (EntryControls, "load_ia32_pat"): (0x2804,),
    (EntryControls, "load_ia32_efer"): (0x2806,),
    (EntryControls, "load_ia32_perf_global_ctrl"): (0x2808,),
    (EntryControls, "load_ia32_bndcfgs"): (0x2812,),
    (EntryControls, "load_ia32_rtit_ctl"): (0x2814,),
    (EntryControls, "load_guest_ia32_lbr_ctl"): (0x2816,),
    (EntryControls, "load_pkrs"): (0x2818,),
    (EntryControls, "load_uinv"): (0x0814,),
    (EntryControls, "load_guest_ia32_spec_ctrl"): (0x282E, 0x2C1A),
    (EntryControls, "load_cet_state"): (0x6828, 0x682A, 0x682C),
    (EntryControls, "load_ia32_fred"): (
        0x2052, 0x2404, 0x281A, 0x281C, 0x281E, 0x2820, 0x2822, 0x2824, 0x2826, 0x2828,
        0x2C08, 0x2C0A, 0x2C0C, 0x2C0E, 0x2C10, 0x2C12, 0x2C14, 0x2C16,
    ),
}  # fmt: skip
_NEVER: Final = frozenset({0x203C, 0x4026})  # SEAM's
_ENCODINGS: Final = frozenset(int(field) for field in Field)
_NEEDS: Final = {
    encoding: (word, control) for (word, control), fields in _WITH.items() for encoding in fields
}


def exists(field: Field, capabilities: Capabilities) -> bool:
    """Whether a processor with these capabilities has the field."""
    if field in _NEVER:
        return False
    if (need := _NEEDS.get(field)) is None:
        return True
    word, control = need
    return bool(int(capabilities.supported[word]) & word.layout[control].mask)


def decode(encoding: int, capabilities: Capabilities) -> tuple[Field, bool] | None:
    """The field that VMREAD and VMWRITE mean, and whether its high half alone; None: there is none.

    The high half has an encoding of its own where the field has 64 bits, not natural width.
    """
    high = bool(encoding & 1)
    if encoding & ~1 not in _ENCODINGS or (high and encoding >> 13 & 3 != 1):
        return None
    field = Field(encoding & ~1)
    return (field, high) if exists(field, capabilities) else None
