/* Manual, "Checks on VMX Controls": execution, exit and entry controls. Failure is VM-instruction error 7. */
#include "entry.h"

static bool allowed(const struct entry *n, int word, uint64_t value)
{
    const struct vmx_capabilities *c = n->caps;
    return !((c->must_be_1[word] & ~value) | (value & ~c->may_be_1[word]));
}

static bool pin_based_reserved(const struct entry *n) { return allowed(n, CONTROLS_PIN, F(PIN_BASED_VM_EXEC_CONTROL)); }
static bool primary_reserved(const struct entry *n) { return allowed(n, CONTROLS_PRIMARY, F(CPU_BASED_VM_EXEC_CONTROL)); }
static bool secondary_reserved(const struct entry *n) { return allowed(n, CONTROLS_SECONDARY, secondary_word(n)); }

static bool tertiary_reserved(const struct entry *n)
{
    return !primary(n, PRIMARY_ACTIVATE_TERTIARY_CONTROLS) || allowed(n, CONTROLS_TERTIARY, F(TERTIARY_VM_EXEC_CONTROL));
}

static bool cr3_target_count(const struct entry *n) { return F(CR3_TARGET_COUNT) <= (n->caps->misc >> 16 & 0x1ff); }

static bool io_bitmaps(const struct entry *n)
{
    return !primary(n, PRIMARY_USE_IO_BITMAPS) || (is_address(n, F(IO_BITMAP_A), 12) && is_address(n, F(IO_BITMAP_B), 12));
}

static bool msr_bitmaps(const struct entry *n) { return !primary(n, PRIMARY_USE_MSR_BITMAPS) || is_address(n, F(MSR_BITMAP), 12); }

static bool virtual_apic_address(const struct entry *n)
{
    return !primary(n, PRIMARY_USE_TPR_SHADOW) || is_address(n, F(VIRTUAL_APIC_PAGE_ADDR), 12);
}

static bool tpr_threshold_reserved(const struct entry *n)
{
    return !primary(n, PRIMARY_USE_TPR_SHADOW) || secondary(n, SECONDARY_VIRTUAL_INTERRUPT_DELIVERY) || !(F(TPR_THRESHOLD) >> 4);
}

static bool tpr_threshold_above_vtpr(const struct entry *n)
{
    const uint64_t quiet = SECONDARY_VIRTUALIZE_APIC_ACCESSES | SECONDARY_VIRTUAL_INTERRUPT_DELIVERY;
    if (!primary(n, PRIMARY_USE_TPR_SHADOW) || secondary(n, quiet))
        return true;
    return (F(TPR_THRESHOLD) & 15) <= entry_memory(n, F(VIRTUAL_APIC_PAGE_ADDR) + 0x80, 1) >> 4;
}

static bool virtual_nmis_need_nmi_exiting(const struct entry *n) { return pin(n, PIN_NMI_EXITING) || !pin(n, PIN_VIRTUAL_NMIS); }
static bool nmi_window_needs_virtual_nmis(const struct entry *n)
{
    return pin(n, PIN_VIRTUAL_NMIS) || !primary(n, PRIMARY_NMI_WINDOW_EXITING);
}

static bool apic_access_address(const struct entry *n)
{
    return !secondary(n, SECONDARY_VIRTUALIZE_APIC_ACCESSES) || is_address(n, F(APIC_ACCESS_ADDR), 12);
}

static bool apic_virtualization_needs_tpr_shadow(const struct entry *n)
{
    const uint64_t virtual = SECONDARY_VIRTUALIZE_X2APIC_MODE | SECONDARY_APIC_REGISTER_VIRTUALIZATION | SECONDARY_VIRTUAL_INTERRUPT_DELIVERY;
    return primary(n, PRIMARY_USE_TPR_SHADOW) || !secondary(n, virtual);
}

static bool x2apic_excludes_apic_accesses(const struct entry *n)
{
    return !(secondary(n, SECONDARY_VIRTUALIZE_X2APIC_MODE) && secondary(n, SECONDARY_VIRTUALIZE_APIC_ACCESSES));
}

static bool virtual_interrupts_need_external_exiting(const struct entry *n)
{
    return pin(n, PIN_EXTERNAL_INTERRUPT_EXITING) || !secondary(n, SECONDARY_VIRTUAL_INTERRUPT_DELIVERY);
}

static bool posted_interrupts_need_delivery(const struct entry *n)
{
    return secondary(n, SECONDARY_VIRTUAL_INTERRUPT_DELIVERY) || !pin(n, PIN_PROCESS_POSTED_INTERRUPTS);
}

static bool posted_interrupts_need_acknowledgement(const struct entry *n)
{
    return exit_control(n, VM_EXIT_ACKNOWLEDGE_INTERRUPT_ON_EXIT) || !pin(n, PIN_PROCESS_POSTED_INTERRUPTS);
}

static bool posted_notification_vector(const struct entry *n)
{
    return !pin(n, PIN_PROCESS_POSTED_INTERRUPTS) || F(POSTED_INTR_NV) <= 255;
}

