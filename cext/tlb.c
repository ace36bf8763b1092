/* Tour 3.3: the modelled TLB: what the guest may still see of tables that it has changed.
 *
 * Four fidelities (enum tlb_fidelity), chosen with the timing mode:
 *   TLB_LARGE   65,536 entries of 4 KiB, direct-mapped, spread by context. Larger than any processor's: evictions are
 *               rare, so that a big working set stays fast. For --timing fast, where a miss costs no cycle.
 *   TLB_SHARED  the second level with the CPU model's geometry, for data. The first level is inside it and not told apart.
 *               Code has the large one beside it: when Unicorn fetches depends on what it has translated already, so a
 *               run that was stopped would miss at other places. For --timing cycle.
 *   TLB_SPLIT   both levels, code and data apart.
 *   TLB_DATA    both levels for data; code as with TLB_SHARED. For --timing detailed.
 * In each, Unicorn's TLB holds only pages that the inner structures hold ("inner": level 2, where there are two level 1): what
 * they evict or invalidate is flushed there, page by page. A refill of what they hold changes no counter and no
 * replacement state, because Unicorn resizes its TLB by host time and nothing may depend on the number of its refills.
 * Hence hits of the inner level are not counted, and replacement is round robin, which does not ask for them.
 */
#include "xen.h"

static uint64_t size_mask(enum page_size size) { return (1ull << (12 + 9 * size)) - 1; }

static uint64_t key_of(uint64_t linear, enum page_size size) { return linear >> (12 + 9 * size) | (uint64_t)size << 60; }

static bool is_mine(const struct engine *e, const struct cached *t) { return t->tag == e->mmu.tag || t->tag == e->mmu.global_tag; }

static uint32_t tag_for(const struct engine *e, uint32_t rights) { return rights & TLB_GLOBAL ? e->mmu.global_tag : e->mmu.tag; }

/* ---- the large one ---- */

static struct cached *large_slot(struct engine *e, uint64_t page, bool global)
{
    return &e->mmu.large.entries[(page ^ (global ? 0 : e->mmu.mix)) % TLB_ENTRIES];
}

/* Beside the shaped ones, for code. */
static bool has_large(const struct engine *e) { return e->mmu.fidelity != TLB_SPLIT; }

static bool has_two_levels(const struct engine *e) { return e->mmu.fidelity >= TLB_SPLIT; }

static bool is_large(const struct engine *e, unsigned kind)
{
    return e->mmu.fidelity == TLB_LARGE || (has_large(e) && kind == KIND_CODE);
}

static struct cached *large_find(struct engine *e, uint64_t page)
{
    struct cached *t = large_slot(e, page, (int64_t)page < 0 || page >> 51);   /* the upper half is mostly global: look there first */
    if (t->page == page && is_mine(e, t))
        return t;
    t = large_slot(e, page, !(page >> 51));
    return t->page == page && is_mine(e, t) ? t : NULL;
}

/* ---- levels with geometry ---- */

static struct cached *level_find(struct engine *e, const struct tlb_level *l, uint64_t linear)
{
    unsigned cached = l->sizes & (e->mmu.own_sizes | e->mmu.global_sizes);
    for (int size = PAGE_4K; cached >> size; size++) {
        if (!(cached >> size & 1))
            continue;
        uint64_t key = key_of(linear, (enum page_size)size);
        struct cached *t = cache_set(&l->cache, key);
        for (uint32_t way = 0; way < l->cache.ways; way++, t++)
            if (t->page == key && is_mine(e, t))
                return t;
    }
    return NULL;
}

static size_t number_of(const struct tlb_level *l, const struct cached *t) { return (size_t)(t - l->cache.entries); }

