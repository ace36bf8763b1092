/* Tour 3.4: fills of Unicorn's TLB, which is a cache of the modelled one.
 *
 * Unicorn resizes its own TLB by host time, so its refills come at times that nothing may depend on. The modelled TLB
 * answers them: a refill of what it holds changes nothing there.
 *
 * Unicorn keeps translated code coherent only through the mapping that a store uses. So each machine page is DATA
 * (writable mappings may be cached, executable ones not) or CODE (executable mappings may be cached; a store either
 * goes through a mapping that is executable too, which Unicorn then checks each time, or makes the page DATA again).
 */
#include "state.h"

enum { VECTOR_PF = 14 };
enum { STORES_BEFORE_DEMOTION = 16, FILLS_BETWEEN_FLUSHES = 1 << 18 };

/* Unicorn enlarges its TLB only when it is flushed: a guest that keeps missing gets a flush now and then. */
static void let_it_grow(struct engine *e)
{
    if (++e->fills < e->fills_before_growth)
        return;
    if (e->fills_before_growth < FILLS_BETWEEN_FLUSHES)
        e->fills_before_growth *= 2;
    micro_flush(e);
}

bool code_page(struct engine *e, uint64_t linear, uint64_t *hpa)
{
    struct cached *t = tlb_peek(e, linear);
    struct walk w;
    if (t) {
        *hpa = cached_hpa(t, linear) | (linear & 0xfff);
        return true;
    }
    struct pending kept = e->pending;
    bool found = walk(e, linear, ACCESS_FETCH, e->cpl == 3, WALK_LOOKS, &w);
    e->pending = kept;
    *hpa = w.hpa;
    return found;
}

static void drop_code(struct engine *e, uint64_t page)
{
    lib.internal.tb_invalidate(e->uc, page << 12, (page + 1) << 12);
}

static void mark_dirty(struct engine *e, uint64_t page)
{
    if (e->dirty)
        e->dirty[page / 64] |= 1ull << page % 64;
}

void host_wrote(struct engine *e, uint64_t hpa, uint64_t size)
{
    for (uint64_t page = hpa >> 12; size && page <= (hpa + size - 1) >> 12 && page < e->ram_size >> 12; page++) {
        mark_dirty(e, page);
        if (e->pages[page].state == PAGE_CODE)
            drop_code(e, page);
        if (unlikely(e->peer))
            peers_lose_code(e, page);
    }
    if (unlikely(e->watching) && size)
        stops_note_physical(e, hpa, size);
}

/* Executable mappings of a page may be cached since `exec_grant`; none of them may survive its becoming DATA. */
static void make_data(struct engine *e, struct page *p, uint64_t page)
{
    drop_code(e, page);
    if (p->exec_grant == e->grants)
        micro_flush(e);
    p->state = PAGE_DATA;
    p->stores = 0;
    e->counters.demotions++;
}

static uint32_t grant_fetch(struct engine *e, struct page *p)
{
    if (p->state == PAGE_DATA) {
        p->state = PAGE_CODE;
        e->counters.code_pages++;
        if (p->write_grant == e->grants)
            micro_flush(e);
        if (unlikely(e->peer))
            peers_lose_writes(e, (uint64_t)(p - e->pages));
    }
    p->stores = 0;
    p->exec_grant = e->grants;
    return UC_PROT_READ | UC_PROT_EXEC;
}

static bool runs_in(struct engine *e, uint64_t page)
{
    uint64_t hpa;
    if (!e->block)
        return false;
    uint64_t first = e->block->real_pc, last = first + e->block->size - 1;
    return (code_page(e, first, &hpa) && hpa >> 12 == page) || (last >> 12 != first >> 12 && code_page(e, last, &hpa) && hpa >> 12 == page);
}

/* The code of the running block must not be dropped under it: it would go on in its old form to its end. With TF the end
 * is here; through an executable mapping Unicorn looks after it. */
static bool stores_under_itself(struct engine *e, const struct cached *t, uint64_t page, bool user)
{
    return e->pages[page].state == PAGE_CODE && !permitted(e, t->rights, ACCESS_FETCH, user) && !(e->core->eflags & 0x100) &&
           runs_in(e, page);
}