static bool posted_descriptor_address(const struct entry *n)
{
    return !pin(n, PIN_PROCESS_POSTED_INTERRUPTS) || is_address(n, F(POSTED_INTR_DESC_ADDR), 6);
}

static bool vpid_is_not_zero(const struct entry *n) { return !secondary(n, SECONDARY_ENABLE_VPID) || F(VIRTUAL_PROCESSOR_ID); }

enum { CAP_WALK_4 = 6, CAP_WALK_5 = 7, CAP_UC = 8, CAP_WB = 14, CAP_ACCESSED_DIRTY = 21 };
static bool ept_can(const struct entry *n, int bit) { return n->caps->ept_vpid >> bit & 1; }

static bool ept_memory_type(const struct entry *n)
{
    uint64_t type = F(EPT_POINTER) & 7;
    return !secondary(n, SECONDARY_ENABLE_EPT) || (type == 0 && ept_can(n, CAP_UC)) || (type == 6 && ept_can(n, CAP_WB));
}

static bool ept_walk_length(const struct entry *n)
{
    uint64_t length = F(EPT_POINTER) >> 3 & 7;
    return !secondary(n, SECONDARY_ENABLE_EPT) || (length == 3 && ept_can(n, CAP_WALK_4)) || (length == 4 && ept_can(n, CAP_WALK_5));
}

static bool ept_accessed_dirty(const struct entry *n)
{
    return !secondary(n, SECONDARY_ENABLE_EPT) || ept_can(n, CAP_ACCESSED_DIRTY) || !(F(EPT_POINTER) >> 6 & 1);
}

static bool ept_pointer_reserved(const struct entry *n)
{
    return !secondary(n, SECONDARY_ENABLE_EPT) || (!(F(EPT_POINTER) & 0xf80) && within_width(n, F(EPT_POINTER)));
}

static bool pml_needs_ept(const struct entry *n) { return secondary(n, SECONDARY_ENABLE_EPT) || !secondary(n, SECONDARY_ENABLE_PML); }
static bool pml_address(const struct entry *n) { return !secondary(n, SECONDARY_ENABLE_PML) || is_address(n, F(PML_ADDRESS), 12); }
static bool unrestricted_guest_needs_ept(const struct entry *n) { return secondary(n, SECONDARY_ENABLE_EPT) || !unrestricted(n); }
static bool mode_based_execute_needs_ept(const struct entry *n)
{
    return secondary(n, SECONDARY_ENABLE_EPT) || !secondary(n, SECONDARY_MODE_BASED_EXECUTE_CONTROL_FOR_EPT);
}

static bool vm_functions_reserved(const struct entry *n)
{
    return !secondary(n, SECONDARY_ENABLE_VM_FUNCTIONS) || !(F(VM_FUNCTION_CONTROL) & ~n->caps->vm_functions);
}

static bool switches_eptp(const struct entry *n) { return secondary(n, SECONDARY_ENABLE_VM_FUNCTIONS) && F(VM_FUNCTION_CONTROL) & 1; }
static bool eptp_switching_needs_ept(const struct entry *n) { return secondary(n, SECONDARY_ENABLE_EPT) || !switches_eptp(n); }
static bool eptp_list_address(const struct entry *n) { return !switches_eptp(n) || is_address(n, F(EPTP_LIST_ADDRESS), 12); }

static bool vmcs_shadowing_bitmaps(const struct entry *n)
{
    return !secondary(n, SECONDARY_VMCS_SHADOWING) || (is_address(n, F(VMREAD_BITMAP), 12) && is_address(n, F(VMWRITE_BITMAP), 12));
}

static bool ve_information_address(const struct entry *n)
{
    return !secondary(n, SECONDARY_EPT_VIOLATION_VE) || is_address(n, F(VE_INFORMATION_ADDRESS), 12);
}

static bool tsc_multiplier(const struct entry *n) { return !secondary(n, SECONDARY_USE_TSC_SCALING) || F(TSC_MULTIPLIER); }

/* ---- exit controls ---- */

static bool is_msr_area(const struct entry *n, uint64_t address, uint64_t count)
{
    return !count || (is_address(n, address, 4) && within_width(n, address + count * 16 - 1));
}

static bool exit_controls_reserved(const struct entry *n) { return allowed(n, CONTROLS_EXIT, F(VM_EXIT_CONTROLS)); }

static bool secondary_exit_reserved(const struct entry *n)
{
    return !exit_control(n, VM_EXIT_ACTIVATE_SECONDARY_EXIT_CONTROLS) || allowed(n, CONTROLS_EXIT2, F(SECONDARY_VM_EXIT_CONTROLS));
}

static bool saved_timer_is_active(const struct entry *n)
{
    return pin(n, PIN_ACTIVATE_VMX_PREEMPTION_TIMER) || !exit_control(n, VM_EXIT_SAVE_VMX_PREEMPTION_TIMER_VALUE);
}

static bool exit_msr_store_area(const struct entry *n) { return is_msr_area(n, F(VM_EXIT_MSR_STORE_ADDR), F(VM_EXIT_MSR_STORE_COUNT)); }
static bool exit_msr_load_area(const struct entry *n) { return is_msr_area(n, F(VM_EXIT_MSR_LOAD_ADDR), F(VM_EXIT_MSR_LOAD_COUNT)); }

