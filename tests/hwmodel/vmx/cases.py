"""One VMCS per entry check that only this check refuses: (what it is called, what is changed).

Written down from the manual's chapter "VM Entries", not from the code. Each case starts from a VMCS
that passes everything; `needs` are controls that must be allowed although the engine does not do
them, since the check is about them.
"""

from dataclasses import dataclass, field
from typing import Any

from hwmodel.arch.vmcs import Field

NON_CANONICAL = 1 << 47
BEYOND = 1 << 46
PIN, PRIMARY = Field.PIN_BASED_VM_EXEC_CONTROL, Field.CPU_BASED_VM_EXEC_CONTROL
SECONDARY, EXIT, ENTRY = (
    Field.SECONDARY_VM_EXEC_CONTROL, Field.VM_EXIT_CONTROLS, Field.VM_ENTRY_CONTROLS,
)  # fmt: skip
INFO, LENGTH = Field.VM_ENTRY_INTR_INFO_FIELD, Field.VM_ENTRY_INSTRUCTION_LEN
RFLAGS, BLOCKING, ACTIVITY = (
    Field.GUEST_RFLAGS, Field.GUEST_INTERRUPTIBILITY_INFO, Field.GUEST_ACTIVITY_STATE,
)  # fmt: skip
PENDING = Field.GUEST_PENDING_DBG_EXCEPTIONS
VALID, NMI, EXCEPTION, SOFTWARE, OTHER = 1 << 31, 2 << 8, 3 << 8, 4 << 8, 7 << 8
ERROR_CODE = 1 << 11
# Bits of the controls, as "VM-Execution Control Fields" numbers them.
NMI_EXITING, VIRTUAL_NMIS, TIMER, POSTED = 1 << 3, 1 << 5, 1 << 6, 1 << 7
TPR_SHADOW, NMI_WINDOW, IO_BITMAPS, MSR_BITMAPS = 1 << 21, 1 << 22, 1 << 25, 1 << 28
TERTIARY_ON, SECONDARY_ON, MTF = 1 << 17, 1 << 31, 1 << 27
APIC_ACCESSES, EPT, X2APIC, VPID, UNRESTRICTED = 1, 2, 1 << 4, 1 << 5, 1 << 7
REGISTERS, DELIVERY, VM_FUNCTIONS, SHADOWING = 1 << 8, 1 << 9, 1 << 13, 1 << 14
PML, VE, MBEC, SCALING = 1 << 17, 1 << 18, 1 << 22, 1 << 25
HOST_64, ACKNOWLEDGE, LOAD_PAT, LOAD_EFER, SAVE_TIMER = 1 << 9, 1 << 15, 1 << 19, 1 << 21, 1 << 22


@dataclass(frozen=True, slots=True)
class Case:
    """One change that one check refuses; `setup` is what must hold for the check to apply."""

    check: str
    set: dict[Field, int] = field(default_factory=dict)
    on: dict[Field, int] = field(default_factory=dict)
    off: dict[Field, int] = field(default_factory=dict)
    mode: str = "long"
    memory: dict[int, int] = field(default_factory=dict)
    root_32: bool = False
    setup: "Case | None" = None

    @property
    def name(self) -> str:
        """The check, and where it has several cases what is changed."""
        shown = [
            f"{field.name.lower()}{sign}{value:#x}"
            for changes, sign in ((self.set, "="), (self.on, "+"), (self.off, "-"))
            for field, value in changes.items()
        ]
        return " ".join([self.check, self.mode, *shown])


def c(check: str, *, then: dict[str, Any] | None = None, **what: Any) -> Case:
    """A case; `then` is the change where `what` is only what must hold."""
    if then is None:
        return Case(check, **what)
    return Case(check, **then, mode=what.get("mode", "long"), setup=Case("", **what))


_SHADOWED = {PRIMARY: TPR_SHADOW}
_EXTERNAL = {PIN: 1}
_POSTING = {PIN: POSTED | 1, PRIMARY: TPR_SHADOW, SECONDARY: DELIVERY, EXIT: ACKNOWLEDGE}

