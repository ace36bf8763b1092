/* Manual: the checks on guest control registers, debug registers, MSRs, RIP, RFLAGS, non-register state and PDPTEs. */
#include "entry.h"

static bool loads_debug(const struct entry *n) { return entry_control(n, VM_ENTRY_LOAD_DEBUG_CONTROLS); }
static bool loads_efer(const struct entry *n) { return entry_control(n, VM_ENTRY_LOAD_IA32_EFER); }

static bool cr0_fixed(const struct entry *n)
{
    uint64_t fixed0 = n->caps->cr0_fixed0 & ~(unrestricted(n) ? CR0_PE | CR0_PG : 0);
    return !(fixed0 & ~F(GUEST_CR0)) && !(F(GUEST_CR0) & ~n->caps->cr0_fixed1);
}

static bool cr0_paging_needs_protection(const struct entry *n) { return F(GUEST_CR0) & CR0_PE || !(F(GUEST_CR0) & CR0_PG); }

static bool cr4_fixed(const struct entry *n)
{
    return !(n->caps->cr4_fixed0 & ~F(GUEST_CR4)) && !(F(GUEST_CR4) & ~n->caps->cr4_fixed1);
}

static bool debugctl_reserved(const struct entry *n) { return !loads_debug(n) || !(F(GUEST_IA32_DEBUGCTL) & ~n->caps->debugctl_bits); }
static bool ia32e_needs_paging(const struct entry *n) { return !is_ia32e(n) || (F(GUEST_CR0) & CR0_PG && F(GUEST_CR4) & CR4_PAE); }
static bool pcid_needs_ia32e(const struct entry *n) { return is_ia32e(n) || !(F(GUEST_CR4) & CR4_PCIDE); }
static bool cr3_width(const struct entry *n) { return within_width(n, F(GUEST_CR3)); }
static bool dr7_upper_half(const struct entry *n) { return !loads_debug(n) || !(F(GUEST_DR7) >> 32); }
static bool guest_sysenter(const struct entry *n) { return is_canonical_for(n, F(GUEST_SYSENTER_ESP)) && is_canonical_for(n, F(GUEST_SYSENTER_EIP)); }
static bool guest_pat(const struct entry *n) { return !entry_control(n, VM_ENTRY_LOAD_IA32_PAT) || is_pat(F(GUEST_IA32_PAT)); }
static bool efer_reserved(const struct entry *n) { return !loads_efer(n) || !(F(GUEST_IA32_EFER) & ~n->caps->efer_bits); }
static bool efer_lma(const struct entry *n) { return !loads_efer(n) || !(F(GUEST_IA32_EFER) & EFER_LMA) == !is_ia32e(n); }
static bool efer_lme(const struct entry *n)
{
    return !loads_efer(n) || !(F(GUEST_CR0) & CR0_PG) || !(F(GUEST_IA32_EFER) & EFER_LMA) == !(F(GUEST_IA32_EFER) & EFER_LME);
}

/* ---- RIP, RFLAGS ---- */

static bool rip_width(const struct entry *n)
{
    bool wide = is_ia32e(n) && F(GUEST_CS_AR_BYTES) & AR_L;
    int64_t above = (int64_t)F(GUEST_RIP) >> n->caps->linear_bits;
    return wide ? above == 0 || above == -1 : !(F(GUEST_RIP) >> 32);
}

static bool rflags_reserved(const struct entry *n)
{
    const uint64_t reserved = ~0x3fffffull | 1 << 15 | 1 << 5 | 1 << 3;
    return !(F(GUEST_RFLAGS) & reserved) && F(GUEST_RFLAGS) & RFLAGS_ALWAYS_1;
}

static bool rflags_vm(const struct entry *n) { return !is_vm86(n) || (!is_ia32e(n) && F(GUEST_CR0) & CR0_PE); }
static bool rflags_if_for_interrupt(const struct entry *n) { return !injects_type(n, INTR_TYPE_EXTERNAL_INTERRUPT) || F(GUEST_RFLAGS) & RFLAGS_IF; }

/* ---- activity, interruptibility, pending debug exceptions ---- */

static bool blocking(const struct entry *n, uint64_t by) { return F(GUEST_INTERRUPTIBILITY_INFO) & by; }
enum { SHADOW = 3, IN_HLT = 1, IN_SHUTDOWN = 2 };

static bool activity_exists(const struct entry *n)
{
    uint64_t activity = F(GUEST_ACTIVITY_STATE);
    return activity == 0 || (activity < 4 && n->caps->misc >> (5 + activity) & 1);
}

static bool halted_at_cpl_0(const struct entry *n) { return F(GUEST_ACTIVITY_STATE) != IN_HLT || !(F(GUEST_SS_AR_BYTES) & AR_DPL); }
static bool active_in_shadow(const struct entry *n) { return !blocking(n, SHADOW) || !F(GUEST_ACTIVITY_STATE); }

static bool activity_takes_event(const struct entry *n)
{
    uint64_t activity = F(GUEST_ACTIVITY_STATE), vector = F(VM_ENTRY_INTR_INFO_FIELD) & 0xff;
    bool exception = injects_type(n, INTR_TYPE_HARDWARE_EXCEPTION), nmi = injects_type(n, INTR_TYPE_NMI);
    if (!injects(n) || !activity)
        return true;
    if (activity == IN_HLT)
        return nmi || injects_type(n, INTR_TYPE_EXTERNAL_INTERRUPT) || injects_type(n, INTR_TYPE_OTHER) ||
               (exception && (vector == 1 || vector == 18));
    return activity == IN_SHUTDOWN && (nmi || (exception && vector == 18));
}

