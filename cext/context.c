/* Which translations are whose: tags for (VPID, PCID, EPT root), and flushes that only give out new ones.
 *
 * Manual: "Information That May Be Cached": linear mappings belong to VPID and PCID, guest-physical mappings to the EPT
 * root, combined mappings to all three; a global translation serves every PCID of its VPID and root. Unicorn's TLB
 * knows no tags: it holds what belongs to the current context alone, so a change of context empties it (of all but
 * global pages where the VPID and the root stay), and the modelled TLB refills it.
 */
#include "xen.h"

static uint32_t fresh_tag(struct engine *e) { return ++e->mmu.next_tag; }

static struct context *seek(struct engine *e, uint32_t vpid, uint32_t pcid, uint64_t root)
{
    struct mmu *u = &e->mmu;
    uint32_t at = (uint32_t)(pcid * 37 + vpid * 101 + (root >> 12) * 7);
    struct context *free_one = NULL;
    for (uint32_t k = 0; k < 8; k++) {
        struct context *c = &u->contexts[(at + k) % CONTEXTS];
        if (c->tag && c->vpid == vpid && c->pcid == pcid && c->root == root)
            return c;
        if (!c->tag && !free_one)
            free_one = c;
    }
    if (!free_one)                 /* forget one: the processor may drop what it likes */
        free_one = &u->contexts[(at + u->next_context++ % 8) % CONTEXTS];
    *free_one = (struct context){.vpid = vpid, .pcid = pcid, .root = root, .tag = fresh_tag(e), .structure_tag = fresh_tag(e), .is_new = true};
    return free_one;
}

/* Whether a flush of the current VPID has to look for translations through other EPTs. */
static void count_roots(struct engine *e)
{
    struct mmu *u = &e->mmu;
    u->roots = 1;
    for (int k = 0; k < CONTEXTS; k++)
        u->roots += u->contexts[k].tag && u->contexts[k].vpid == u->vpid && u->contexts[k].root != u->root;
}

/* Long before the tags run out everything is forgotten once, so that none is given out twice. */
static void keep_tags_unique(struct engine *e)
{
    if (e->mmu.next_tag < 0xffff0000u)
        return;
    caches_clear(e);
    memset(e->mmu.contexts, 0, sizeof e->mmu.contexts);
    e->mmu.next_tag = 0;
}

static uint32_t current_pcid(const struct engine *e) { return e->core->cr[4] & CR4_PCIDE ? e->core->cr[3] & 0xfff : 0; }

static uint64_t mix_of(const struct engine *e, uint32_t vpid, uint32_t pcid)
{
    return e->mmu.fidelity == TLB_LARGE ? (uint64_t)(pcid & 0x7ff) * 0x9e5 + (pcid >> 11) * 0x2f1 + vpid * 0x3d7 : 0;
}

/* Of a context that is come back to nobody knows what it holds. */
static uint8_t sizes_in(struct context *c)
{
    bool is_new = c->is_new;
    c->is_new = false;
    return is_new ? 0 : ALL_SIZES;
}

static void use_context(struct engine *e, struct context *c)
{
    struct mmu *u = &e->mmu;
    u->structure_tag = c->structure_tag;
    u->mix = mix_of(e, c->vpid, c->pcid);
    uint8_t sizes = sizes_in(c);
    if (c->tag == u->tag)
        return;
    u->tag = c->tag;
    u->own_sizes = sizes;
    micro_flush_nonglobal(e);
}

/* Give the lookups the tags of the current context; Unicorn keeps only what has the same ones. */
static void load_tags(struct engine *e)
{
    struct mmu *u = &e->mmu;
    uint32_t physical_tag = seek(e, VPID_NONE, PHYSICAL, u->root)->tag;
    struct context *global = seek(e, u->vpid, PCID_GLOBAL, u->root);
    bool all = global->tag != u->global_tag || physical_tag != u->physical_tag;
    uint8_t sizes = sizes_in(global);
    if (global->tag != u->global_tag)
        u->global_sizes = sizes;
    u->global_tag = global->tag;
    u->physical_tag = physical_tag;
    if (all)
        micro_flush(e);
    use_context(e, seek(e, u->vpid, u->pcid, u->root));
}

/* The parts of EPTP that a walk wants at hand. */
static void read_eptp(struct engine *e)
{
    struct mmu *u = &e->mmu;
    u->eptp = exiting2(e, SECONDARY_ENABLE_EPT) ? *field(e, VMCS_EPT_POINTER) : 0;
    u->root = u->eptp & ADDRESS_MASK;
    u->ept_levels = (int)(u->eptp >> 3 & 7) + 1;
    u->ept_dirty = u->eptp >> 6 & 1;
    u->mode_based = u->eptp && exiting2(e, SECONDARY_MODE_BASED_EXECUTE_CONTROL_FOR_EPT);
    u->logs_pages = u->ept_dirty && exiting2(e, SECONDARY_ENABLE_PML);
}

static uint64_t vpid_of(struct engine *e)
{
    if (is_xen(e))
        return xen_vpid(e);
    return exiting2(e, SECONDARY_ENABLE_VPID) ? (uint16_t)*field(e, VMCS_VIRTUAL_PROCESSOR_ID) : 0;
}

