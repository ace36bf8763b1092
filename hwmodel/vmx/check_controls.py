"""The checks on VM-execution, VM-exit and VM-entry control fields, one function each.

In the order of the manual's "Checks on VMX Controls". True means that the check passes. The C twin
is cext/check_controls.c, with the same names in the same order.
"""

from hwmodel.arch.controls import (
    EntryControls,
    ExitControls,
    PinBased,
    Primary,
    Secondary,
    SecondaryExit,
    Tertiary,
)
from hwmodel.arch.events import EventType, InterruptionInformation, Vector
from hwmodel.arch.vmcs import Field
from hwmodel.vmx.entry_view import EntryView

_WITH_ERROR_CODE = frozenset(
    {Vector.DF, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.PF, Vector.AC}
)
_BY_INSTRUCTION = (4, 5, 6)


def pin_based_reserved(v: EntryView) -> bool:
    """Pin-based controls are set as IA32_VMX_PINBASED_CTLS allows."""
    return not v.caps.allowed(PinBased).refuses(v.pin)


def primary_reserved(v: EntryView) -> bool:
    """Primary controls are set as IA32_VMX_PROCBASED_CTLS allows."""
    return not v.caps.allowed(Primary).refuses(v.primary)


def secondary_reserved(v: EntryView) -> bool:
    """Secondary controls, if activated, are set as IA32_VMX_PROCBASED_CTLS2 allows."""
    return not v.caps.allowed(Secondary).refuses(v.secondary)


def tertiary_reserved(v: EntryView) -> bool:
    """Tertiary controls, if activated, are set as IA32_VMX_PROCBASED_CTLS3 allows."""
    return not v.caps.allowed(Tertiary).refuses(v.tertiary)


def cr3_target_count(v: EntryView) -> bool:
    """There are at most as many CR3 targets as IA32_VMX_MISC says."""
    return v[Field.CR3_TARGET_COUNT] <= v.caps.misc.cr3_targets


def io_bitmaps(v: EntryView) -> bool:
    """I/O bitmaps, if used, stand at page boundaries within the physical-address width."""
    if not v.primary.use_io_bitmaps:
        return True
    return all(v.is_address(v[f], aligned=12) for f in (Field.IO_BITMAP_A, Field.IO_BITMAP_B))


def msr_bitmaps(v: EntryView) -> bool:
    """MSR bitmaps, if used, stand at a page boundary within the physical-address width."""
    return not v.primary.use_msr_bitmaps or v.is_address(v[Field.MSR_BITMAP], aligned=12)


def virtual_apic_address(v: EntryView) -> bool:
    """With a TPR shadow the virtual-APIC page is one."""
    return not v.primary.use_tpr_shadow or v.is_address(v[Field.VIRTUAL_APIC_PAGE_ADDR], aligned=12)


def tpr_threshold_reserved(v: EntryView) -> bool:
    """Bits 31:4 of the TPR threshold are 0, unless virtual interrupts are delivered."""
    applies = v.primary.use_tpr_shadow and not v.secondary.virtual_interrupt_delivery
    return not applies or v[Field.TPR_THRESHOLD] >> 4 == 0


def tpr_threshold_above_vtpr(v: EntryView) -> bool:
    """The TPR threshold is not above VTPR's class, where nothing else watches VTPR."""
    quiet = v.secondary.virtualize_apic_accesses or v.secondary.virtual_interrupt_delivery
    if not v.primary.use_tpr_shadow or quiet:
        return True
    vtpr = v.read(v[Field.VIRTUAL_APIC_PAGE_ADDR] + 0x80, 1)
    return v[Field.TPR_THRESHOLD] & 15 <= vtpr >> 4


def virtual_nmis_need_nmi_exiting(v: EntryView) -> bool:
    """Virtual NMIs need NMI exiting."""
    return v.pin.nmi_exiting or not v.pin.virtual_nmis


def nmi_window_needs_virtual_nmis(v: EntryView) -> bool:
    """NMI-window exiting needs virtual NMIs."""
    return v.pin.virtual_nmis or not v.primary.nmi_window_exiting