/* Unicorn must not keep what this entry gave it. */
static void take_back(struct engine *e, struct tlb_level *l, struct cached *t)
{
    enum page_size size = t->page >> 60;
    uint64_t base = (t->page & ((1ull << 60) - 1)) << (12 + 9 * size);
    if (!l->inner || !is_mine(e, t))
        return;
    if (size == PAGE_4K || !l->handed) {
        micro_flush_page(e, base);
        return;
    }
    uint64_t *handed = l->handed[number_of(l, t)];
    for (int n = 0; n < 512; n++)
        if (handed[n / 64] >> n % 64 & 1 && size == PAGE_2M)
            micro_flush_page(e, base + ((uint64_t)n << 12));
    if (size == PAGE_1G)
        micro_flush(e);
}

static void note_handed(struct tlb_level *l, const struct cached *t, uint64_t linear)
{
    if (!l->handed || !l->inner || t->page >> 60 == PAGE_4K)
        return;
    unsigned piece = linear >> (t->page >> 60 == PAGE_2M ? 12 : 21) & 511;
    l->handed[number_of(l, t)][piece / 64] |= 1ull << piece % 64;
}

/* `t`: what a lookup found for the address; if it found nothing there is nothing to look for. */
static struct cached *level_insert(struct engine *e, struct tlb_level *l, uint64_t linear, enum page_size size, const struct cached *from,
                                   const struct cached *found)
{
    while (!(l->sizes >> size & 1))        /* no room for this size: a piece of it */
        size--;
    uint64_t key = key_of(linear, size), inside = size_mask(size);
    struct cached *t = found ? cache_find(&l->cache, key, key, from->tag) : NULL;
    *(from->rights & TLB_GLOBAL ? &e->mmu.global_sizes : &e->mmu.own_sizes) |= 1u << size;
    if (!t) {
        t = cache_victim(&l->cache, key);
        if (t->tag)
            take_back(e, l, t);
        if (l->handed && size > PAGE_4K)
            memset(l->handed[number_of(l, t)], 0, sizeof *l->handed);
    }
    *t = *from;
    t->page = key;
    t->hpa = cached_hpa(from, linear) & ~inside;
    t->more = inside & ~0xfffull;
    return t;
}

/* Structures of one level share out the page sizes: the one for the largest pieces that make up the page. */
static struct tlb_level *level_for(struct engine *e, unsigned kind, enum page_size size, bool inner)
{
    struct tlb_level *found = NULL;
    unsigned best = 0;
    for (uint32_t k = 0; k < e->mmu.level_count; k++) {
        struct tlb_level *l = &e->mmu.levels[k];
        unsigned fitting = l->sizes & ((2u << size) - 1);
        if (l->inner == inner && l->kinds & kind && fitting > best) {
            best = fitting;
            found = l;
        }
    }
    return found;
}

static struct cached *find_among(struct engine *e, uint64_t linear, unsigned kind, bool inner, struct tlb_level **level)
{
    for (uint32_t k = 0; k < e->mmu.level_count; k++) {
        struct tlb_level *l = &e->mmu.levels[k];
        struct cached *t = l->inner == inner && l->kinds & kind ? level_find(e, l, linear) : NULL;
        if (t) {
            *level = l;
            return t;
        }
    }
    return NULL;
}

static struct cached *put_inner(struct engine *e, uint64_t linear, unsigned kind, enum page_size size, const struct cached *from,
                                const struct cached *found)
{
    struct tlb_level *l = level_for(e, kind, size, true);
    struct cached *t = level_insert(e, l, linear, size, from, found);
    note_handed(l, t, linear);
    return t;
}

static enum page_size size_of(const struct cached *t) { return t->rights >> TLB_SIZE_SHIFT & 3; }

/* What the inner level holds; what only the outer level holds moves in. */
static struct cached *shaped_find(struct engine *e, uint64_t linear, unsigned kind)
{
    struct tlb_level *l;
    struct cached *t = find_among(e, linear, kind, true, &l);
    if (t) {
        note_handed(l, t, linear);
        return t;
    }
    if (!has_two_levels(e) || !(t = find_among(e, linear, kind, false, &l)))
        return NULL;
    e->mmu.counters.level2_hits[size_of(t)]++;
    charge_level2(e);
    const struct cached from = *t;
    return put_inner(e, linear, kind, size_of(&from), &from, NULL);
}