void mmu_select(struct engine *e)
{
    struct mmu *u = &e->mmu;
    uint64_t root = u->root;
    uint32_t vpid = u->vpid;
    keep_tags_unique(e);
    read_eptp(e);
    u->vpid = (uint32_t)vpid_of(e);
    u->pcid = current_pcid(e);
    load_tags(e);
    if (root != u->root || vpid != u->vpid)
        count_roots(e);
}

/* Another VPID, whose translations Unicorn keeps apart by CPL: it forgets nothing. */
void mmu_switch_quietly(struct engine *e, uint32_t vpid)
{
    struct mmu *u = &e->mmu;
    u->vpid = vpid;
    const struct context own = *seek(e, vpid, u->pcid, u->root);
    u->global_tag = seek(e, vpid, PCID_GLOBAL, u->root)->tag;
    u->tag = own.tag;
    u->structure_tag = own.structure_tag;
    u->mix = mix_of(e, vpid, own.pcid);
}

void mmu_renew_all_structures(struct engine *e)
{
    for (int k = 0; k < CONTEXTS; k++)
        if (e->mmu.contexts[k].tag)
            e->mmu.contexts[k].structure_tag = fresh_tag(e);
    if (e->vcpu)
        load_tags(e);
}

void mmu_select_pcid(struct engine *e)
{
    keep_tags_unique(e);
    e->mmu.pcid = current_pcid(e);
    use_context(e, seek(e, e->mmu.vpid, e->mmu.pcid, e->mmu.root));
}

static void renew(struct engine *e, struct context *c)
{
    c->tag = fresh_tag(e);
    c->structure_tag = fresh_tag(e);
    c->is_new = true;
}

void mmu_flush_pcid(struct engine *e)
{
    struct mmu *u = &e->mmu;
    keep_tags_unique(e);
    u->pcid = current_pcid(e);
    if (u->roots > 1)
        mmu_renew(e, u->vpid, u->pcid, OTHER_ROOTS);
    struct context *c = seek(e, u->vpid, u->pcid, u->root);
    renew(e, c);
    use_context(e, c);
}

/* Whatever is cached, and how it would be replaced: two engines that are wiped go on alike. */
void mmu_wipe(struct engine *e)
{
    keep_tags_unique(e);
    if (e->mmu.fidelity != TLB_LARGE)      /* which has only tags to tell it from an empty one */
        caches_clear(e);
    memset(e->mmu.regions, 0, sizeof e->mmu.regions);
    e->mmu.next_context = 0;
    memset(e->mmu.contexts, 0, sizeof e->mmu.contexts);
    e->mmu.roots = 1;
    if (e->vcpu)
        load_tags(e);
    micro_flush(e);
}

static bool matches(const struct engine *e, const struct context *c, uint32_t vpid, uint32_t pcid, uint64_t root)
{
    if (!c->tag || (vpid != ANY_VPID && c->vpid != vpid) || c->pcid > PCID_GLOBAL || (pcid == NOT_GLOBAL && c->pcid == PCID_GLOBAL))
        return false;
    if (root == OTHER_ROOTS ? c->root == e->mmu.root : root != ANY_ROOT && c->root != root)
        return false;
    return pcid == NOT_GLOBAL || pcid == ANY_PCID || c->pcid == pcid;
}

void mmu_renew(struct engine *e, uint32_t vpid, uint32_t pcid, uint64_t root)
{
    for (int k = 0; k < CONTEXTS; k++)
        if (matches(e, &e->mmu.contexts[k], vpid, pcid, root))
            renew(e, &e->mmu.contexts[k]);
    if (e->vcpu)
        load_tags(e);
}

/* One linear address, in contexts that need not be the current one: as if each were, for a moment. */
void mmu_drop_in(struct engine *e, uint32_t vpid, uint32_t pcid, uint64_t linear)
{
    struct mmu *u = &e->mmu;
    uint32_t tag = u->tag, global_tag = u->global_tag;
    uint8_t own_sizes = u->own_sizes, global_sizes = u->global_sizes;
    uint64_t mix = u->mix;
    u->own_sizes = u->global_sizes = ALL_SIZES;
    for (int k = 0; k < CONTEXTS; k++) {
        struct context *c = &u->contexts[k];
        if (!matches(e, c, vpid, pcid, ANY_ROOT))
            continue;
        u->tag = u->global_tag = c->tag;
        u->mix = mix_of(e, c->vpid, c->pcid);
        tlb_drop(e, linear);
        c->structure_tag = fresh_tag(e);
    }
    u->tag = tag;
    u->global_tag = global_tag;
    u->own_sizes = own_sizes;
    u->global_sizes = global_sizes;
    u->mix = mix;
    if (e->vcpu)
        load_tags(e);
}

/* Guest-physical mappings of a root. */
void mmu_renew_physical(struct engine *e, uint64_t root)
{
    for (int k = 0; k < CONTEXTS; k++) {
        struct context *c = &e->mmu.contexts[k];
        if (c->tag && c->pcid == PHYSICAL && (root == ANY_ROOT || c->root == root))
            renew(e, c);
    }
    if (e->vcpu)
        load_tags(e);
}

/* INVLPG empties the paging-structure caches of the PCID, whatever the address. */
void mmu_renew_structures(struct engine *e)
{
    struct context *c = seek(e, e->mmu.vpid, e->mmu.pcid, e->mmu.root);
    e->mmu.structure_tag = c->structure_tag = fresh_tag(e);
}