def apic_access_address(v: EntryView) -> bool:
    """With virtualized APIC accesses the APIC-access page is one."""
    applies = v.secondary.virtualize_apic_accesses
    return not applies or v.is_address(v[Field.APIC_ACCESS_ADDR], aligned=12)


def apic_virtualization_needs_tpr_shadow(v: EntryView) -> bool:
    """x2APIC mode, register virtualization and interrupt delivery need a TPR shadow."""
    s = v.secondary
    virtual = s.virtualize_x2apic_mode, s.apic_register_virtualization, s.virtual_interrupt_delivery
    return v.primary.use_tpr_shadow or not any(virtual)


def x2apic_excludes_apic_accesses(v: EntryView) -> bool:
    """APIC accesses are virtualized in x2APIC mode or in memory, not both."""
    return not (v.secondary.virtualize_x2apic_mode and v.secondary.virtualize_apic_accesses)


def virtual_interrupts_need_external_exiting(v: EntryView) -> bool:
    """Virtual-interrupt delivery needs external-interrupt exiting."""
    return v.pin.external_interrupt_exiting or not v.secondary.virtual_interrupt_delivery


def posted_interrupts_need_delivery(v: EntryView) -> bool:
    """Posted interrupts need virtual-interrupt delivery."""
    return v.secondary.virtual_interrupt_delivery or not v.pin.process_posted_interrupts


def posted_interrupts_need_acknowledgement(v: EntryView) -> bool:
    """Posted interrupts need that exits acknowledge interrupts."""
    return v.exit.acknowledge_interrupt_on_exit or not v.pin.process_posted_interrupts


def posted_notification_vector(v: EntryView) -> bool:
    """The posted-interrupt notification vector is a vector: 0 to 255."""
    return not v.pin.process_posted_interrupts or v[Field.POSTED_INTR_NV] <= 255


def posted_descriptor_address(v: EntryView) -> bool:
    """The posted-interrupt descriptor stands at a multiple of 64 within the address width."""
    applies = v.pin.process_posted_interrupts
    return not applies or v.is_address(v[Field.POSTED_INTR_DESC_ADDR], aligned=6)


def vpid_is_not_zero(v: EntryView) -> bool:
    """With VPIDs, the guest's is not 0: that is the host's."""
    return not v.secondary.enable_vpid or v[Field.VIRTUAL_PROCESSOR_ID] != 0


def ept_memory_type(v: EntryView) -> bool:
    """The EPT pointer's memory type is one that IA32_VMX_EPT_VPID_CAP reports."""
    can = v.caps.ept_vpid
    types = {0: can.memory_type_uc, 6: can.memory_type_wb}
    return not v.secondary.enable_ept or types.get(v[Field.EPT_POINTER] & 7, False)


def ept_walk_length(v: EntryView) -> bool:
    """The EPT pointer's page-walk length is one that IA32_VMX_EPT_VPID_CAP reports."""
    can = v.caps.ept_vpid
    lengths = {3: can.walk_length_4, 4: can.walk_length_5}
    return not v.secondary.enable_ept or lengths.get(v[Field.EPT_POINTER] >> 3 & 7, False)


def ept_accessed_dirty(v: EntryView) -> bool:
    """Accessed and dirty flags for EPT are enabled only where they exist."""
    applies = v.secondary.enable_ept and not v.caps.ept_vpid.accessed_dirty
    return not applies or not v[Field.EPT_POINTER] >> 6 & 1


def ept_pointer_reserved(v: EntryView) -> bool:
    """Bits 11:7 of the EPT pointer and those beyond the address width are 0."""
    if not v.secondary.enable_ept:
        return True
    return not v[Field.EPT_POINTER] & 0xF80 and v[Field.EPT_POINTER] >> v.caps.physical_bits == 0


def pml_needs_ept(v: EntryView) -> bool:
    """Page-modification logging needs EPT."""
    return v.secondary.enable_ept or not v.secondary.enable_pml


