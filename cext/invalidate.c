/* Tour 3.5: what each instruction and transition makes of cached translations.
 *
 * Manual, "Invalidation of TLBs and Paging-Structure Caches" and "Invalidating Cached Translation Information": each
 * function drops what must go. More than that goes only where it says so; the rest stays, stale or not.
 */
#include "state.h"

void invalidate_page(struct engine *e, uint64_t linear)
{
    struct mmu *u = &e->mmu;
    u->counters.flushes_invlpg++;
    tlb_drop(e, linear);
    if (u->roots > 1)              /* combined mappings through every EPT; the other ones' go as a whole */
        mmu_renew(e, u->vpid, u->pcid, OTHER_ROOTS);
    mmu_renew_structures(e);
}

void cr3_loaded(struct engine *e, bool keeps)
{
    struct mmu *u = &e->mmu;
    u->counters.loads_cr3++;
    if (keeps) {
        mmu_select_pcid(e);
        return;
    }
    u->counters.flushes_cr3++;
    mmu_flush_pcid(e);
}

void cr0_changed(struct engine *e, uint64_t old)
{
    uint64_t now = e->core->cr[0];
    if ((old ^ now) & (CR0_PG | CR0_PE)) {
        e->mmu.counters.flushes_cr0++;
        mmu_renew(e, e->mmu.vpid, ANY_PCID, ANY_ROOT);
    }
    if ((old ^ now) & (CR0_PG | CR0_WP))   /* WP is looked at when Unicorn asks */
        micro_flush(e);
}

void cr4_changed(struct engine *e, uint64_t old)
{
    const uint64_t shape = CR4_PGE | CR4_PAE | CR4_PSE | CR4_LA57, rights = CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PKS;
    uint64_t now = e->core->cr[4], changed = old ^ now;
    if (changed & shape || changed & old & CR4_PCIDE || changed & now & CR4_SMEP) {
        e->mmu.counters.flushes_cr4++;
        mmu_renew(e, e->mmu.vpid, ANY_PCID, ANY_ROOT);
    }
    if (changed & CR4_PCIDE)
        mmu_select_pcid(e);
    if (changed & (rights | CR4_PGE))
        micro_flush(e);
}

/* WRPKRU, WRMSR IA32_PKRS: rights that Unicorn has in its TLB. */
void keys_changed(struct engine *e)
{
    bool user = e->core->cr[4] & CR4_PKE && e->pkru != e->vcpu->pkru;
    bool supervisor = e->core->cr[4] & CR4_PKS && e->pkrs != *field(e, VMCS_GUEST_IA32_PKRS);
    e->pkru = e->vcpu->pkru;
    e->pkrs = *field(e, VMCS_GUEST_IA32_PKRS);
    if (user || supervisor)
        micro_flush(e);
}

/* Software changed what translations depend on, between an exit and the next entry, and may have forgotten INVVPID. */
void paging_changed_by_entry(struct engine *e)
{
    e->mmu.counters.flushes_entry++;
    mmu_renew(e, e->mmu.vpid, ANY_PCID, ANY_ROOT);
}

/* Manual: VM entries and exits with "enable VPID" 0 invalidate what VPID 0 has. */
void vpid_off(struct engine *e)
{
    e->mmu.counters.flushes_entry++;
    mmu_renew(e, 0, ANY_PCID, ANY_ROOT);
}

/* ---- INVPCID ---- */

enum invpcid { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL, INVPCID_ALL_BUT_GLOBAL };

static bool invpcid_is_valid(struct engine *e, uint64_t type, const uint64_t descriptor[2])
{
    bool named = type == INVPCID_ADDRESS || type == INVPCID_CONTEXT;
    if (type > INVPCID_ALL_BUT_GLOBAL || descriptor[0] >> 12)
        return false;
    if (named && descriptor[0] && !(e->core->cr[4] & CR4_PCIDE))
        return false;
    return type != INVPCID_ADDRESS || fits_register(e, descriptor[1]);
}

static void invalidate_pcid(struct engine *e, enum invpcid type, uint32_t pcid, uint64_t linear)
{
    struct mmu *u = &e->mmu;
    u->counters.flushes_invpcid++;
    if (type == INVPCID_ADDRESS)
        mmu_drop_in(e, u->vpid, pcid, linear);
    else
        mmu_renew(e, u->vpid, type == INVPCID_CONTEXT ? pcid : type == INVPCID_ALL ? ANY_PCID : NOT_GLOBAL, ANY_ROOT);
}

bool op_invpcid(struct engine *e, const struct insn *i)
{
    uint64_t descriptor[2], type = in_64bit_code(e) ? e->core->regs[i->modrm_reg] : (uint32_t)e->core->regs[i->modrm_reg];
    if (!exiting2(e, SECONDARY_ENABLE_INVPCID) || in_v8086(e))
        return raise_fault(e, in_v8086(e) ? 13 : 6, 0);
    if (e->cpl)
        return raise_fault(e, 13, 0);
    if (exiting(e, PRIMARY_INVLPG_EXITING)) {
        table_exit(e, i, EXIT_INVPCID);
        e->pending.instruction_info = (e->pending.instruction_info & 0xfffffff) | (uint64_t)i->modrm_reg << 28;
        return false;
    }
    if (!mem_read(e, operand_address(e, i), descriptor, sizeof descriptor, RIGHTS_CURRENT))
        return false;
    if (!invpcid_is_valid(e, type, descriptor))
        return raise_fault(e, 13, 0);
    invalidate_pcid(e, (enum invpcid)type, (uint32_t)descriptor[0], descriptor[1]);
    return done(e, i);
}

/* ---- what software in root mode executes ---- */

int engine_invvpid_here(struct engine *e, uint32_t type, uint32_t vpid, uint64_t linear)
{
    enum { ADDRESS, SINGLE, ALL, BUT_GLOBALS };
    e->mmu.counters.flushes_invvpid++;
    if (type == ADDRESS)
        mmu_drop_in(e, vpid, ANY_PCID, linear);
    else if (type <= BUT_GLOBALS)
        mmu_renew(e, type == ALL ? ANY_VPID : vpid, type == BUT_GLOBALS ? NOT_GLOBAL : ANY_PCID, ANY_ROOT);
    return type <= BUT_GLOBALS ? 0 : -1;
}

/* On this processor and, as by an interrupt to each, on the others of the machine. */
int engine_invvpid(struct engine *e, uint32_t type, uint32_t vpid, uint64_t linear)
{
    for (struct engine *q = e->peer; q && q != e; q = q->peer)
        engine_invvpid_here(q, type, vpid, linear);
    return engine_invvpid_here(e, type, vpid, linear);
}

static int invept_here(struct engine *e, uint32_t type, uint64_t eptp)
{
    enum { SINGLE = 1, ALL = 2 };
    uint64_t root = type == SINGLE ? eptp & ADDRESS_MASK : ANY_ROOT;
    if (type != SINGLE && type != ALL)
        return -1;
    e->mmu.counters.flushes_invept++;
    mmu_renew(e, ANY_VPID, ANY_PCID, root);
    mmu_renew_physical(e, root);
    return 0;
}

int engine_invept(struct engine *e, uint32_t type, uint64_t eptp)
{
    for (struct engine *q = e->peer; q && q != e; q = q->peer)
        invept_here(q, type, eptp);
    return invept_here(e, type, eptp);
}

void engine_invalidate_page(struct engine *e, uint64_t linear) { engine_invvpid(e, 0, e->mmu.vpid, linear); }

const struct mmu_counters *engine_mmu_counters(const struct engine *e) { return &e->mmu.counters; }