struct cached *tlb_find(struct engine *e, uint64_t linear, unsigned kind)
{
    return is_large(e, kind) ? large_find(e, linear >> 12) : shaped_find(e, linear, kind);
}

/* For looking only: nothing moves. */
struct cached *tlb_peek(struct engine *e, uint64_t linear)
{
    struct tlb_level *l;
    struct cached *t = has_large(e) ? large_find(e, linear >> 12) : NULL;
    if (t || e->mmu.fidelity == TLB_LARGE)
        return t;
    t = find_among(e, linear, KIND_DATA | KIND_CODE, true, &l);
    return t ? t : find_among(e, linear, KIND_DATA | KIND_CODE, false, &l);
}

/* ---- filling ---- */

static enum page_size class_of(int shift) { return shift >= 30 ? PAGE_1G : shift >= 21 ? PAGE_2M : PAGE_4K; }

/* Of a guest's large page there may be several entries; INVLPG must know where to look for them. */
static void note_pieces(struct engine *e, uint64_t linear, enum page_size guest)
{
    uint64_t region = linear >> (guest == PAGE_1G ? 30 : 22) & (REGIONS - 1);
    e->mmu.regions[guest == PAGE_1G][region / 64] |= 1ull << region % 64;
}

static bool has_pieces(const struct engine *e, uint64_t linear, enum page_size guest)
{
    uint64_t region = linear >> (guest == PAGE_1G ? 30 : 22) & (REGIONS - 1);
    return e->mmu.regions[guest == PAGE_1G][region / 64] >> region % 64 & 1;
}

static struct cached *large_insert(struct engine *e, uint64_t linear, const struct cached *from)
{
    uint64_t page = linear >> 12;
    struct cached *t = large_slot(e, page, from->rights & TLB_GLOBAL);
    if (t->page != page && t->tag && is_mine(e, t))
        micro_flush_page(e, t->page << 12);
    *t = *from;
    return t;
}

struct cached *tlb_insert(struct engine *e, uint64_t linear, unsigned kind, const struct walk *w, const struct cached *found)
{
    enum page_size size = class_of(w->shift), guest = class_of(w->guest_shift);
    uint32_t rights = w->rights | (uint32_t)size << TLB_SIZE_SHIFT | (uint32_t)guest << TLB_GUEST_SIZE_SHIFT;
    struct cached from = {.page = linear >> 12, .hpa = w->hpa & ~0xfffull, .tag = tag_for(e, rights), .rights = rights};
    bool large = is_large(e, kind);
    if (!large || e->mmu.fidelity == TLB_LARGE)
        e->mmu.counters.misses[size]++;
    if (guest != PAGE_4K && (large || guest != size || w->guest_shift == 22))
        note_pieces(e, linear, guest);
    if (large)
        return large_insert(e, linear, &from);
    from.hpa = w->hpa & ~size_mask(size);
    from.more = size_mask(size) & ~0xfffull;
    struct tlb_level *outer = has_two_levels(e) ? level_for(e, kind, size, false) : NULL;
    if (outer)
        level_insert(e, outer, linear, size, &from, found);
    return put_inner(e, linear, kind, size, &from, found);
}

/* ---- invalidating one address ---- */

static void large_drop(struct engine *e, uint64_t linear)
{
    for (struct cached *t; (t = large_find(e, linear >> 12));)
        t->tag = 0;
}

static void shaped_drop(struct engine *e, uint64_t linear)
{
    for (uint32_t k = 0; k < e->mmu.level_count; k++) {
        struct tlb_level *l = &e->mmu.levels[k];
        for (struct cached *t; (t = level_find(e, l, linear));) {
            take_back(e, l, t);
            cache_drop(&l->cache, t);
        }
    }
}

static void drop_piece(struct engine *e, uint64_t linear)
{
    if (has_large(e))
        large_drop(e, linear);
    if (e->mmu.fidelity != TLB_LARGE)
        shaped_drop(e, linear);
    micro_flush_page(e, linear & ~0xfffull);
}