CONTROLS = (
    c("pin_based_reserved", on={PIN: 1 << 8}),
    c("pin_based_reserved", off={PIN: 1 << 1}),
    c("primary_reserved", on={PRIMARY: 1 << 0}),
    c("primary_reserved", off={PRIMARY: 1 << 26}),
    c("secondary_reserved", on={SECONDARY: 1 << 29}),
    c("tertiary_reserved", set={Field.TERTIARY_VM_EXEC_CONTROL: 1 << 5}, on={PRIMARY: TERTIARY_ON}),
    c("cr3_target_count", set={Field.CR3_TARGET_COUNT: 5}),
    c("io_bitmaps", on={PRIMARY: IO_BITMAPS}, set={Field.IO_BITMAP_A: 0x800}),
    c("io_bitmaps", on={PRIMARY: IO_BITMAPS}, set={Field.IO_BITMAP_B: 1}),
    c("io_bitmaps", on={PRIMARY: IO_BITMAPS}, set={Field.IO_BITMAP_B: BEYOND}),
    c("msr_bitmaps", on={PRIMARY: MSR_BITMAPS}, set={Field.MSR_BITMAP: 0x10}),
    c("msr_bitmaps", on={PRIMARY: MSR_BITMAPS}, set={Field.MSR_BITMAP: BEYOND}),
    c("virtual_apic_address", on=_SHADOWED, set={Field.VIRTUAL_APIC_PAGE_ADDR: 0x30_0800}),
    c("virtual_apic_address", on=_SHADOWED, set={Field.VIRTUAL_APIC_PAGE_ADDR: BEYOND}),
    c("tpr_threshold_reserved", on=_SHADOWED, set={Field.TPR_THRESHOLD: 0x10}),
    c("tpr_threshold_above_vtpr", on=_SHADOWED, set={Field.TPR_THRESHOLD: 3}, memory={0x30_0080: 0x2F}),
    c("virtual_nmis_need_nmi_exiting", on={PIN: VIRTUAL_NMIS}, off={PIN: NMI_EXITING}),
    c("nmi_window_needs_virtual_nmis", on={PRIMARY: NMI_WINDOW}, off={PIN: VIRTUAL_NMIS}),
    c("apic_access_address", on={SECONDARY: APIC_ACCESSES}, set={Field.APIC_ACCESS_ADDR: 0xFEE0_0001}),
    c("apic_access_address", on={SECONDARY: APIC_ACCESSES}, set={Field.APIC_ACCESS_ADDR: BEYOND}),
    c("apic_virtualization_needs_tpr_shadow", on={SECONDARY: X2APIC}),
    c("apic_virtualization_needs_tpr_shadow", on={SECONDARY: REGISTERS}),
    c("apic_virtualization_needs_tpr_shadow", on={SECONDARY: DELIVERY, PIN: 1}),
    c("x2apic_excludes_apic_accesses", on=_SHADOWED | {SECONDARY: X2APIC | APIC_ACCESSES}),
    c("virtual_interrupts_need_external_exiting", on=_SHADOWED | {SECONDARY: DELIVERY}),
    c("posted_interrupts_need_delivery", on={PIN: POSTED, EXIT: ACKNOWLEDGE}),
    c("posted_interrupts_need_acknowledgement", on=_POSTING, off={EXIT: ACKNOWLEDGE}),
    c("posted_notification_vector", on=_POSTING, set={Field.POSTED_INTR_NV: 0x100}),
    c("posted_descriptor_address", on=_POSTING, set={Field.POSTED_INTR_DESC_ADDR: 0x20}),
    c("posted_descriptor_address", on=_POSTING, set={Field.POSTED_INTR_DESC_ADDR: BEYOND}),
    c("vpid_is_not_zero", on={SECONDARY: VPID}, set={Field.VIRTUAL_PROCESSOR_ID: 0}),
    c("ept_memory_type", set={Field.EPT_POINTER: 0x19}),
    c("ept_memory_type", set={Field.EPT_POINTER: 0x1F}),
    c("ept_walk_length", set={Field.EPT_POINTER: 0x16}),
    c("ept_walk_length", set={Field.EPT_POINTER: 0x2E}),
    c("ept_accessed_dirty", set={Field.EPT_POINTER: 0x5E}),
    c("ept_pointer_reserved", set={Field.EPT_POINTER: 0x9E}),
    c("ept_pointer_reserved", set={Field.EPT_POINTER: 0x1E | BEYOND}),
    c("pml_needs_ept", on={SECONDARY: PML}, off={SECONDARY: EPT | UNRESTRICTED}),
    c("pml_address", on={SECONDARY: PML}, set={Field.PML_ADDRESS: 0x123}),
    c("unrestricted_guest_needs_ept", off={SECONDARY: EPT}),
    c("mode_based_execute_needs_ept", on={SECONDARY: MBEC}, off={SECONDARY: EPT | UNRESTRICTED}),
    c("vm_functions_reserved", on={SECONDARY: VM_FUNCTIONS}, set={Field.VM_FUNCTION_CONTROL: 2}),
    c(
        "eptp_switching_needs_ept", on={SECONDARY: VM_FUNCTIONS},
        set={Field.VM_FUNCTION_CONTROL: 1}, off={SECONDARY: EPT | UNRESTRICTED},
    ),
    c(
        "eptp_list_address", on={SECONDARY: VM_FUNCTIONS},
        set={Field.VM_FUNCTION_CONTROL: 1, Field.EPTP_LIST_ADDRESS: 8},
    ),
    c("vmcs_shadowing_bitmaps", on={SECONDARY: SHADOWING}, set={Field.VMREAD_BITMAP: 1}),
    c("vmcs_shadowing_bitmaps", on={SECONDARY: SHADOWING}, set={Field.VMWRITE_BITMAP: BEYOND}),
    c("ve_information_address", on={SECONDARY: VE}, set={Field.VE_INFORMATION_ADDRESS: 0x40}),
    c("tsc_multiplier", on={SECONDARY: SCALING}, set={Field.TSC_MULTIPLIER: 0}),
    c("exit_controls_reserved", off={EXIT: 1 << 0}),
    c("secondary_exit_reserved", on={EXIT: 1 << 31}, set={Field.SECONDARY_VM_EXIT_CONTROLS: 1 << 9}),
    c("saved_timer_is_active", on={EXIT: SAVE_TIMER}),
    c("exit_msr_store_area", set={Field.VM_EXIT_MSR_STORE_COUNT: 1, Field.VM_EXIT_MSR_STORE_ADDR: 8}),
    c(
        "exit_msr_store_area",
        set={Field.VM_EXIT_MSR_STORE_COUNT: 2, Field.VM_EXIT_MSR_STORE_ADDR: BEYOND - 16},
    ),
    c("exit_msr_load_area", set={Field.VM_EXIT_MSR_LOAD_COUNT: 1, Field.VM_EXIT_MSR_LOAD_ADDR: 4}),
    c("entry_controls_reserved", on={ENTRY: 1 << 30}),
    c("entry_controls_reserved", off={ENTRY: 1 << 1}),
    c("injected_type", set={INFO: VALID | 1 << 8}),
    c("injected_vector", set={INFO: VALID | NMI | 3}),
    c("injected_vector", set={INFO: VALID | EXCEPTION | 32}),
    c("injected_vector", set={INFO: VALID | OTHER | 1}, on={PRIMARY: MTF}),
    c("injected_error_code_delivery", set={INFO: VALID | EXCEPTION | 13}),
    c("injected_error_code_delivery", set={INFO: VALID | EXCEPTION | 6 | ERROR_CODE}),
    c("injected_error_code_delivery", set={INFO: VALID | NMI | 2 | ERROR_CODE}),
    c("injected_error_code_delivery", set={INFO: VALID | EXCEPTION | 13 | ERROR_CODE}, mode="real"),
    c("injected_reserved", set={INFO: VALID | EXCEPTION | 6 | 1 << 12}),
    c("injected_reserved", set={INFO: VALID | EXCEPTION | 6 | 1 << 30}),
    c(
        "injected_error_code",
        set={INFO: VALID | EXCEPTION | 13 | ERROR_CODE, Field.VM_ENTRY_EXCEPTION_ERROR_CODE: 1 << 16},
    ),
    c("injected_instruction_length", set={INFO: VALID | SOFTWARE | 0x80, LENGTH: 0}),
    c("injected_instruction_length", set={INFO: VALID | 6 << 8 | 3, LENGTH: 16}),
    c("injected_instruction_length", set={INFO: VALID | 5 << 8 | 1, LENGTH: 16}),
    c("entry_msr_load_area", set={Field.VM_ENTRY_MSR_LOAD_COUNT: 1, Field.VM_ENTRY_MSR_LOAD_ADDR: 1}),
    c("no_system_management", on={ENTRY: 1 << 10}),
    c("no_system_management", on={ENTRY: 1 << 11}),
)  # fmt: skip

