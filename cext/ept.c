/* Tour 3.1: from guest-physical to machine addresses: the EPT that the VMCS points to, in machine memory.
 *
 * Manual, "EPT Translation Mechanism": an entry is present if it grants anything; rights are the AND of all levels;
 * a present entry with a reserved bit or an impossible combination is a misconfiguration, anything else that stands in
 * the way a violation. With accessed and dirty flags enabled an access to a guest paging structure counts as a write.
 * Without EPT, guest-physical is machine.
 */
#include "state.h"

#include <stdio.h>

#define EPT_LARGE (1ull << 7)
#define EPT_ACCESSED (1ull << 8)
#define EPT_DIRTY (1ull << 9)
enum { LEAF_TYPE_SHIFT = 3 };

void note_reference(struct engine *e, uint32_t kind, int level, uint64_t gpa, uint64_t hpa, uint64_t entry)
{
    struct mmu *u = &e->mmu;
    if (u->log_count < u->log_room)
        u->log[u->log_count] = (struct walk_reference){.kind = kind, .level = (uint32_t)level, .gpa = gpa, .hpa = hpa, .entry = entry};
    u->log_count++;
}

void note_verdict(struct engine *e, uint32_t verdict)
{
    if (unlikely(e->mmu.log != NULL) && e->mmu.log_count && e->mmu.log_count <= e->mmu.log_room)
        e->mmu.log[e->mmu.log_count - 1].verdict = verdict;
}

/* What the bus answers where no machine memory is: all ones. */
static uint64_t machine_word(const struct engine *e, uint64_t hpa)
{
    uint64_t value = ~0ull;
    if (likely(hpa + 8 <= e->ram_size))
        memcpy(&value, e->ram + hpa, 8);
    return value;
}

/* Manual, "EPT Violations" and the table of their exit qualification; bits 11:9 are the advanced information. */
static uint64_t qualification(const struct engine *e, uint32_t need, uint32_t rights, const struct ept_cause *c)
{
    bool translation = c->linear_valid && c->is_translation;
    uint64_t page = translation ? (c->page_rights & TLB_USER ? 1u << 9 : 0) | (c->page_rights & TLB_WRITE ? 1u << 10 : 0) |
                                  (c->page_rights & TLB_NX ? 1u << 11 : 0) : 0;
    return (need & 7) | (rights & 7) << 3 | (e->mmu.mode_based && rights & EPT_EXECUTE_USER ? 1u << 6 : 0) |
           (c->linear_valid ? 1u << 7 : 0) | (translation ? 1u << 8 : 0) | page;
}

static bool refuse(struct engine *e, uint32_t reason, uint64_t gpa, uint64_t qualified, const struct ept_cause *c, uint64_t entry)
{
    raise_exit(e, reason, qualified);
    e->pending.guest_linear = c->linear_valid ? c->linear : 0;
    e->pending.guest_physical = gpa;
    e->pending.suppresses_ve = entry >> 63;
    note_verdict(e, reason == EXIT_EPT_MISCONFIG ? WALK_MISCONFIGURED : WALK_EPT_VIOLATION);
    return false;
}

/* Manual: "EPT Misconfigurations". */
static bool is_misconfigured(const struct engine *e, uint64_t entry, int level, bool leaf)
{
    unsigned type = entry >> LEAF_TYPE_SHIFT & 7;
    if ((entry & 3) == EPT_WRITE || entry & e->mmu.beyond)
        return true;
    if (!leaf)
        return entry & (level >= 4 || (level == 3 && !e->mmu.has_1g) ? 0xf8 : 0x78);
    return type == 2 || type == 3 || type == 7 || (level > 1 && entry & ((1ull << (3 + 9 * level)) - 1) & ~0xfffull);
}

struct ept_walk { uint64_t entry, at[5]; uint32_t rights; int count, level; };

static bool is_present(const struct engine *e, uint64_t entry) { return entry & (e->mmu.mode_based ? 7 | EPT_EXECUTE_USER : 7); }

static bool is_leaf(const struct engine *e, uint64_t entry, int level)
{
    return level == 1 || (entry & EPT_LARGE && (level == 2 || (level == 3 && e->mmu.has_1g)));
}

/* The entries used, to the leaf; false: pending. */
static bool descend(struct engine *e, uint64_t gpa, uint32_t need, const struct ept_cause *c, struct ept_walk *w)
{
    const uint64_t unusual = e->mmu.beyond | 0xf8;                 /* in an entry that is readable and leads to a table */
    const bool priced = e->price.on && !e->price.costs.bare;
    uint64_t table = e->mmu.root;
    w->rights = ~0u;
    w->count = 0;
    for (w->level = e->mmu.ept_levels;; w->level--) {
        uint64_t at = w->at[w->count++] = table + (gpa >> (3 + 9 * w->level) & 511) * 8, entry = machine_word(e, at);
        e->mmu.counters.ept_references++;
        if (priced)
            price_reference(e, at);
        if (unlikely(e->mmu.log != NULL))
            note_reference(e, WALK_EPT, w->level, gpa, at, entry);
        w->rights &= (uint32_t)entry;
        if (likely((entry & (unusual | EPT_READ)) == EPT_READ && w->level > 1)) {
            table = entry & ADDRESS_MASK;
            continue;
        }
        w->entry = entry;
        if (!is_present(e, entry))
            return refuse(e, EXIT_EPT_VIOLATION, gpa, qualification(e, need, 0, c), c, entry);
        bool leaf = is_leaf(e, entry, w->level);
        if (unlikely(is_misconfigured(e, entry, w->level, leaf)))
            return refuse(e, EXIT_EPT_MISCONFIG, gpa, 0, c, entry);
        if (leaf) {
            note_verdict(e, WALK_LEAF);
            return true;
        }
        table = entry & ADDRESS_MASK;
    }
}

