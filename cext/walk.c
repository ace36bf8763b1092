/* Tour 3.2: guest page walks: no paging, 32-bit (PSE, PSE-36), PAE, 4-level, 5-level; each table through the EPT.
 *
 * The manual's "Hierarchical Paging Structures": an entry is used if it is present and has no reserved bit set;
 * rights are the AND of all levels; A is set in each entry used, D in the last one on a write. What a walk has learnt of
 * the upper levels is kept in the paging-structure caches, and the next walk begins below them. A cached table that leads
 * to a page fault is given up and the walk made again from the root, so that no fault is told of tables long gone.
 */
#include "xen.h"

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16, PF_PK = 32 };
enum { MAX_LEVELS = 5 };
#define PTE_NX (1ull << 63)
#define KEY_OF(entry) ((uint32_t)((entry) >> 59 & 15) << TLB_KEY_SHIFT)

bool is_canonical(const struct engine *e, uint64_t linear)
{
    int unused = e->core->cr[4] & CR4_LA57 ? 7 : 16;
    return !in_long_mode(e) || (uint64_t)((int64_t)(linear << unused) >> unused) == linear;
}

/* What bases and INVPCID's descriptor may hold: canonical for the widest mode that the processor has. */
bool fits_register(const struct engine *e, uint64_t linear)
{
    int unused = e->mmu.unused_linear_bits;
    return (uint64_t)((int64_t)(linear << unused) >> unused) == linear;
}

bool raise_page_fault(struct engine *e, uint64_t linear, uint32_t error)
{
    raise_fault(e, 14, error);
    e->pending.cr2 = linear;
    note_verdict(e, WALK_PAGE_FAULT);
    return false;
}

/* Manual: "Protection Keys". User pages obey PKRU, supervisor pages IA32_PKRS; fetches obey neither. */
static bool key_forbids(struct engine *e, uint32_t rights, enum access access, bool user)
{
    uint64_t cr4 = e->core->cr[4];
    bool of_user = rights & TLB_USER;
    if (likely(!(cr4 & (CR4_PKE | CR4_PKS))) || access == ACCESS_FETCH || !in_long_mode(e) || !(cr4 & (of_user ? CR4_PKE : CR4_PKS)))
        return false;
    uint64_t keys = of_user ? e->vcpu->pkru : *field(e, VMCS_GUEST_IA32_PKRS);
    uint64_t bits = keys >> 2 * (rights >> TLB_KEY_SHIFT & 15);
    bool write_checked = (of_user && user) || e->core->cr[0] & CR0_WP;
    return bits & 1 || (bits & 2 && access == ACCESS_WRITE && write_checked);
}

static bool mode_permits(struct engine *e, uint32_t rights, enum access access, bool user)
{
    const struct core *c = e->core;
    if (user && !(rights & TLB_USER))
        return false;
    if (access == ACCESS_FETCH)
        return !(rights & TLB_NX) && (user || !(rights & TLB_USER) || !(c->cr[4] & CR4_SMEP));
    if (!user && rights & TLB_USER && c->cr[4] & CR4_SMAP && (!(c->eflags & 1 << 18) || e->implicit_access))
        return false;
    if (access == ACCESS_WRITE)
        return (rights & TLB_WRITE) || (!user && !(c->cr[0] & CR0_WP));
    return true;
}

/* May an access of this kind use a translation with these rights, in the current mode? */
bool permitted(struct engine *e, uint32_t rights, enum access access, bool user)
{
    if (unlikely(rights & (TLB_NO_EXEC | TLB_NO_READ)) && rights & (access == ACCESS_FETCH ? TLB_NO_EXEC : TLB_NO_READ))
        return false;
    if (!(e->core->cr[0] & CR0_PG))
        return !(access == ACCESS_WRITE && rights & TLB_ROM);
    return mode_permits(e, rights, access, user) && !key_forbids(e, rights, access, user);
}

struct table { uint64_t gpa, hpa; bool writable; };        /* writable: by the EPT, for accessed flags */
struct used { uint64_t gpa, hpa; bool writable; struct table next; uint32_t rights; int shift; };

