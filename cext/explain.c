/* A walk told reference by reference: for `explain walk`, for the twin that judges it, and for the bench. */
#include "state.h"

/* The entry that the walk would begin at: the one below the lowest paging-structure cache that knows this address. */
static uint32_t resumes_below(struct engine *e, uint64_t linear)
{
    static const int shifts[] = {21, 22, 30, 39, 48};
    bool paged = e->core->cr[0] & CR0_PG, narrow = !(e->core->cr[4] & CR4_PAE);
    for (int k = 0; paged && k < 5; k++)
        if ((shifts[k] == 22) == narrow && structure_find(e, linear, shifts[k]))
            return (uint32_t)shifts[k];
    return 64;
}

/* What would have saved each reference, had the walk been a real one. */
static void attribute(struct engine *e, uint64_t linear, struct walk_reference *r, uint32_t count)
{
    uint32_t below = resumes_below(e, linear), begin = 0;
    bool whole = tlb_peek(e, linear) != NULL;
    for (uint32_t k = 0; k < count; k++)
        if (r[k].kind == WALK_GUEST && r[k].level >= below)
            begin = k + 1;
    while (begin && begin < count && r[begin].kind == WALK_EPT)     /* and the way to the next table */
        begin++;
    for (uint32_t k = 0; k < count; k++) {
        bool nested = r[k].kind == WALK_EPT && nested_find(e, r[k].gpa);
        r[k].cache = whole ? WALK_BY_TLB : k < begin ? WALK_BY_STRUCTURE_CACHE : nested ? WALK_BY_NESTED_TLB : WALK_BY_MEMORY;
    }
}

static void report(const struct engine *e, bool found, const struct walk *w, struct walk_outcome *o)
{
    const struct pending *p = &e->pending;
    *o = (struct walk_outcome){.count = e->mmu.log_count};
    if (found) {
        o->gpa = w->gpa;
        o->hpa = w->hpa;
        o->rights = w->rights;
        o->shift = (uint32_t)w->shift;
    } else if (p->kind == PENDING_EXCEPTION) {
        o->result = 1;
        o->vector = p->vector;
        o->error = p->error;
    } else {
        o->result = 2;
        o->reason = p->reason;
        o->qualification = p->qualification;
        o->gpa = p->guest_physical;
    }
}

void vcpu_explain_walk(struct engine *e, struct vcpu *v, uint64_t linear, int access, int user, int effects,
                       struct walk_reference *references, uint32_t room, struct walk_outcome *outcome)
{
    struct walk w = {0};
    *outcome = (struct walk_outcome){.result = 2, .reason = STOP_INTERNAL};
    struct glance before;
    if (!glance_at(e, v, &before)) {
        glance_away(e, v, &before);
        return;
    }
    linear = in_long_mode(e) ? linear : (uint32_t)linear;
    e->mmu.log = references;
    e->mmu.log_room = room;
    e->mmu.log_count = 0;
    bool found = is_canonical(e, linear) ? walk(e, linear, (enum access)access, user, effects ? WALK_SETS_BITS : WALK_LOOKS, &w)
                                         : raise_fault(e, 13, 0);
    e->mmu.log = NULL;
    report(e, found, &w, outcome);
    if (effects)
        return;
    attribute(e, linear, references, e->mmu.log_count < room ? e->mmu.log_count : room);
    glance_away(e, v, &before);
}

void vcpu_explain_gpa(struct engine *e, struct vcpu *v, uint64_t gpa, int access, struct walk_reference *references,
                      uint32_t room, struct walk_outcome *outcome)
{
    static const uint32_t needs[] = {EPT_READ, EPT_WRITE, EPT_EXECUTE};
    const struct ept_cause none = {0};
    struct ept_page page = {0};
    *outcome = (struct walk_outcome){.result = 2, .reason = STOP_INTERNAL};
    struct glance before;
    if (!glance_at(e, v, &before)) {
        glance_away(e, v, &before);
        return;
    }
    e->mmu.log = references;
    e->mmu.log_room = room;
    e->mmu.log_count = 0;
    bool found = ept_translate(e, gpa, needs[access], &none, true, &page);
    e->mmu.log = NULL;
    struct walk w = {.gpa = gpa, .hpa = page.hpa, .rights = page.rights, .shift = page.shift};
    report(e, found, &w, outcome);
    bool nested = nested_find(e, gpa) != NULL;
    for (uint32_t k = 0; k < e->mmu.log_count && k < room; k++)
        references[k].cache = nested ? WALK_BY_NESTED_TLB : WALK_BY_MEMORY;
    glance_away(e, v, &before);
}

uint64_t vcpu_repeat_walk(struct engine *e, struct vcpu *v, uint64_t linear, uint64_t rounds, int how)
{
    struct walk w = {0};
    uint64_t sum = 0, hpa;
    if (!borrow(e, v))
        return 0;
    for (uint64_t n = 0; n < rounds; n++) {
        if (how == 2)
            sum += tlb_translate(e, linear, ACCESS_READ, false, &hpa) ? hpa : 0;
        else
            sum += walk(e, linear, ACCESS_READ, false, how ? WALK_SETS_BITS : WALK_LOOKS, &w) ? w.hpa : 0;
    }
    return sum;
}