static uint32_t grant_store(struct engine *e, struct page *p, uint64_t page, bool executable)
{
    mark_dirty(e, page);
    if (unlikely(e->peer))
        peers_lose_code(e, page);
    if (p->state == PAGE_CODE && executable && (p->stores < STORES_BEFORE_DEMOTION || runs_in(e, page))) {
        p->stores += p->stores < STORES_BEFORE_DEMOTION;
        p->exec_grant = p->write_grant = e->grants;
        return UC_PROT_ALL;
    }
    if (p->state == PAGE_CODE)
        make_data(e, p, page);
    p->write_grant = e->grants;
    return UC_PROT_READ | UC_PROT_WRITE;
}

static uint32_t grant_load(struct engine *e, struct page *p, uint64_t page, const struct cached *t, bool user)
{
    bool may_write = t->rights & TLB_DIRTY && !(t->rights & TLB_ROM) && permitted(e, t->rights, ACCESS_WRITE, user);
    if (p->state == PAGE_CODE || !may_write || !(e->dirty[page / 64] >> page % 64 & 1))
        return UC_PROT_READ;
    if (unlikely(e->peer))
        peers_lose_code(e, page);
    p->write_grant = e->grants;
    return UC_PROT_READ | UC_PROT_WRITE;
}

static uint32_t grant(struct engine *e, const struct cached *t, uint64_t page, enum access access, bool user)
{
    struct page *p = &e->pages[page];
    if (access == ACCESS_FETCH) {  /* code need not be data: execute-only pages, SMAP, protection keys; only LARGE takes them together */
        bool readable = e->mmu.fidelity == TLB_LARGE && permitted(e, t->rights, ACCESS_READ, user);
        return grant_fetch(e, p) & (readable ? UC_PROT_ALL : ~(uint32_t)UC_PROT_READ);
    }
    if (access == ACCESS_WRITE)
        return grant_store(e, p, page, permitted(e, t->rights, ACCESS_FETCH, user));
    return grant_load(e, p, page, t, user);
}

void linear_rip(struct engine *e, uint64_t *linear)
{
    uint64_t at = e->core->rip + (in_64bit_code(e) ? 0 : e->core->segs[CS].base);
    *linear = in_64bit_code(e) ? at : at & 0xffffffff;
}

/* A translation reads ahead, into a page that the guest may never fetch from: it may use what the model holds, but
 * must not fault or set an accessed bit for it. */
static bool is_lookahead(struct engine *e, uint64_t page)
{
    uint64_t rip;
    linear_rip(e, &rip);
    return rip >> 12 != page >> 12 && !(e->core->eflags & 0x100) && !tlb_peek(e, page);
}

static bool refuse(struct engine *e, uint64_t page, enum access access, bool lookahead)
{
    e->refusal = (struct refusal){.valid = true, .lookahead = lookahead, .access = access, .page = page};
    return false;
}

static bool refuse_faulting(struct engine *e, uint64_t page, enum access access)
{
    refuse(e, page, access, false);
    e->refusal.page_fault = e->pending.kind == PENDING_EXCEPTION && e->pending.vector == VECTOR_PF;
    e->refused = e->pending;
    return !(e->refusal.walked = true);
}

/* Unicorn asks for a page. false: `refusal` says why. */
bool fill_is_granted(struct engine *e, uint64_t page, enum access access, struct fill *out)
{
    bool user = e->cpl == 3;
    e->counters.tlb_fills++;
    let_it_grow(e);
    if (access == ACCESS_FETCH && is_lookahead(e, page))
        return refuse(e, page, access, true);
    if (!is_canonical(e, page))
        return refuse(e, page, access, false);
    if (unlikely(e->debug.data) && access != ACCESS_FETCH && !e->debug.let_in && debug_watches(e, page))
        return refuse(e, page, access, false);
    struct cached *t = tlb_lookup(e, page, access, user);
    if (!t) {
        return refuse_faulting(e, page, access);
    }
    if (unlikely(is_overdrawn(e))) {   /* the walk took so long that the deadline lies in this block now: step to it */
        refuse(e, page, access, false);
        return !(e->refusal.overdrawn = true);
    }
    uint64_t hpa = cached_hpa(t, page);
    if (unlikely(hpa >> 12 == e->apic_page >> 12))
        return refuse(e, page, access, false);
    if (unlikely(e->watching) && access != ACCESS_FETCH && !e->debug.let_in && stops_watch_page(e, page, hpa))
        return refuse(e, page, access, false);
    if (access == ACCESS_WRITE && stores_under_itself(e, t, hpa >> 12, user)) {
        refuse(e, page, access, false);
        e->refusal.own_code = true;
        return false;
    }
    *out = (struct fill){.hpa = hpa, .global = t->rights & TLB_GLOBAL, .perms = grant(e, t, hpa >> 12, access, user)};
    return true;
}
