/* Tour 2.11: what events cost: exits with their handlers, entries, deliveries, page walks. */
#include "price.h"

#include <stdlib.h>

#include "state.h"

enum { LINE_SHIFT = 6 };

/* ---- walks: each reference at the price of the cache level that holds the line ---- */

static bool level_finds(const struct line_level *l, uint64_t line)
{
    uint64_t *set = l->lines + line % l->sets * l->ways;
    uint32_t way = 0;
    if (likely(*set == line + 1))
        return true;
    while (way + 1 < l->ways && set[way] != line + 1)
        way++;
    bool found = set[way] == line + 1;
    memmove(set + 1, set, way * sizeof *set);      /* it is the newest now, and if it was not there the oldest is gone */
    set[0] = line + 1;
    return found;
}

uint32_t line_level_of(struct price *p, uint64_t line)
{
    uint32_t level = 0;
    while (level < LINE_LEVELS && p->levels[level].lines && !level_finds(&p->levels[level], line))
        level++;
    return level;
}

void begin_walk(struct engine *e) { e->price.spent = 0; }

void price_reference(struct engine *e, uint64_t hpa)
{
    if (e->price.on && !e->mmu.aside)
        e->price.spent += e->price.costs.latency[line_level_of(&e->price, hpa >> LINE_SHIFT)];
}

void charge_distance(struct engine *e, uint64_t hpa)
{
    if (!e->price.on || (hpa >= e->price.near_from && hpa < e->price.near_to))
        return;
    ledger_book(e, LEDGER_GUEST, e->price.far);
    update_limit(e);
}

void engine_set_near(struct engine *e, uint64_t from, uint64_t to, uint32_t far)
{
    e->price.near_from = from;
    e->price.near_to = to;
    e->price.far = far;
}

void price_hit(struct engine *e, uint64_t cycles) { e->price.spent += cycles; }

void charge_walk(struct engine *e)
{
    if (!e->price.on || e->price.paid)
        return;
    ledger_book(e, LEDGER_WALK, e->price.spent);
    update_limit(e);
}

void charge_level2(struct engine *e)
{
    if (!e->price.on)
        return;
    ledger_book(e, LEDGER_WALK, e->price.costs.level2_hit);
    update_limit(e);
}

void forget_lines(struct engine *e)
{
    for (int k = 0; k < LINE_LEVELS; k++) {
        struct line_level *l = &e->price.levels[k];
        if (l->lines)
            memset(l->lines, 0, (size_t)l->sets * l->ways * sizeof *l->lines);
    }
}

/* ---- events ---- */

static bool comes_from_outside(const struct event *v) { return v->type == EVENT_EXTERNAL || v->type == EVENT_NMI; }

/* A guest's own fault is its own time; what interrupts it, or what software injects, is an injection. */
void charge_delivery(struct engine *e, const struct event *v)
{
    const struct event_costs *c = &e->price.costs;
    bool injected = e->price.injects || comes_from_outside(v);
    bool fault = v->type == EVENT_HARDWARE_EXCEPTION;
    ledger_book(e, injected ? LEDGER_INJECTION : LEDGER_GUEST, fault ? c->exception : c->interrupt);
}

void charge_instruction(struct engine *e, const struct insn *i)
{
    const struct event_costs *c = &e->price.costs;
    book_emulated(e);
    if (!e->price.on)
        return;
    if (i->id == X86_INS_SYSCALL)
        ledger_book(e, LEDGER_GUEST, c->syscall);
    else if (i->id == X86_INS_SYSRET || i->id == X86_INS_SYSRETQ)
        ledger_book(e, LEDGER_GUEST, c->sysret);
    else if (i->id == X86_INS_MOV && i->opcode[0] == 0x0f && i->opcode[1] == 0x22 && i->modrm_reg == 8)
        ledger_book(e, LEDGER_GUEST, c->write_cr8);
}

/* A guest that was running had to be made to exit first, by an interrupt to its processor. */
void charge_injection(struct engine *e)
{
    e->price.injects = true;
    if (e->price.on && e->vcpu->paused)
        ledger_book(e, LEDGER_INJECTION, e->price.costs.kick);
}

static bool is_in(const uint64_t ranges[][2], uint32_t count, uint64_t value)
{
    for (uint32_t k = 0; k < count; k++)
        if (value >= ranges[k][0] && value <= ranges[k][1])
            return true;
    return false;
}

/* Hypervisors keep the timers and interrupt controllers near; another device is a process in user space. */
static bool is_far_device(struct engine *e, uint32_t reason)
{
    const struct event_costs *c = &e->price.costs;
    if (reason == EXIT_IO_INSTRUCTION)
        return !is_in(c->near_port, c->near_ports, e->exit.qualification >> 16 & 0xffff);
    return reason == EXIT_EPT_VIOLATION && !is_in(c->near_memory, c->near_memories, e->exit.guest_physical);
}

void charge_exit(struct engine *e)
{
    const struct event_costs *c = &e->price.costs;
    if (!e->price.on || e->exit.reason >= REASONS)
        return;
    uint32_t reason = (uint32_t)exit_code(&e->exit);
    ledger_book_exit(e, LEDGER_EXIT, c->vm_exit, reason);
    ledger_book_exit(e, LEDGER_HYPERVISOR, c->handler[reason], reason);
    if (is_far_device(e, reason))
        ledger_book_exit(e, LEDGER_DEVICE, c->far_device, reason);
    e->vcpu->open_exit = reason + 1;
}

void charge_entry(struct engine *e)
{
    struct vcpu *v = e->vcpu;
    if (!e->price.on || v->paused)
        return;
    ledger_book_exit(e, LEDGER_ENTRY, e->price.costs.vm_entry, v->open_exit ? (uint32_t)v->open_exit - 1 : REASONS);
    v->open_exit = 0;
}

/* ---- the figures ---- */

static const struct event_costs none = {.exception = 1, .interrupt = 1};

void price_create(struct engine *e) { e->price.costs = none; }

void price_destroy(struct engine *e)
{
    for (int k = 0; k < LINE_LEVELS; k++)
        free(e->price.levels[k].lines);
}

static bool make_level(struct line_level *l, const struct cache_geometry *g)
{
    free(l->lines);
    *l = (struct line_level){.sets = g->sets, .ways = g->ways};
    size_t count = (size_t)g->sets * g->ways;
    l->lines = count ? calloc(count, sizeof *l->lines) : NULL;
    return l->lines || !count;
}

int engine_set_prices(struct engine *e, const struct event_costs *costs)
{
    bool made = true;
    e->price.on = costs != NULL;
    e->price.costs = costs ? *costs : none;
    for (int k = 0; k < LINE_LEVELS; k++)
        made = make_level(&e->price.levels[k], &e->price.costs.line[k]) && made;
    return made ? 0 : -1;
}