static void set_flags(struct engine *e, uint64_t at, uint64_t flags)
{
    uint64_t entry = machine_word(e, at) | flags;
    memcpy(e->ram + at, &entry, 8);
}

/* Accessed and dirty flags; logging comes first, since a full log leaves them as they are. */
static bool note_use(struct engine *e, uint64_t gpa, bool writes, const struct ept_walk *w)
{
    bool dirties = writes && !(w->entry & EPT_DIRTY);
    if (dirties && e->mmu.logs_pages && !pml_log(e, gpa))
        return false;
    for (int k = 0; k < w->count - 1; k++)
        if (!(machine_word(e, w->at[k]) & EPT_ACCESSED))
            set_flags(e, w->at[k], EPT_ACCESSED);
    if (dirties || !(w->entry & EPT_ACCESSED))
        set_flags(e, w->at[w->count - 1], EPT_ACCESSED | (writes ? EPT_DIRTY : 0));
    return true;
}

/* Which right an access needs; fetches from user pages have their own under mode-based execute control. */
static uint32_t needed(const struct engine *e, uint32_t need, const struct ept_cause *c)
{
    if (!(need & EPT_EXECUTE) || !e->mmu.mode_based || !(c->page_rights & TLB_USER))
        return need;
    return (need & ~(uint32_t)EPT_EXECUTE) | EPT_EXECUTE_USER;
}

static bool no_memory(struct engine *e, uint64_t gpa)
{
    e->pending = (struct pending){.kind = PENDING_EXIT, .reason = STOP_INTERNAL, .guest_physical = gpa};
    snprintf(e->message, sizeof e->message, "without EPT the guest reached machine address %#llx, where no memory is",
             (unsigned long long)gpa);
    return false;
}

static bool walk_ept(struct engine *e, uint64_t gpa, uint32_t need, const struct ept_cause *c, bool looks, struct ept_page *page)
{
    struct ept_walk w;
    if (unlikely(e->mmu.ept_levels == 4 && gpa >> 48))
        return refuse(e, EXIT_EPT_VIOLATION, gpa, qualification(e, need, 0, c), c, 1ull << 63);
    if (!descend(e, gpa, need, c, &w))
        return false;
    uint32_t all = needed(e, need, c);
    if ((w.rights & all) != all)
        return refuse(e, EXIT_EPT_VIOLATION, gpa, qualification(e, need, w.rights, c), c, w.entry);
    int shift = 3 + 9 * w.level;
    uint64_t hpa = w.entry & ADDRESS_MASK;
    if (unlikely(hpa + (1ull << shift) > e->ram_size))             /* no bus beyond machine memory */
        return refuse(e, EXIT_EPT_MISCONFIG, gpa, 0, c, w.entry);
    bool writes = need & EPT_WRITE;
    if (e->mmu.ept_dirty && !looks && !note_use(e, gpa, writes, &w))
        return false;
    bool dirty = !e->mmu.ept_dirty || writes || w.entry & EPT_DIRTY;
    *page = (struct ept_page){.hpa = hpa, .rights = (w.rights & (7 | EPT_EXECUTE_USER)) | (dirty ? EPT_IS_DIRTY : 0), .shift = shift};
    if (!looks)
        nested_insert(e, gpa, page->hpa, page->rights, shift);
    page->hpa |= gpa & ((1ull << shift) - 1);
    return true;
}

/* Is the cached mapping enough? */
bool serves(const struct engine *e, const struct cached *at, uint32_t need, const struct ept_cause *c)
{
    uint32_t all = needed(e, need, c) | (need & EPT_WRITE ? EPT_IS_DIRTY : 0);
    return (at->rights & all) == all;
}

static bool identity(struct engine *e, uint64_t gpa, struct ept_page *page)
{
    if ((gpa | 0xfff) >= e->ram_size)
        return no_memory(e, gpa);
    *page = (struct ept_page){.hpa = gpa, .rights = 7 | EPT_EXECUTE_USER | EPT_IS_DIRTY, .shift = 12};
    for (int size = PAGE_1G; size > PAGE_4K && page->shift == 12; size--)
        if ((gpa | ((1ull << (12 + 9 * size)) - 1)) < e->ram_size)
            page->shift = 12 + 9 * size;
    return true;
}

bool ept_translate(struct engine *e, uint64_t gpa, uint32_t need, const struct ept_cause *c, bool looks, struct ept_page *page)
{
    struct cached *at;
    if (!e->mmu.eptp)
        return identity(e, gpa, page);
    bool asks = !looks && !e->mmu.aside;
    if (asks && (at = nested_find(e, gpa)) && serves(e, at, need, c)) {
        e->mmu.counters.nested_hits++;
        price_hit(e, e->price.costs.bare ? 0 : e->price.costs.nested_hit);
        *page = (struct ept_page){.hpa = at->hpa | (gpa & at->more), .rights = at->rights, .shift = 64 - __builtin_clzll(at->more)};
        return true;
    }
    e->mmu.counters.nested_misses += asks;
    if (walk_ept(e, gpa, need, c, looks, page))
        return true;
    if (!looks)
        nested_drop(e, gpa);       /* manual, "Operations that Invalidate Cached Mappings": an EPT violation */
    return false;
}