/* A walk under way. */
struct guest_walk {
    uint64_t linear;
    enum access access;
    bool user, looks, from_cache;
    struct ept_cause cause;
    struct table table;
    int shift, bits, bytes;
    uint32_t rights;
    uint64_t entry, reserved;      /* of an entry, as long as PS is 0 */
    struct used used[MAX_LEVELS];
    int count;
};

static uint32_t fault_code(const struct engine *e, const struct guest_walk *g, uint32_t cause)
{
    bool fetch_reported = (e->efer >> 11 & 1) || e->core->cr[4] & CR4_SMEP;
    return cause | (g->access == ACCESS_WRITE ? PF_W : 0) | (g->user ? PF_U : 0) | (g->access == ACCESS_FETCH && fetch_reported ? PF_I : 0);
}

/* Reserved bits of an entry at `shift` (manual: "Paging-Structure Entry Formats"). */
static uint64_t reserved_bits(const struct engine *e, const struct guest_walk *g, bool is_leaf)
{
    bool nxe = e->efer >> 11 & 1;
    if (g->bytes == 4)             /* PSE-36 has address bits 39:32 in 20:13, as far as MAXPHYADDR goes */
        return is_leaf && g->shift == 22 ? 1ull << 21 | ((e->mmu.beyond >> 32 & 0xff) << 13) : 0;
    uint64_t mask = e->mmu.beyond | (nxe ? 0 : PTE_NX);
    if (!in_long_mode(e))
        mask |= 0x7ff0000000000000ull;                             /* PAE: 62:52 */
    if (g->shift >= 39 || (g->shift == 30 && !e->mmu.has_1g))
        mask |= PTE_PS;
    if (is_leaf && g->shift > 12)
        mask |= ((1ull << g->shift) - 1) & ~0x1fffull;             /* address bits below the page, PAT at 12 */
    return mask;
}

static uint64_t leaf_address(const struct guest_walk *g)
{
    if (g->bytes == 4 && g->shift == 22)
        return (g->entry & 0xffc00000) | (g->entry >> 13 & 0xff) << 32;
    return g->entry & (g->bytes == 4 ? 0xfffff000 : ADDRESS_MASK) & ~((1ull << g->shift) - 1);
}

static uint64_t offset_in_table(const struct guest_walk *g, int shift)
{
    return (g->linear >> shift & ((1u << g->bits) - 1)) * (uint64_t)g->bytes;
}

/* Without EPT a table may lie where no machine memory is: there the bus answers all ones, and a store is lost. */
static bool is_memory(const struct engine *e, uint64_t hpa) { return likely(hpa < e->ram_size); }

/* The table that the last entry, or CR3, names: where it lies in machine memory. Its entry for `shift` is what is read. */
static bool reach_table(struct engine *e, struct guest_walk *g, uint64_t gpa, int shift)
{
    struct ept_page page;
    uint64_t offset = offset_in_table(g, shift);
    uint32_t need = EPT_READ | (e->mmu.ept_dirty ? EPT_WRITE : 0);
    if (unlikely(!e->mmu.eptp && !is_memory(e, gpa | 0xfff))) {
        g->table = (struct table){.gpa = gpa, .hpa = gpa, .writable = true};
        return true;
    }
    if (!ept_translate(e, gpa + offset, need, &g->cause, g->looks, &page))
        return false;
    g->table = (struct table){.gpa = gpa, .hpa = page.hpa - offset, .writable = page.rights & EPT_WRITE};
    return likely(page.hpa >> 12 != e->apic_page >> 12) || raise_apic_access_by_walk(e);
}

/* The shape of the levels in the current paging mode, and the first table's address; false: PAE's PDPTE is not present. */
static bool root_of(struct engine *e, struct guest_walk *g, uint64_t *gpa)
{
    const struct core *c = e->core;
    g->bits = 9, g->bytes = 8;
    if (in_long_mode(e)) {
        g->shift = c->cr[4] & CR4_LA57 ? 48 : 39;
        *gpa = c->cr[3] & ADDRESS_MASK;
        return true;
    }
    if (!(c->cr[4] & CR4_PAE)) {
        g->shift = 22, g->bits = 10, g->bytes = 4;
        *gpa = c->cr[3] & 0xfffff000;
        return true;
    }
    uint64_t pdpte = *field(e, VMCS_GUEST_PDPTR0 + (int)(g->linear >> 30 & 3));
    g->shift = 21;
    *gpa = pdpte & ADDRESS_MASK;
    return pdpte & PTE_P;
}

