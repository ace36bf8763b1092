/* Tour 3.1: guest page walks: no paging, 32-bit (PSE), PAE and 4-level, behind a flat EPT.
 *
 * The manual's "Hierarchical Paging Structures": an entry is used if it is present and has no reserved bit set;
 * rights are the AND of all levels; A is set in each entry used, D in the last one on a write. Entries stand in
 * guest-physical memory; a guest-physical address without a slot is an EPT violation of the walk.
 */
#include "state.h"

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };
enum { MAXPHYADDR = 46 };
#define PTE_NX (1ull << 63)
#define ADDRESS_MASK (((1ull << 52) - 1) & ~0xfffull)
#define BEYOND_MAXPHYADDR (((1ull << 52) - 1) & ~((1ull << MAXPHYADDR) - 1))

bool gpa_to_hpa(struct engine *e, uint64_t gpa, uint64_t *hpa, bool *writable)
{
    for (unsigned i = 0; i < e->slot_count; i++) {
        const struct memory_slot *s = &e->slots[i];
        if (gpa - s->gpa < s->size) {
            *hpa = gpa - s->gpa + s->hpa;
            *writable = s->writable;
            return true;
        }
    }
    return false;
}

bool is_canonical(const struct engine *e, uint64_t linear)
{
    return !in_long_mode(e) || (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

bool raise_page_fault(struct engine *e, uint64_t linear, uint32_t error)
{
    raise_fault(e, 14, error);
    e->pending.cr2 = linear;
    return false;
}

/* What an EPT violation reports (manual: "Exit Qualification for EPT Violations"). */
static bool raise_ept_violation(struct engine *e, uint64_t linear, uint64_t gpa, enum access access, bool of_the_walk, bool is_rom)
{
    uint64_t kind = access == ACCESS_WRITE ? 2 : access == ACCESS_FETCH ? 4 : 1;
    raise_exit(e, EXIT_EPT_VIOLATION, kind | (is_rom ? 5u << 3 : 0) | 1u << 7 | (of_the_walk ? 0 : 1u << 8));
    e->pending.guest_linear = linear;
    e->pending.guest_physical = gpa;
    return false;
}

/* May an access of this kind use a translation with these rights, in the current mode? */
bool permitted(struct engine *e, uint32_t rights, enum access access, bool user)
{
    const struct core *c = e->core;
    if (!(c->cr[0] & CR0_PG))
        return !(access == ACCESS_WRITE && rights & TLB_ROM);
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

struct level { uint64_t table; int shift, bits, entry_bytes; };

static bool read_entry(struct engine *e, uint64_t gpa, int bytes, uint64_t **cell, uint64_t *value)
{
    uint64_t hpa;
    bool writable;
    *cell = NULL;
    if (!gpa_to_hpa(e, gpa, &hpa, &writable))
        return false;
    *value = 0;
    memcpy(value, e->ram + hpa, (size_t)bytes);
    if (writable)
        *cell = (uint64_t *)(void *)(e->ram + hpa);
    return true;
}

static void set_bits(struct engine *e, uint64_t *cell, uint64_t bits)
{
    uint32_t low;
    memcpy(&low, cell, 4);
    if ((low & bits) == bits)
        return;
    low |= (uint32_t)bits;
    uint64_t hpa = (uint64_t)((uint8_t *)cell - e->ram);
    host_wrote(e, hpa, 4);
    memcpy(cell, &low, 4);
}

/* Reserved bits of an entry at `shift` (manual: "Paging-Structure Entry Formats"). */
static uint64_t reserved_bits(const struct engine *e, int shift, int bytes, bool is_leaf)
{
    bool nxe = e->efer >> 11 & 1;
    if (bytes == 4)
        return is_leaf && shift == 22 ? 1ull << 21 : 0;            /* PSE-36 addresses bits 39:32 by 20:13 */
    uint64_t mask = BEYOND_MAXPHYADDR | (nxe ? 0 : PTE_NX);
    if (!in_long_mode(e))
        mask |= 0x7ff0000000000000ull;                             /* PAE: 62:52 */
    if (shift == 39)
        mask |= PTE_PS;
    if (shift == 30 && !in_long_mode(e))
        mask |= PTE_PS;
    if (is_leaf && shift > 12)
        mask |= ((1ull << shift) - 1) & ~0x1fffull;                /* address bits below the page, PAT at 12 */
    return mask;
}

static uint64_t leaf_address(uint64_t entry, int shift, int bytes)
{
    if (bytes == 4 && shift == 22)
        return (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32;
    return entry & ADDRESS_MASK & ~((1ull << shift) - 1);
}

static uint32_t fault_code(const struct engine *e, enum access access, bool user, uint32_t cause)
{
    bool fetch_reported = (e->efer >> 11 & 1) || e->core->cr[4] & CR4_SMEP;
    return cause | (access == ACCESS_WRITE ? PF_W : 0) | (user ? PF_U : 0) | (access == ACCESS_FETCH && fetch_reported ? PF_I : 0);
}

/* The first table and the shape of the levels in the current paging mode; false: PAE's PDPTE is not present. */
static bool first_level(struct engine *e, uint64_t linear, struct level *l)
{
    const struct core *c = e->core;
    if (in_long_mode(e)) {
        *l = (struct level){.table = c->cr[3] & ADDRESS_MASK, .shift = 39, .bits = 9, .entry_bytes = 8};
        return true;
    }
    if (!(c->cr[4] & CR4_PAE)) {
        *l = (struct level){.table = c->cr[3] & 0xfffff000, .shift = 22, .bits = 10, .entry_bytes = 4};
        return true;
    }
    uint64_t pdpte = *field(e, VMCS_GUEST_PDPTR0 + (int)(linear >> 30 & 3));
    *l = (struct level){.table = pdpte & ADDRESS_MASK, .shift = 21, .bits = 9, .entry_bytes = 8};
    return pdpte & PTE_P;
}

static bool is_leaf(const struct engine *e, uint64_t entry, const struct level *l)
{
    if (l->shift == 12)
        return true;
    if (l->shift == 39 || !(entry & PTE_PS))
        return false;
    return l->entry_bytes == 8 || e->core->cr[4] & CR4_PSE;
}

static bool walk_paged(struct engine *e, uint64_t linear, enum access access, bool user, enum walk_effects effects, struct walk *w)
{
    uint32_t rights = TLB_USER | TLB_WRITE;
    uint64_t *used[4], entry = 0;
    int count = 0;
    struct level l;
    if (!first_level(e, linear, &l))
        return raise_page_fault(e, linear, fault_code(e, access, user, 0));
    for (;; l.shift -= l.bits) {
        uint64_t at = l.table + (linear >> l.shift & ((1u << l.bits) - 1)) * (uint64_t)l.entry_bytes;
        if (!read_entry(e, at, l.entry_bytes, &used[count], &entry))
            return raise_ept_violation(e, linear, at, ACCESS_READ, true, false);
        if (!(entry & PTE_P))
            return raise_page_fault(e, linear, fault_code(e, access, user, 0));
        bool leaf = is_leaf(e, entry, &l);
        if (entry & reserved_bits(e, l.shift, l.entry_bytes, leaf))
            return raise_page_fault(e, linear, fault_code(e, access, user, PF_P | PF_RSVD));
        count++;
        rights &= ~(uint32_t)(TLB_USER | TLB_WRITE) | (entry & PTE_U ? TLB_USER : 0) | (entry & PTE_W ? TLB_WRITE : 0);
        rights |= l.entry_bytes == 8 && entry & PTE_NX ? TLB_NX : 0;
        if (leaf)
            break;
        l.table = l.entry_bytes == 4 ? entry & 0xfffff000 : entry & ADDRESS_MASK;
    }
    if (!permitted(e, rights, access, user))
        return raise_page_fault(e, linear, fault_code(e, access, user, PF_P));
    for (int k = 0; effects == WALK_SETS_BITS && k < count; k++)
        if (used[k])
            set_bits(e, used[k], PTE_A | (k == count - 1 && access == ACCESS_WRITE ? PTE_D : 0));
    rights |= access == ACCESS_WRITE || entry & PTE_D ? TLB_DIRTY : 0;
    rights |= entry & PTE_G && e->core->cr[4] & CR4_PGE ? TLB_GLOBAL : 0;
    uint64_t inside = (1ull << l.shift) - 1;
    *w = (struct walk){.gpa = leaf_address(entry, l.shift, l.entry_bytes) | (linear & inside), .rights = rights};
    return true;
}

bool walk(struct engine *e, uint64_t linear, enum access access, bool user, enum walk_effects effects, struct walk *w)
{
    bool writable;
    if (e->core->cr[0] & CR0_PG) {
        if (!walk_paged(e, linear, access, user, effects, w))
            return false;
    } else {
        *w = (struct walk){.gpa = linear & 0xffffffff, .rights = TLB_USER | TLB_WRITE | TLB_DIRTY | TLB_GLOBAL};
    }
    if (!gpa_to_hpa(e, w->gpa, &w->hpa, &writable))
        return raise_ept_violation(e, linear, w->gpa, access, false, false);
    if (!writable)
        w->rights |= TLB_ROM;
    if (!writable && access == ACCESS_WRITE)
        return raise_ept_violation(e, linear, w->gpa, access, false, true);
    return true;
}

/* MOV CR3 in PAE mode loads the four PDPTEs; a reserved bit in a present one is #GP(0). */
bool load_pdptes(struct engine *e, uint64_t cr3)
{
    uint64_t pdpte[4];
    for (int i = 0; i < 4; i++) {
        uint64_t *cell;
        if (!read_entry(e, (cr3 & 0xffffffe0) + (uint64_t)i * 8, 8, &cell, &pdpte[i]))
            return raise_ept_violation(e, 0, (cr3 & 0xffffffe0) + (uint64_t)i * 8, ACCESS_READ, true, false);
        if (pdpte[i] & PTE_P && pdpte[i] & (BEYOND_MAXPHYADDR | 0xfff00000000001e6ull))
            return raise_fault(e, 13, 0);
    }
    for (int i = 0; i < 4; i++)
        *field(e, VMCS_GUEST_PDPTR0 + i) = pdpte[i];
    return true;
}
