/* Set-associative caches of the memory-management unit; paging-structure caches and the nested TLB among them.
 *
 * Manual: "Caching Paging Structures": an entry of such a cache stands for the entries of the walk so far; here it holds
 * where the next table lies in machine memory. The nested TLB holds guest-physical mappings ("Creating and Using Cached
 * Translation Information"). Like the TLB they are not coherent: a guest that forgets to invalidate sees the old table.
 */
#include "state.h"

#include <stdlib.h>

/* Larger than any processor's, for --timing fast: what is not told apart there need not be slow either. */
static const struct paging_model large = {
    .physical_bits = 46, .linear_bits = 48, .has_1g = 1,
    .structure = {{512, 1}, {64, 1}, {16, 1}, {4, 1}}, .nested = {2048, 1},
};

static void cache_destroy(struct cache *c) { free(c->entries), free(c->next), free(c->room); }

static bool cache_create(struct cache *c, uint32_t sets, uint32_t ways)
{
    cache_destroy(c);
    *c = (struct cache){.sets = sets, .ways = ways};
    c->entries = calloc((size_t)sets * ways, sizeof *c->entries);
    c->next = calloc(sets, 1);
    c->room = malloc(sets);
    if (c->room)
        memset(c->room, (int)ways, sets);
    return c->entries && c->next && c->room;
}

static void cache_clear(struct cache *c)
{
    memset(c->entries, 0, (size_t)c->sets * c->ways * sizeof *c->entries);
    memset(c->next, 0, c->sets);
    memset(c->room, (int)c->ways, c->sets);
}

struct cached *cache_victim(struct cache *c, uint64_t index)
{
    struct cached *set = cache_set(c, index);
    uint8_t *room = &c->room[index & (c->sets - 1)];
    if (c->ways == 1)
        return set;
    for (uint32_t way = 0; *room; way++)
        if (!set[way].tag) {
            --*room;
            return &set[way];
        }
    uint8_t *next = &c->next[index & (c->sets - 1)];
    struct cached *victim = &set[*next];
    *next = (uint8_t)(*next + 1u == c->ways ? 0 : *next + 1);
    return victim;
}

void cache_drop(struct cache *c, struct cached *entry)
{
    c->room[(size_t)(entry - c->entries) / c->ways] += entry->tag != 0;
    entry->tag = 0;
}

static bool is_geometry(const struct cache_geometry *g) { return g->sets && !(g->sets & (g->sets - 1)) && g->ways && g->ways < 256; }

static bool level_create(struct tlb_level *l, const struct tlb_geometry *g, uint32_t fidelity)
{
    free(l->handed);
    struct cache kept = l->cache;
    *l = (struct tlb_level){.cache = kept, .level = (uint8_t)g->level, .kinds = (uint8_t)g->kinds, .sizes = (uint8_t)g->sizes};
    l->inner = g->level == (fidelity >= TLB_SPLIT ? 1u : 2u);
    if (g->sizes & ~1u)
        l->handed = calloc((size_t)g->sets * g->ways, sizeof *l->handed);
    return cache_create(&l->cache, g->sets, g->ways) && (l->handed || !(g->sizes & ~1u));
}

static bool model_is_sound(const struct paging_model *m)
{
    bool sound = m->level_count <= TLB_LEVELS && m->physical_bits >= 32 && m->physical_bits <= 52;
    for (uint32_t k = 0; sound && k < m->level_count; k++)
        sound = is_geometry(&(struct cache_geometry){m->level[k].sets, m->level[k].ways});
    for (int k = 0; k < STRUCTURE_CACHES; k++)
        sound = sound && is_geometry(&m->structure[k]);
    return sound && is_geometry(&m->nested);
}

/* Without the first level, the second decides. */
static bool is_wanted(const struct tlb_geometry *g, uint32_t fidelity)
{
    return fidelity == TLB_SPLIT || (g->kinds & KIND_DATA && (g->level == 2 || fidelity == TLB_DATA));
}

static bool shape(struct engine *e, const struct paging_model *m, uint32_t fidelity)
{
    struct mmu *u = &e->mmu;
    bool made = true;
    u->level_count = 0;
    u->fidelity = fidelity;
    for (uint32_t k = 0; k < m->level_count; k++)
        if (is_wanted(&m->level[k], fidelity))
            made = level_create(&u->levels[u->level_count++], &m->level[k], fidelity) && made;
    made = cache_create(&u->large, fidelity == TLB_SPLIT ? 1 : TLB_ENTRIES, 1) && made;
    for (int k = 0; k < STRUCTURE_CACHES; k++)
        made = cache_create(&u->structures[k], m->structure[k].sets, m->structure[k].ways) && made;
    return cache_create(&u->nested, m->nested.sets, m->nested.ways) && made;
}