/* Begin below what the paging-structure caches know. */
static bool resume(struct engine *e, struct guest_walk *g)
{
    for (int shift = g->bytes == 4 ? 22 : 21; shift <= g->shift; shift += 9) {
        struct cached *at = structure_find(e, g->linear, shift);
        if (!at)
            continue;
        e->mmu.counters.structure_hits[shift >= 48 ? 3 : shift >= 39 ? 2 : shift >= 30]++;
        price_hit(e, e->price.costs.structure_hit);
        g->table = (struct table){.gpa = at->more, .hpa = at->hpa, .writable = !(at->rights & TLB_ROM)};
        g->rights = at->rights & ~(uint32_t)TLB_ROM;
        g->shift = shift - g->bits;
        g->from_cache = true;
        return true;
    }
    return false;
}

static bool is_leaf(const struct engine *e, const struct guest_walk *g)
{
    if (g->shift == 12)
        return true;
    if (!(g->entry & PTE_PS) || g->shift >= 39)
        return false;
    return g->bytes == 8 || e->core->cr[4] & CR4_PSE;
}

static uint32_t add_rights(uint32_t rights, uint64_t entry, int bytes)
{
    rights &= ~(uint32_t)(TLB_USER | TLB_WRITE) | (entry & PTE_U ? TLB_USER : 0) | (entry & PTE_W ? TLB_WRITE : 0);
    return rights | (bytes == 8 && entry & PTE_NX ? TLB_NX : 0);
}

/* Read and check the entry of this level. */
static bool read_entry(struct engine *e, struct guest_walk *g, bool *leaf)
{
    uint64_t offset = offset_in_table(g, g->shift);
    struct used *used = &g->used[g->count];
    used->gpa = g->table.gpa + offset;
    used->hpa = g->table.hpa + offset;
    used->writable = g->table.writable;
    used->shift = g->shift;
    g->entry = g->bytes == 8 ? ~0ull : 0xffffffff;
    if (is_memory(e, used->hpa | 0xfff)) {
        g->entry = 0;
        memcpy(&g->entry, e->ram + used->hpa, (size_t)g->bytes);
    }
    e->mmu.counters.guest_references++;
    price_reference(e, used->hpa);
    if (unlikely(e->mmu.log != NULL))
        note_reference(e, WALK_GUEST, g->shift, g->table.gpa + offset, used->hpa, g->entry);
    if (!(g->entry & PTE_P))
        return raise_page_fault(e, g->linear, fault_code(e, g, 0));
    bool usual = likely(!(g->entry & (g->reserved | PTE_PS)));
    *leaf = usual ? g->shift == 12 : is_leaf(e, g);
    if (!usual && g->entry & reserved_bits(e, g, *leaf))
        return raise_page_fault(e, g->linear, fault_code(e, g, PF_P | PF_RSVD));
    g->rights = add_rights(g->rights, g->entry, g->bytes);
    g->count++;
    return true;
}

static bool descend(struct engine *e, struct guest_walk *g)
{
    for (bool leaf;; g->shift -= g->bits) {
        if (!read_entry(e, g, &leaf))
            return false;
        if (leaf) {
            note_verdict(e, WALK_LEAF);
            return true;
        }
        if (!reach_table(e, g, g->bytes == 4 ? g->entry & 0xfffff000 : g->entry & ADDRESS_MASK, g->shift - g->bits))
            return false;
        struct used *used = &g->used[g->count - 1];
        used->next = g->table;
        used->rights = g->rights;
    }
}

/* Accessed and dirty flags in guest memory: a store, to which the EPT may object. */
static bool set_flags(struct engine *e, struct guest_walk *g, const struct used *used, uint32_t bits)
{
    uint32_t low;
    struct ept_page page;
    if (!is_memory(e, used->hpa | 0xfff))
        return true;
    memcpy(&low, e->ram + used->hpa, 4);
    if ((low & bits) == bits)
        return true;
    if (!used->writable && !ept_translate(e, used->gpa, EPT_READ | EPT_WRITE, &g->cause, g->looks, &page))
        return false;
    low |= bits;
    host_wrote(e, used->hpa, 4);
    memcpy(e->ram + used->hpa, &low, 4);
    return true;
}