/* Manual, INVLPG: all entries of the page, if the tables map the address by a large one and there are several. */
void tlb_drop(struct engine *e, uint64_t linear)
{
    drop_piece(e, linear);
    if (unlikely(has_pieces(e, linear, PAGE_1G))) {        /* a quarter of a million places to look: rather all */
        mmu_renew(e, e->mmu.vpid, ANY_PCID, ANY_ROOT);
        return;
    }
    if (likely(!has_pieces(e, linear, PAGE_2M)))
        return;
    for (uint64_t at = linear & ~0x3fffffull, n = 0; n < 1024; n++, at += 4096) {
        struct cached *t = tlb_peek(e, at);
        if (t && t->rights >> TLB_GUEST_SIZE_SHIFT & 3)
            drop_piece(e, at);
    }
}

/* ---- answering ---- */

bool tlb_allows(struct engine *e, const struct cached *t, enum access access, bool user)
{
    if (!permitted(e, t->rights, access, user))
        return false;
    return access != ACCESS_WRITE || (t->rights & (TLB_DIRTY | TLB_ROM)) == TLB_DIRTY;
}

static struct cached *keep_beside(struct engine *e, uint64_t linear, const struct walk *w)
{
    e->mmu.beside = (struct cached){.page = linear >> 12, .hpa = w->hpa & ~0xfffull, .rights = w->rights};
    return &e->mmu.beside;
}

/* What the guest accesses comes in a known order; what software looks at on the side must leave no trace there. */
static struct cached *lookup_aside(struct engine *e, uint64_t linear, enum access access, bool user)
{
    struct walk w;
    struct cached *t = tlb_peek(e, linear);
    if (t && tlb_allows(e, t, access, user))
        return t;
    return walk(e, linear, access, user, WALK_SETS_BITS, &w) ? keep_beside(e, linear, &w) : NULL;
}

static bool walk_for(struct engine *e, uint64_t linear, enum access access, bool user, struct walk *w)
{
    e->counters.tlb_walks++;
    e->mmu.aside = is_large(e, KIND_CODE) && e->mmu.fidelity != TLB_LARGE && access == ACCESS_FETCH;
    begin_walk(e);
    bool found = walk(e, linear, access, user, WALK_SETS_BITS, w);
    if (!e->mmu.aside)
        charge_walk(e);
    if (found && e->price.far && access != ACCESS_FETCH)
        charge_distance(e, w->hpa);
    e->mmu.aside = false;
    return found;
}

/* The entry that allows this access; walks when there is none. NULL: pending is set. */
struct cached *tlb_lookup(struct engine *e, uint64_t linear, enum access access, bool user)
{
    unsigned kind = access == ACCESS_FETCH ? KIND_CODE : KIND_DATA;
    if (unlikely(e->mmu.aside))
        return lookup_aside(e, linear, access, user);
    struct cached *t = tlb_find(e, linear, kind);
    if (t && tlb_allows(e, t, access, user))
        return t;
    struct walk w;
    if (walk_for(e, linear, access, user, &w)) {
        if (is_xen(e))
            xen_note_translation(e, linear, &w);
        return tlb_insert(e, linear, kind, &w, t);
    }
    if (t)                         /* a fault drops the stale entry (manual: "Operations that Invalidate TLBs") */
        tlb_drop(e, linear);
    return NULL;
}

bool tlb_translate(struct engine *e, uint64_t linear, enum access access, bool user, uint64_t *hpa)
{
    struct cached *t = tlb_lookup(e, linear, access, user);
    if (!t)
        return false;
    *hpa = cached_hpa(t, linear) | (linear & 0xfff);
    return likely(*hpa >> 12 != e->apic_page >> 12) || raise_apic_access(e, linear, access);
}

/* What a refused fill found is gone: look again, but do not let the guest pay twice. */
bool tlb_translate_again(struct engine *e, uint64_t linear, enum access access, uint64_t *hpa)
{
    e->price.paid = e->refusal.walked;
    bool found = tlb_translate(e, linear, access, e->cpl == 3, hpa);
    e->price.paid = false;
    return found;
}