def pml_address(v: EntryView) -> bool:
    """The page-modification log is a page within the physical-address width."""
    return not v.secondary.enable_pml or v.is_address(v[Field.PML_ADDRESS], aligned=12)


def unrestricted_guest_needs_ept(v: EntryView) -> bool:
    """An unrestricted guest needs EPT."""
    return v.secondary.enable_ept or not v.secondary.unrestricted_guest


def mode_based_execute_needs_ept(v: EntryView) -> bool:
    """Mode-based execute control for EPT needs EPT."""
    return v.secondary.enable_ept or not v.secondary.mode_based_execute_control_for_ept


def vm_functions_reserved(v: EntryView) -> bool:
    """VM functions, if enabled, are those that IA32_VMX_VMFUNC reports."""
    if not v.secondary.enable_vm_functions:
        return True
    return not v[Field.VM_FUNCTION_CONTROL] & ~int(v.caps.vm_functions)


def eptp_switching_needs_ept(v: EntryView) -> bool:
    """EPTP switching needs EPT."""
    switches = v.secondary.enable_vm_functions and v[Field.VM_FUNCTION_CONTROL] & 1
    return v.secondary.enable_ept or not switches


def eptp_list_address(v: EntryView) -> bool:
    """The EPTP list is a page within the physical-address width."""
    switches = v.secondary.enable_vm_functions and v[Field.VM_FUNCTION_CONTROL] & 1
    return not switches or v.is_address(v[Field.EPTP_LIST_ADDRESS], aligned=12)


def vmcs_shadowing_bitmaps(v: EntryView) -> bool:
    """With VMCS shadowing the VMREAD and VMWRITE bitmaps are pages."""
    if not v.secondary.vmcs_shadowing:
        return True
    return all(v.is_address(v[f], aligned=12) for f in (Field.VMREAD_BITMAP, Field.VMWRITE_BITMAP))


def ve_information_address(v: EntryView) -> bool:
    """With EPT-violation #VE the information area is a page."""
    applies = v.secondary.ept_violation_ve
    return not applies or v.is_address(v[Field.VE_INFORMATION_ADDRESS], aligned=12)


def tsc_multiplier(v: EntryView) -> bool:
    """With TSC scaling the multiplier is not 0."""
    return not v.secondary.use_tsc_scaling or v[Field.TSC_MULTIPLIER] != 0


def exit_controls_reserved(v: EntryView) -> bool:
    """VM-exit controls are set as IA32_VMX_EXIT_CTLS allows."""
    return not v.caps.allowed(ExitControls).refuses(v.exit)


def secondary_exit_reserved(v: EntryView) -> bool:
    """Secondary VM-exit controls, if activated, are set as IA32_VMX_EXIT_CTLS2 allows."""
    if not v.exit.activate_secondary_exit_controls:
        return True
    return not v.caps.allowed(SecondaryExit).refuses(v[Field.SECONDARY_VM_EXIT_CONTROLS])


def saved_timer_is_active(v: EntryView) -> bool:
    """The VMX-preemption timer is saved only if it is active."""
    return v.pin.activate_vmx_preemption_timer or not v.exit.save_vmx_preemption_timer_value


def exit_msr_store_area(v: EntryView) -> bool:
    """The VM-exit MSR-store area is aligned and within the physical-address width."""
    return v.is_msr_area(v[Field.VM_EXIT_MSR_STORE_ADDR], v[Field.VM_EXIT_MSR_STORE_COUNT])


def exit_msr_load_area(v: EntryView) -> bool:
    """The VM-exit MSR-load area is aligned and within the physical-address width."""
    return v.is_msr_area(v[Field.VM_EXIT_MSR_LOAD_ADDR], v[Field.VM_EXIT_MSR_LOAD_COUNT])


def entry_controls_reserved(v: EntryView) -> bool:
    """VM-entry controls are set as IA32_VMX_ENTRY_CTLS allows."""
    return not v.caps.allowed(EntryControls).refuses(v.entry)