static bool note_use(struct engine *e, struct guest_walk *g)
{
    for (int k = 0; k < g->count; k++) {
        bool last = k == g->count - 1;
        if (!set_flags(e, g, &g->used[k], PTE_A | (last && g->access == ACCESS_WRITE ? PTE_D : 0)))
            return false;
    }
    for (int k = 0; is_xen(e) && k < g->count; k++)
        xen_note_table(e, g->linear, g->used[k].hpa);
    for (int k = 0; k < g->count - 1; k++) {
        const struct used *u = &g->used[k];
        structure_insert(e, g->linear, u->shift, u->next.gpa, u->next.hpa, u->rights | (u->next.writable ? 0 : TLB_ROM));
    }
    return true;
}

static bool refuse(struct engine *e, struct guest_walk *g)
{
    bool by_key = key_forbids(e, g->rights | KEY_OF(g->entry), g->access, g->user);
    return raise_page_fault(e, g->linear, fault_code(e, g, PF_P | (by_key ? PF_PK : 0)));
}

/* From the linear to the guest-physical address. */
static bool walk_tables(struct engine *e, struct guest_walk *g, struct walk *w)
{
    uint64_t gpa;
    if (!root_of(e, g, &gpa))
        return raise_page_fault(e, g->linear, fault_code(e, g, 0));
    g->reserved = g->bytes == 8 ? e->mmu.beyond | (e->efer >> 11 & 1 ? 0 : PTE_NX) | (in_long_mode(e) ? 0 : 0x7ff0000000000000ull) : 0;
    bool cached = !g->looks && !e->mmu.aside && !g->from_cache && resume(e, g);
    if ((!cached && !reach_table(e, g, gpa, g->shift)) || !descend(e, g))
        return false;
    if (!permitted(e, g->rights | KEY_OF(g->entry), g->access, g->user))
        return refuse(e, g);
    if (!g->looks && !note_use(e, g))
        return false;
    uint32_t rights = g->rights | (g->bytes == 8 ? KEY_OF(g->entry) : 0);
    rights |= g->access == ACCESS_WRITE || g->entry & PTE_D ? TLB_DIRTY : 0;
    bool global = is_xen(e) ? g->linear >> 63 : g->entry & PTE_G && e->core->cr[4] & CR4_PGE;
    rights |= global ? TLB_GLOBAL : 0;
    *w = (struct walk){.gpa = leaf_address(g) | (g->linear & ((1ull << g->shift) - 1)), .rights = rights, .shift = g->shift, .guest_shift = g->shift};
    return true;
}

static bool walk_guest(struct engine *e, struct guest_walk *g, struct walk *w)
{
    g->rights = TLB_USER | TLB_WRITE;
    g->count = 0;
    if (walk_tables(e, g, w))
        return true;
    if (!g->from_cache || e->pending.kind != PENDING_EXCEPTION)
        return false;
    structure_drop(e, g->linear);
    g->rights = TLB_USER | TLB_WRITE;
    g->count = 0;                  /* from_cache stays: not again */
    return walk_tables(e, g, w);
}

/* The EPT's part of the rights of a combined mapping. */
static uint32_t combine(const struct engine *e, uint32_t rights, uint32_t ept)
{
    bool user_page = rights & TLB_USER && e->mmu.mode_based;
    rights |= (ept & (EPT_WRITE | EPT_IS_DIRTY)) == (EPT_WRITE | EPT_IS_DIRTY) ? 0 : TLB_ROM;
    rights |= ept & (user_page ? EPT_EXECUTE_USER : EPT_EXECUTE) ? 0 : TLB_NO_EXEC;
    return rights | (ept & EPT_READ ? 0 : TLB_NO_READ);
}

/* What most walks are: of a 4 KiB page in long mode, through a cached PDE and a cached guest-physical mapping, with nothing
 * to set. It does what the long way would, and counts it; false: nothing has been done, go that way. */