HOST = (
    c("host_cr0", off={Field.HOST_CR0: 1 << 31}),
    c("host_cr0", on={Field.HOST_CR0: 1 << 32}),
    c("host_cr4", off={Field.HOST_CR4: 1 << 13}),
    c("host_cr4", on={Field.HOST_CR4: 1 << 30}),
    c("host_cr3", set={Field.HOST_CR3: BEYOND}),
    c("host_sysenter", set={Field.HOST_IA32_SYSENTER_ESP: NON_CANONICAL}),
    c("host_sysenter", set={Field.HOST_IA32_SYSENTER_EIP: NON_CANONICAL}),
    c("host_pat", set={Field.HOST_IA32_PAT: 2}),
    c("host_pat", set={Field.HOST_IA32_PAT: 3 << 56}),
    c("host_pat", set={Field.HOST_IA32_PAT: 8 << 8}),
    c("host_efer", off={Field.HOST_IA32_EFER: 1 << 10}),
    c("host_efer", off={Field.HOST_IA32_EFER: 1 << 8}),
    c("host_efer", on={Field.HOST_IA32_EFER: 1 << 1}),
    *(
        c("host_selectors", on={Field[f"HOST_{s}_SELECTOR"]: bit})
        for s, bit in zip(("CS", "SS", "DS", "ES", "FS", "GS", "TR"), (4, 1, 2, 4, 1, 2, 4), strict=True)
    ),
    c("host_cs", set={Field.HOST_CS_SELECTOR: 0}),
    c("host_tr", set={Field.HOST_TR_SELECTOR: 0}),
    c(
        "host_ss", root_32=True, set={Field.HOST_SS_SELECTOR: 0, Field.HOST_RIP: 0x1000},
        off={EXIT: HOST_64, Field.HOST_IA32_EFER: 0x500}, mode="protected",
    ),
    *(c("host_bases", set={Field[f"HOST_{s}_BASE"]: NON_CANONICAL}) for s in ("FS", "GS", "TR")),
    *(c("host_bases", set={Field[f"HOST_{s}_BASE"]: NON_CANONICAL}) for s in ("GDTR", "IDTR")),
    c(
        "host_size_of_root", off={EXIT: HOST_64, Field.HOST_IA32_EFER: 0x500},
        set={Field.HOST_RIP: 0x1000}, mode="protected",
    ),
    c("host_size_of_root", root_32=True),
    c(
        "host_size_32", root_32=True, set={Field.HOST_RIP: 1 << 32},
        off={EXIT: HOST_64, Field.HOST_IA32_EFER: 0x500}, mode="protected",
    ),
    c(
        "host_size_32", root_32=True, set={Field.HOST_RIP: 0x1000}, on={Field.HOST_CR4: 1 << 17},
        off={EXIT: HOST_64, Field.HOST_IA32_EFER: 0x500}, mode="protected",
    ),
    c("host_size_64", off={Field.HOST_CR4: 1 << 5}),
    c("host_size_64", set={Field.HOST_RIP: NON_CANONICAL}),
)  # fmt: skip