int engine_set_paging(struct engine *e, const struct paging_model *model, uint32_t fidelity)
{
    if (!model_is_sound(model) || fidelity > TLB_DATA)
        return -1;
    e->mmu.beyond = ((1ull << 52) - 1) & ~((1ull << model->physical_bits) - 1);
    e->mmu.has_1g = model->has_1g;
    e->mmu.unused_linear_bits = model->linear_bits == 57 ? 7 : 16;
    if (!shape(e, fidelity == TLB_LARGE ? &large : model, fidelity))
        return -1;
    mmu_wipe(e);
    return 0;
}

bool mmu_create(struct engine *e) { return engine_set_paging(e, &large, TLB_LARGE) == 0; }

void mmu_destroy(struct engine *e)
{
    struct mmu *u = &e->mmu;
    for (int k = 0; k < TLB_LEVELS; k++)
        cache_destroy(&u->levels[k].cache), free(u->levels[k].handed);
    for (int k = 0; k < STRUCTURE_CACHES; k++)
        cache_destroy(&u->structures[k]);
    cache_destroy(&u->nested);
    cache_destroy(&u->large);
}

void caches_clear(struct engine *e)
{
    struct mmu *u = &e->mmu;
    for (uint32_t k = 0; k < u->level_count; k++) {
        cache_clear(&u->levels[k].cache);
        if (u->levels[k].handed)
            memset(u->levels[k].handed, 0, (size_t)u->levels[k].cache.sets * u->levels[k].cache.ways * sizeof *u->levels[k].handed);
    }
    for (int k = 0; k < STRUCTURE_CACHES; k++)
        cache_clear(&u->structures[k]);
    cache_clear(&u->nested);
    cache_clear(&u->large);
    forget_lines(e);
    detail_forget(e);
    memset(u->regions, 0, sizeof u->regions);
}

/* ---- paging-structure caches ---- */

static struct cache *structures_at(struct engine *e, int shift) { return &e->mmu.structures[shift >= 48 ? 3 : shift >= 39 ? 2 : shift >= 30]; }

struct cached *structure_find(struct engine *e, uint64_t linear, int shift)
{
    uint64_t region = linear >> shift;
    return cache_find(structures_at(e, shift), region ^ e->mmu.mix, region, e->mmu.structure_tag);
}

void structure_insert(struct engine *e, uint64_t linear, int shift, uint64_t gpa, uint64_t hpa, uint32_t rights)
{
    uint64_t region = linear >> shift;
    if (e->mmu.aside)
        return;
    struct cached *at = structure_find(e, linear, shift);
    if (!at)
        at = cache_victim(structures_at(e, shift), region ^ e->mmu.mix);
    *at = (struct cached){.page = region, .hpa = hpa, .more = gpa, .tag = e->mmu.structure_tag, .rights = rights};
}

void structure_drop(struct engine *e, uint64_t linear)
{
    static const int shifts[] = {21, 22, 30, 39, 48};
    for (int k = 0; k < 5; k++) {
        struct cached *at = structure_find(e, linear, shifts[k]);
        if (at)
            cache_drop(structures_at(e, shifts[k]), at);
    }
}

/* ---- guest-physical mappings ---- */

static uint64_t nested_key(uint64_t gpa, int size) { return gpa >> (12 + 9 * size) | (uint64_t)size << 60; }

struct cached *nested_find(struct engine *e, uint64_t gpa)
{
    static const int order[] = {PAGE_2M, PAGE_4K, PAGE_1G};
    for (int k = 0; k < 3; k++) {
        uint64_t key = nested_key(gpa, order[k]);
        struct cached *at = cache_find(&e->mmu.nested, key, key, e->mmu.physical_tag);
        if (at)
            return at;
    }
    return NULL;
}

void nested_insert(struct engine *e, uint64_t gpa, uint64_t hpa, uint32_t rights, int shift)
{
    uint64_t key = nested_key(gpa, (shift - 12) / 9);
    if (e->mmu.aside)
        return;
    struct cached *at = cache_find(&e->mmu.nested, key, key, e->mmu.physical_tag);
    if (!at)
        at = cache_victim(&e->mmu.nested, key);
    *at = (struct cached){.page = key, .hpa = hpa, .more = (1ull << shift) - 1, .tag = e->mmu.physical_tag, .rights = rights};
}

void nested_drop(struct engine *e, uint64_t gpa)
{
    for (struct cached *at; (at = nested_find(e, gpa));)
        cache_drop(&e->mmu.nested, at);
}