def injected_type(v: EntryView) -> bool:
    """An injected event has a type that exists: not 1, and 7 only with a monitor trap flag."""
    if v.injects is None:
        return True
    has_mtf = Primary(int(v.caps.supported[Primary])).monitor_trap_flag
    return v.injected_type != EventType.RESERVED and (v.injected_type != EventType.OTHER or has_mtf)


def injected_vector(v: EntryView) -> bool:
    """An injected event's vector fits its type: NMI 2, exceptions to 31, other events 0."""
    if v.injects is None:
        return True
    vector = v.injects & 0xFF
    limits = {EventType.NMI: (2, 2), EventType.HARDWARE_EXCEPTION: (0, 31), EventType.OTHER: (0, 0)}
    low, high = limits.get(EventType(v.injects >> 8 & 7), (0, 255))
    return low <= vector <= high


def injected_error_code_delivery(v: EntryView) -> bool:
    """An error code is delivered with just those exceptions that have one in protected mode."""
    if v.injects is None:
        return True
    info = InterruptionInformation(v.injects)
    exception = v.injected_type == EventType.HARDWARE_EXCEPTION and v.cr0.pe
    wants = exception and info.vector in _WITH_ERROR_CODE
    if exception and v.caps.basic.error_code_optional:
        return True
    return info.has_error_code == wants


def injected_reserved(v: EntryView) -> bool:
    """Bits 30:12 of the interruption information are 0."""
    return v.injects is None or not v.injects & 0x7FFF_F000


def injected_error_code(v: EntryView) -> bool:
    """Bits 31:16 of an error code that is delivered are 0."""
    delivers = v.injects is not None and v.injects >> 11 & 1
    return not delivers or v[Field.VM_ENTRY_EXCEPTION_ERROR_CODE] >> 16 == 0


def injected_instruction_length(v: EntryView) -> bool:
    """A software interrupt or exception has a length of 1 to 15, or 0 where that is allowed."""
    if v.injected_type not in _BY_INSTRUCTION:
        return True
    shortest = 0 if v.caps.misc.zero_length_injection else 1
    return shortest <= v[Field.VM_ENTRY_INSTRUCTION_LEN] <= 15


def entry_msr_load_area(v: EntryView) -> bool:
    """The VM-entry MSR-load area is aligned and within the physical-address width."""
    return v.is_msr_area(v[Field.VM_ENTRY_MSR_LOAD_ADDR], v[Field.VM_ENTRY_MSR_LOAD_COUNT])


def no_system_management(v: EntryView) -> bool:
    """Outside SMM an entry neither goes to SMM nor ends its dual-monitor treatment."""
    return not v.entry.entry_to_smm and not v.entry.deactivate_dual_monitor_treatment


CONTROL_CHECKS = (
    pin_based_reserved, primary_reserved, secondary_reserved, tertiary_reserved, cr3_target_count,
    io_bitmaps, msr_bitmaps, virtual_apic_address, tpr_threshold_reserved,
    tpr_threshold_above_vtpr, virtual_nmis_need_nmi_exiting, nmi_window_needs_virtual_nmis,
    apic_access_address, apic_virtualization_needs_tpr_shadow, x2apic_excludes_apic_accesses,
    virtual_interrupts_need_external_exiting, posted_interrupts_need_delivery,
    posted_interrupts_need_acknowledgement, posted_notification_vector, posted_descriptor_address,
    vpid_is_not_zero, ept_memory_type, ept_walk_length, ept_accessed_dirty, ept_pointer_reserved,
    pml_needs_ept, pml_address, unrestricted_guest_needs_ept, mode_based_execute_needs_ept,
    vm_functions_reserved, eptp_switching_needs_ept, eptp_list_address, vmcs_shadowing_bitmaps,
    ve_information_address, tsc_multiplier, exit_controls_reserved, secondary_exit_reserved,
    saved_timer_is_active, exit_msr_store_area, exit_msr_load_area, entry_controls_reserved,
    injected_type, injected_vector, injected_error_code_delivery, injected_reserved,
    injected_error_code, injected_instruction_length, entry_msr_load_area, no_system_management,
)  # fmt: skip