/* ---- entry controls ---- */

static bool entry_controls_reserved(const struct entry *n) { return allowed(n, CONTROLS_ENTRY, F(VM_ENTRY_CONTROLS)); }

static bool injected_type(const struct entry *n)
{
    bool has_mtf = n->caps->may_be_1[CONTROLS_PRIMARY] & PRIMARY_MONITOR_TRAP_FLAG;
    return !injects_type(n, INTR_TYPE_RESERVED) && (!injects_type(n, INTR_TYPE_OTHER) || has_mtf);
}

static bool injected_vector(const struct entry *n)
{
    uint64_t vector = F(VM_ENTRY_INTR_INFO_FIELD) & 0xff;
    return (!injects_type(n, INTR_TYPE_NMI) || vector == 2) && (!injects_type(n, INTR_TYPE_HARDWARE_EXCEPTION) || vector <= 31) &&
           (!injects_type(n, INTR_TYPE_OTHER) || !vector);
}

static bool injected_error_code_delivery(const struct entry *n)
{
    const uint32_t with_error = 1u << 8 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 17;
    uint64_t info = F(VM_ENTRY_INTR_INFO_FIELD), vector = info & 0xff;
    bool exception = injects_type(n, INTR_TYPE_HARDWARE_EXCEPTION) && F(GUEST_CR0) & CR0_PE, optional = n->caps->basic >> 56 & 1;
    bool wants = exception && vector < 32 && with_error >> vector & 1;
    return !injects(n) || (exception && optional) || (info >> 11 & 1) == wants;
}

static bool injected_reserved(const struct entry *n) { return !injects(n) || !(F(VM_ENTRY_INTR_INFO_FIELD) & 0x7ffff000); }

static bool injected_error_code(const struct entry *n)
{
    return !injects(n) || !(F(VM_ENTRY_INTR_INFO_FIELD) >> 11 & 1) || !(F(VM_ENTRY_EXCEPTION_ERROR_CODE) >> 16);
}

static bool injected_instruction_length(const struct entry *n)
{
    uint64_t length = F(VM_ENTRY_INSTRUCTION_LEN), shortest = n->caps->misc >> 30 & 1 ? 0 : 1;
    bool by_instruction = injects_type(n, INTR_TYPE_SOFTWARE_INTERRUPT) || injects_type(n, INTR_TYPE_PRIVILEGED_SOFTWARE_EXCEPTION) ||
                          injects_type(n, INTR_TYPE_SOFTWARE_EXCEPTION);
    return !by_instruction || (length >= shortest && length <= 15);
}

static bool entry_msr_load_area(const struct entry *n) { return is_msr_area(n, F(VM_ENTRY_MSR_LOAD_ADDR), F(VM_ENTRY_MSR_LOAD_COUNT)); }

static bool no_system_management(const struct entry *n)
{
    return !entry_control(n, VM_ENTRY_ENTRY_TO_SMM | VM_ENTRY_DEACTIVATE_DUAL_MONITOR_TREATMENT);
}

static const struct check rows[] = {
    ROW(pin_based_reserved), ROW(primary_reserved), ROW(secondary_reserved), ROW(tertiary_reserved), ROW(cr3_target_count),
    ROW(io_bitmaps), ROW(msr_bitmaps), ROW(virtual_apic_address), ROW(tpr_threshold_reserved), ROW(tpr_threshold_above_vtpr),
    ROW(virtual_nmis_need_nmi_exiting), ROW(nmi_window_needs_virtual_nmis), ROW(apic_access_address),
    ROW(apic_virtualization_needs_tpr_shadow), ROW(x2apic_excludes_apic_accesses), ROW(virtual_interrupts_need_external_exiting),
    ROW(posted_interrupts_need_delivery), ROW(posted_interrupts_need_acknowledgement), ROW(posted_notification_vector),
    ROW(posted_descriptor_address), ROW(vpid_is_not_zero), ROW(ept_memory_type), ROW(ept_walk_length), ROW(ept_accessed_dirty),
    ROW(ept_pointer_reserved), ROW(pml_needs_ept), ROW(pml_address), ROW(unrestricted_guest_needs_ept), ROW(mode_based_execute_needs_ept),
    ROW(vm_functions_reserved), ROW(eptp_switching_needs_ept), ROW(eptp_list_address), ROW(vmcs_shadowing_bitmaps),
    ROW(ve_information_address), ROW(tsc_multiplier), ROW(exit_controls_reserved), ROW(secondary_exit_reserved),
    ROW(saved_timer_is_active), ROW(exit_msr_store_area), ROW(exit_msr_load_area), ROW(entry_controls_reserved), ROW(injected_type),
    ROW(injected_vector), ROW(injected_error_code_delivery), ROW(injected_reserved), ROW(injected_error_code),
    ROW(injected_instruction_length), ROW(entry_msr_load_area), ROW(no_system_management),
};
const struct check_list control_checks = LIST(rows);
