/* Conditions on exits: small programs (vmm/debug/condition.py) that read the exit record, the VMCS and registers. */
#include "stops.h"

#include <stdlib.h>

enum { DEPTH_MAX = 32 };
enum operation { OP_CONST, OP_LOAD, OP_EXTRACT, OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_WITHIN, OP_AND, OP_OR, OP_NOT, OPERATIONS };
enum operand { LOAD_RECORD = 0, LOAD_FIELD = 0x100, LOAD_GPR = 0x200, LOAD_COUNT = 0x300, LOAD_CPL, LOAD_STEPS, LOAD_CYCLES, LOAD_VCPU, LOAD_REASON };


/* Whether a program leaves one value and never has fewer than it takes. */
static bool is_sound(const uint64_t *words, uint32_t count)
{
    int depth = 0;
    for (uint32_t n = 0; n + 1 < count; n += 2) {
        uint64_t op = words[n];
        int takes = op <= OP_LOAD ? 0 : op == OP_EXTRACT || op == OP_NOT ? 1 : op == OP_WITHIN ? 3 : 2;
        if (op >= OPERATIONS || depth < takes || (op == OP_LOAD && words[n + 1] > LOAD_REASON))
            return false;
        depth += 1 - takes;
        if (depth > DEPTH_MAX)
            return false;
    }
    return count % 2 == 0 && (depth == 1 || !count);
}

static uint64_t *copied(const uint64_t *words, uint32_t count)
{
    uint64_t *copy = malloc((count + 1) * sizeof *words);
    if (copy)
        memcpy(copy, words, count * sizeof *words);
    return copy;
}

int engine_stop_at_exit(struct engine *e, uint64_t id, const uint64_t reasons[3], const uint64_t *match, uint32_t match_words,
                        const uint64_t *when, uint32_t when_words, uint64_t count)
{
    struct stops *s = e->stops;
    struct condition *grew = stops_grown(s->conditions, s->condition_count, sizeof *grew);
    if (!grew || !is_sound(match, match_words) || !is_sound(when, when_words))
        return -1;
    s->conditions = grew;
    struct condition *c = &grew[s->condition_count++];
    *c = (struct condition){.id = id, .count = count, .match_words = match_words, .when_words = when_words};
    memcpy(c->reasons, reasons, sizeof c->reasons);
    c->match = copied(match, match_words);
    c->when = copied(when, when_words);
    return c->match && c->when ? 0 : -1;
}

/* How often the condition `id` has been met, which its `n` is compared with. */
uint64_t engine_stop_count(const struct engine *e, uint64_t id)
{
    for (uint32_t n = 0; n < e->stops->condition_count; n++)
        if (e->stops->conditions[n].id == id)
            return e->stops->conditions[n].count;
    return 0;
}

/* ---- exits ---- */

static uint64_t load(struct engine *e, const struct condition *c, uint64_t operand)
{
    if (operand < LOAD_FIELD)
        return operand < sizeof e->exit / 8 ? ((const uint64_t *)&e->exit)[operand] : 0;
    if (operand < LOAD_GPR)
        return operand - LOAD_FIELD < VMCS_FIELD_COUNT ? *field(e, (int)(operand - LOAD_FIELD)) : 0;
    switch (operand) {
    case LOAD_COUNT: return c->count;
    case LOAD_CPL: return (uint64_t)e->cpl;
    case LOAD_STEPS: return steps_now(e);
    case LOAD_CYCLES: return cycles_now(e) + e->stops->others;
    case LOAD_REASON: return exit_code(&e->exit) & 0xffff;     /* by operation, where that is how exits go */
    case LOAD_VCPU: return *field(e, VMCS_VIRTUAL_PROCESSOR_ID) - 1;      /* as the hypervisor numbers them */
    default: return operand == LOAD_GPR + RSP ? *field(e, VMCS_GUEST_RSP) : e->vcpu->gpr[operand & 15];
    }
}

static uint64_t compared(uint64_t op, uint64_t a, uint64_t b)
{
    switch (op) {
    case OP_EQ: return a == b;
    case OP_NE: return a != b;
    case OP_LT: return a < b;
    case OP_LE: return a <= b;
    case OP_GT: return a > b;
    case OP_GE: return a >= b;
    case OP_AND: return a && b;
    default: return a || b;
    }
}

static bool holds(struct engine *e, const struct condition *c, const uint64_t *words, uint32_t count)
{
    uint64_t stack[DEPTH_MAX + 1], *top = stack - 1;
    for (uint32_t n = 0; n < count; n += 2) {
        uint64_t op = words[n], argument = words[n + 1];
        if (op == OP_CONST)
            *++top = argument;
        else if (op == OP_LOAD)
            *++top = load(e, c, argument);
        else if (op == OP_EXTRACT)     /* shift in the low byte, width in the next */
            *top = *top >> (argument & 63) & (argument >> 8 >= 64 ? ~0ull : (1ull << (argument >> 8)) - 1);
        else if (op == OP_NOT)
            *top = !*top;
        else if (op == OP_WITHIN)
            top -= 2, *top = top[0] >= top[1] && top[0] < top[2];
        else
            top--, *top = compared(op, top[0], top[1]);
    }
    return !count || *top;
}

/* The exit is published. True: somebody asked to stop here, before its handler. */
bool stops_at_exit(struct engine *e)
{
    struct stops *s = e->stops;
    uint32_t reason = exit_code(&e->exit) & 0xffff;
    const struct condition *first = NULL;
    if (!s->mode || reason >= REASONS)
        return false;
    for (uint32_t n = 0; n < s->condition_count; n++) {
        struct condition *c = &s->conditions[n];
        if (!(c->reasons[reason / 64] >> reason % 64 & 1) || !holds(e, c, c->match, c->match_words))
            continue;
        c->count++;
        if (!holds(e, c, c->when, c->when_words) || (first && s->mode == STOPS_STOP))
            continue;
        first = c;
        stops_record(e, (struct stop_hit){.id = c->id, .kind = HIT_EXIT, .address = e->exit.rip});
    }
    return first && s->mode == STOPS_STOP;
}
