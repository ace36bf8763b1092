/* Manual, "Checks on Host-State Area". Failure is VM-instruction error 8. */
#include "entry.h"

static bool is_wide(const struct entry *n) { return exit_control(n, VM_EXIT_HOST_ADDRESS_SPACE_SIZE); }

static bool host_cr0(const struct entry *n)
{
    return !(n->caps->cr0_fixed0 & ~F(HOST_CR0)) && !(F(HOST_CR0) & ~n->caps->cr0_fixed1);
}

static bool host_cr4(const struct entry *n)
{
    return !(n->caps->cr4_fixed0 & ~F(HOST_CR4)) && !(F(HOST_CR4) & ~n->caps->cr4_fixed1);
}

static bool host_cr3(const struct entry *n) { return within_width(n, F(HOST_CR3)); }

static bool host_sysenter(const struct entry *n)
{
    return is_canonical_for(n, F(HOST_IA32_SYSENTER_ESP)) && is_canonical_for(n, F(HOST_IA32_SYSENTER_EIP));
}

static bool host_pat(const struct entry *n) { return !exit_control(n, VM_EXIT_LOAD_IA32_PAT) || is_pat(F(HOST_IA32_PAT)); }

static bool host_efer(const struct entry *n)
{
    uint64_t efer = F(HOST_IA32_EFER), mode = EFER_LMA | EFER_LME;
    return !exit_control(n, VM_EXIT_LOAD_IA32_EFER) || (!(efer & ~n->caps->efer_bits) && (efer & mode) == (is_wide(n) ? mode : 0));
}

static bool host_selectors(const struct entry *n)
{
    return !((F(HOST_CS_SELECTOR) | F(HOST_SS_SELECTOR) | F(HOST_DS_SELECTOR) | F(HOST_ES_SELECTOR) | F(HOST_FS_SELECTOR) |
              F(HOST_GS_SELECTOR) | F(HOST_TR_SELECTOR)) & 7);
}

static bool host_cs(const struct entry *n) { return F(HOST_CS_SELECTOR); }
static bool host_tr(const struct entry *n) { return F(HOST_TR_SELECTOR); }
static bool host_ss(const struct entry *n) { return is_wide(n) || F(HOST_SS_SELECTOR); }

static bool host_bases(const struct entry *n)
{
    return is_canonical_for(n, F(HOST_FS_BASE)) && is_canonical_for(n, F(HOST_GS_BASE)) && is_canonical_for(n, F(HOST_GDTR_BASE)) &&
           is_canonical_for(n, F(HOST_IDTR_BASE)) && is_canonical_for(n, F(HOST_TR_BASE));
}

static bool host_size_of_root(const struct entry *n)
{
    return n->caps->root_is_long_mode ? is_wide(n) : !is_wide(n) && !is_ia32e(n);
}

static bool host_size_32(const struct entry *n)
{
    return is_wide(n) || (!(F(HOST_RIP) >> 32) && !(F(HOST_CR4) & CR4_PCIDE) && !is_ia32e(n));
}

static bool host_size_64(const struct entry *n)
{
    return !is_wide(n) || (F(HOST_CR4) & CR4_PAE && is_canonical_for(n, F(HOST_RIP)));
}

static const struct check rows[] = {
    ROW(host_cr0), ROW(host_cr4), ROW(host_cr3), ROW(host_sysenter), ROW(host_pat), ROW(host_efer), ROW(host_selectors), ROW(host_cs),
    ROW(host_tr), ROW(host_ss), ROW(host_bases), ROW(host_size_of_root), ROW(host_size_32), ROW(host_size_64),
};
const struct check_list host_checks = LIST(rows);