static bool walk_hot(struct engine *e, uint64_t linear, enum access access, bool user, uint32_t need, struct walk *w)
{
    const uint64_t flags = PTE_P | PTE_A | (access == ACCESS_WRITE ? PTE_D : 0);
    struct ept_cause cause = {.linear_valid = true};
    const struct cached *table = structure_find(e, linear, 21), *page;
    uint64_t entry, at = table ? table->hpa + (linear >> 12 & 511) * 8 : ~0ull;
    if (!table || !is_memory(e, at | 0xfff))
        return false;
    memcpy(&entry, e->ram + at, sizeof entry);
    if ((entry & flags) != flags || entry & (e->mmu.beyond | (e->efer >> 11 & 1 ? 0 : PTE_NX)))
        return false;
    uint32_t rights = add_rights(table->rights & ~(uint32_t)TLB_ROM, entry, 8) | KEY_OF(entry);
    if (!permitted(e, rights, access, user))
        return false;
    rights |= (entry & PTE_D ? TLB_DIRTY : 0) | (entry & PTE_G && e->core->cr[4] & CR4_PGE ? TLB_GLOBAL : 0);
    uint64_t gpa = (entry & ADDRESS_MASK) | (linear & 0xfff);
    cause.page_rights = rights;
    if (!(page = nested_find(e, gpa)) || !serves(e, page, need, &cause))
        return false;
    e->mmu.counters.structure_hits[0]++;
    e->mmu.counters.guest_references++;
    e->mmu.counters.nested_hits++;
    price_hit(e, e->price.costs.structure_hit + (e->price.costs.bare ? 0 : e->price.costs.nested_hit));
    price_reference(e, at);
    *w = (struct walk){.gpa = gpa, .hpa = page->hpa | (gpa & page->more), .rights = combine(e, rights, page->rights), .shift = 12, .guest_shift = 12};
    return true;
}

static bool find(struct engine *e, uint64_t linear, enum access access, bool user, bool looks, struct walk *w)
{
    static const uint32_t need[] = {[ACCESS_READ] = EPT_READ, [ACCESS_WRITE] = EPT_WRITE, [ACCESS_FETCH] = EPT_EXECUTE};
    struct ept_page page;
    if (likely(e->mmu.eptp && in_long_mode(e) && !e->mmu.aside && !e->mmu.log) && walk_hot(e, linear, access, user, need[access], w))
        return true;
    struct ept_cause cause = {.linear = linear, .linear_valid = true};
    if (e->core->cr[0] & CR0_PG) {
        struct guest_walk g;       /* not cleared: its tail is large */
        g.linear = linear, g.access = access, g.user = user, g.looks = looks, g.from_cache = false, g.cause = cause;
        if (!walk_guest(e, &g, w))
            return false;
    } else {                       /* manual, exit qualification of EPT violations: every page is a user's, and writable */
        *w = (struct walk){.gpa = linear & 0xffffffff, .rights = TLB_USER | TLB_WRITE | TLB_DIRTY | TLB_GLOBAL, .shift = 30, .guest_shift = 12};
    }
    cause.is_translation = true;
    cause.page_rights = w->rights;
    if (!ept_translate(e, w->gpa, need[access], &cause, looks, &page))
        return false;
    w->hpa = page.hpa;
    w->shift = w->shift < page.shift ? w->shift : page.shift;
    w->rights = combine(e, w->rights, page.rights);
    return true;
}

/* Who only looks comes at any time: he leaves nothing behind, neither lines in the caches nor a count. */
bool walk(struct engine *e, uint64_t linear, enum access access, bool user, enum walk_effects effects, struct walk *w)
{
    bool aside = e->mmu.aside, looks = effects == WALK_LOOKS;
    struct mmu_counters *counters = &e->mmu.counters;
    uint64_t guest = counters->guest_references, ept = counters->ept_references;
    e->mmu.aside = aside || looks;
    bool found = find(e, linear, access, user, looks, w);
    e->mmu.aside = aside;
    if (looks)
        counters->guest_references = guest, counters->ept_references = ept;
    return found;
}