static bool blocking_reserved(const struct entry *n) { return !(F(GUEST_INTERRUPTIBILITY_INFO) >> 5); }
static bool blocking_sti_and_mov_ss(const struct entry *n) { return (F(GUEST_INTERRUPTIBILITY_INFO) & SHADOW) != SHADOW; }
static bool blocking_sti_needs_if(const struct entry *n)
{
    return !blocking(n, INTERRUPTIBILITY_BLOCKING_BY_STI) || F(GUEST_RFLAGS) & RFLAGS_IF;
}

static bool blocking_excludes_interrupt(const struct entry *n) { return !blocking(n, SHADOW) || !injects_type(n, INTR_TYPE_EXTERNAL_INTERRUPT); }
static bool blocking_mov_ss_excludes_nmi(const struct entry *n)
{
    return !blocking(n, INTERRUPTIBILITY_BLOCKING_BY_MOV_SS) || !injects_type(n, INTR_TYPE_NMI);
}

static bool blocking_smi(const struct entry *n) { return !blocking(n, INTERRUPTIBILITY_BLOCKING_BY_SMI); }
static bool blocking_sti_excludes_nmi(const struct entry *n)
{
    return !blocking(n, INTERRUPTIBILITY_BLOCKING_BY_STI) || !injects_type(n, INTR_TYPE_NMI);
}

static bool blocking_nmi_excludes_nmi(const struct entry *n)
{
    return !pin(n, PIN_VIRTUAL_NMIS) || !injects_type(n, INTR_TYPE_NMI) || !blocking(n, INTERRUPTIBILITY_BLOCKING_BY_NMI);
}

static bool blocking_enclave(const struct entry *n) { return !blocking(n, INTERRUPTIBILITY_ENCLAVE); }
static bool pending_debug_reserved(const struct entry *n) { return !(F(GUEST_PENDING_DBG_EXCEPTIONS) & ~n->caps->pending_debug_bits); }

static bool pending_single_step(const struct entry *n)
{
    if (!blocking(n, SHADOW) && F(GUEST_ACTIVITY_STATE) != IN_HLT)
        return true;
    bool steps = F(GUEST_RFLAGS) & RFLAGS_TF && !(F(GUEST_IA32_DEBUGCTL) & 2);
    return steps == (F(GUEST_PENDING_DBG_EXCEPTIONS) >> 14 & 1);
}

/* ---- VMCS link pointer, PDPTEs ---- */

static bool link_pointer_address(const struct entry *n) { return F(LINK_POINTER) == ~0ull || is_address(n, F(LINK_POINTER), 12); }

static bool link_pointer_revision(const struct entry *n)
{
    if (F(LINK_POINTER) == ~0ull || !is_address(n, F(LINK_POINTER), 12))
        return true;
    uint64_t shadow = secondary(n, SECONDARY_VMCS_SHADOWING) ? 1u << 31 : 0;
    return entry_memory(n, F(LINK_POINTER), 4) == ((n->caps->basic & 0x7fffffff) | shadow);
}

static bool link_pointer_is_another(const struct entry *n) { return F(LINK_POINTER) == ~0ull || F(LINK_POINTER) != n->current; }

static bool pdptes_reserved(const struct entry *n)
{
    bool pae = F(GUEST_CR0) & CR0_PG && F(GUEST_CR4) & CR4_PAE && !is_ia32e(n), ept = secondary(n, SECONDARY_ENABLE_EPT);
    uint64_t reserved = 0x1e6 | ~0ull << n->caps->physical_bits;
    for (int k = 0; pae && k < 4; k++) {
        uint64_t entry = ept ? n->field[VMCS_GUEST_PDPTR0 + k] : entry_memory(n, (F(GUEST_CR3) & 0xffffffe0) + 8 * (uint64_t)k, 8);
        if (entry & 1 && entry & reserved)
            return false;
    }
    return true;
}

static const struct check first_rows[] = {
    ROW(cr0_fixed), ROW(cr0_paging_needs_protection), ROW(cr4_fixed), ROW(debugctl_reserved), ROW(ia32e_needs_paging),
    ROW(pcid_needs_ia32e), ROW(cr3_width), ROW(dr7_upper_half), ROW(guest_sysenter), ROW(guest_pat), ROW(efer_reserved), ROW(efer_lma),
    ROW(efer_lme),
};
static const struct check rows[] = {
    ROW(rip_width), ROW(rflags_reserved), ROW(rflags_vm), ROW(rflags_if_for_interrupt), ROW(activity_exists), ROW(halted_at_cpl_0),
    ROW(active_in_shadow), ROW(activity_takes_event), ROW(blocking_reserved), ROW(blocking_sti_and_mov_ss), ROW(blocking_sti_needs_if),
    ROW(blocking_excludes_interrupt), ROW(blocking_mov_ss_excludes_nmi), ROW(blocking_smi), ROW(blocking_sti_excludes_nmi),
    ROW(blocking_nmi_excludes_nmi), ROW(blocking_enclave), ROW(pending_debug_reserved), ROW(pending_single_step),
    ROW(link_pointer_address), ROW(link_pointer_revision), ROW(link_pointer_is_another), ROW(pdptes_reserved),
};
const struct check_list control_register_checks = LIST(first_rows), event_checks = LIST(rows);
