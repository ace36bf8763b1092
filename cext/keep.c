/* What a processor remembers beside its virtual CPUs, in and out as bytes: caches of translations, counts, the newest exits.
 *
 * A guest can tell a translation that is cached from one that is not, and modelled time depends on it. So a checkpoint that
 * is to be gone back to, without anybody noticing that it was taken, holds the caches. An ordinary snapshot need not.
 */
#include "state.h"

struct cursor { uint8_t *at; uint64_t size; bool saves; };      /* at NULL: measure */

static void part(struct cursor *c, void *bytes, size_t n)
{
    if (c->at && c->saves)
        memcpy(c->at, bytes, n);
    else if (c->at)
        memcpy(bytes, c->at, n);
    c->at += c->at ? n : 0;
    c->size += n;
}

static void part_cache(struct cursor *c, struct cache *cache)
{
    part(c, cache->entries, (size_t)cache->sets * cache->ways * sizeof *cache->entries);
    part(c, cache->next, cache->sets);
    part(c, cache->room, cache->sets);
}

static void part_mmu(struct cursor *c, struct mmu *u)
{
    struct mmu shape = *u;         /* what is no state: where things are, and the model */
    part(c, u, sizeof *u);
    memcpy(u->levels, shape.levels, sizeof u->levels);
    memcpy(u->structures, shape.structures, sizeof u->structures);
    u->nested = shape.nested;
    u->large = shape.large;
    u->log = NULL;
    for (uint32_t k = 0; k < u->level_count; k++)
        part_cache(c, &u->levels[k].cache);
    for (int k = 0; k < STRUCTURE_CACHES; k++)
        part_cache(c, &u->structures[k]);
    part_cache(c, &u->nested);
    part_cache(c, &u->large);
}

/* Lines of page tables in the caches, which a walk's time depends on. */
static void part_price(struct cursor *c, struct price *p)
{
    for (int k = 0; k < LINE_LEVELS; k++)
        if (p->levels[k].lines)
            part(c, p->levels[k].lines, (size_t)p->levels[k].sets * p->levels[k].ways * sizeof *p->levels[k].lines);
    part(c, &p->injects, sizeof p->injects);
    part(c, &p->paid, sizeof p->paid);
    part(c, &p->spent, sizeof p->spent);
}

static uint64_t all_parts(struct engine *e, uint8_t *at, bool saves)
{
    struct cursor c = {.at = at, .saves = saves};
    part(&c, &e->retired, sizeof e->retired);
    part(&c, &e->work, sizeof e->work);
    part(&c, &e->skew, sizeof e->skew);
    part(&c, &e->counters, sizeof e->counters);
    part(&c, e->by_reason, sizeof e->by_reason);
    part(&c, &e->settled, sizeof e->settled);
    part(&c, &e->ledger, sizeof e->ledger);
    part(&c, &e->line_init, sizeof e->line_init);
    part(&c, &e->line_nmi, sizeof e->line_nmi);
    part(&c, &e->line_busy, sizeof e->line_busy);
    part(&c, &e->line_vector, sizeof e->line_vector);
    part(&c, &e->nmi_blocked, sizeof e->nmi_blocked);
    part_mmu(&c, &e->mmu);
    part_price(&c, &e->price);
    part(&c, &e->detail, sizeof e->detail);
    part(&c, e->history, sizeof e->history);
    return c.size;
}

uint64_t engine_kept_bytes(struct engine *e) { return all_parts(e, NULL, true); }
void engine_keep(struct engine *e, uint8_t *bytes) { all_parts(e, bytes, true); }

/* Of the same engine, or one of the same model. Unicorn's own TLB starts empty: it may hold only what the model holds. */
void engine_put_back(struct engine *e, const uint8_t *bytes)
{
    all_parts(e, (uint8_t *)(uintptr_t)bytes, false);
    for (uint32_t k = 0; k < e->mmu.level_count; k++)
        if (e->mmu.levels[k].handed)
            memset(e->mmu.levels[k].handed, 0, (size_t)e->mmu.levels[k].cache.sets * e->mmu.levels[k].cache.ways * sizeof *e->mmu.levels[k].handed);
    e->vcpu = NULL;
    micro_flush(e);
}
