/* Where a debugger wants the guest to stop: nothing of it is architectural, and the guest cannot tell.
 *
 * Time is counted in *steps*: instructions retired and events delivered. A target stops the guest when so many have been
 * made. Code is watched without a byte of it being changed: a block that holds a breakpoint takes the hook's slow way and is
 * run in single steps up to it. Data is watched as by debug registers (debugreg.c), by linear or by physical address and
 * without a limit: a watched page never stands in Unicorn's TLB, the decoded instruction says what it touches, and the stop
 * comes behind it; what the processor itself, a device or software writes is noted by physical address. Exits are
 * looked at by small programs (stopexit.c).
 *
 * In STOPS_RECORD nothing stops: the newest hits are kept, which is how a run finds out what came last before now.
 */
#include "stops.h"

#include <stdlib.h>

enum { ROOM = 16 };
bool stops_create(struct engine *e)
{
    e->stops = calloc(1, sizeof *e->stops);
    if (e->stops)
        e->stops->target = e->stops->passed = ~0ull;
    return e->stops != NULL;
}

static void forget_all(struct stops *s)
{
    for (uint32_t n = 0; n < s->condition_count; n++)
        free(s->conditions[n].match), free(s->conditions[n].when);
    free(s->code), free(s->data), free(s->conditions);
    s->code = s->data = NULL;
    s->conditions = NULL;
    s->code_count = s->data_count = s->condition_count = 0;
}

void stops_destroy(struct engine *e)
{
    if (e->stops)
        forget_all(e->stops);
    free(e->stops);
}

/* ---- what is asked for ---- */

uint64_t engine_steps(const struct engine *e) { return e->retired + e->counters.delivered; }
uint64_t engine_stop_hits(const struct engine *e) { return e->stops->total; }

const struct stop_hit *engine_stop_hit(const struct engine *e, uint64_t number)
{
    const struct stops *s = e->stops;
    return number && number <= s->total && s->total - number < HITS ? &s->hits[number % HITS] : NULL;
}


void engine_stop_target(struct engine *e, uint64_t steps, uint64_t others)
{
    e->stops->target = steps;
    e->stops->others = others;
}

void engine_stop_pass(struct engine *e, uint64_t steps) { e->stops->passed = steps; }

void engine_stops_clear(struct engine *e) { forget_all(e->stops); }

void *stops_grown(void *list, uint32_t count, size_t size) { return count % ROOM ? list : realloc(list, (count + ROOM) * size); }

static int add_place(struct place **list, uint32_t *count, struct place place)
{
    struct place *grew = stops_grown(*list, *count, sizeof place);
    if (!grew)
        return -1;
    *list = grew;
    grew[(*count)++] = place;
    return 0;
}

int engine_stop_at_code(struct engine *e, uint64_t id, int physical, uint64_t address)
{
    return add_place(&e->stops->code, &e->stops->code_count, (struct place){.id = id, .address = address, .size = 1, .physical = physical});
}

int engine_stop_at_data(struct engine *e, uint64_t id, int physical, uint64_t address, uint64_t size, uint32_t kinds)
{
    struct place place = {.id = id, .address = address, .size = size, .kinds = kinds, .physical = physical};
    return add_place(&e->stops->data, &e->stops->data_count, place);
}

/* The lists are complete, or nothing is asked for. `renew`: they have changed since. */
void engine_stops_arm(struct engine *e, uint32_t mode, int renew)
{
    struct stops *s = e->stops;
    if (renew && (s->code_count || s->data_count))
        forget_translations(e);
    if ((mode && s->data_count && !e->watching) || renew)
        micro_flush(e);
    s->mode = mode;
    s->noted = (struct stop_hit){0};
    s->total = 0;
    s->let_in_count = 0;
    e->watching = mode && s->data_count;
    e->towards_stop = false;
}

/* ---- hits ---- */

static void record_at(struct engine *e, struct stop_hit hit, uint64_t steps, uint64_t cycles)
{
    struct stops *s = e->stops;
    hit.steps = steps;
    hit.exits = e->counters.exits;
    hit.cycles = cycles;
    s->hits[++s->total % HITS] = hit;
}

void stops_record(struct engine *e, struct stop_hit hit) { record_at(e, hit, steps_now(e), cycles_now(e) + e->stops->others); }

/* ---- the target ---- */

/* How many instructions may have retired when the target is reached, as far as is known now. */
uint64_t stops_limit(const struct engine *e)
{
    uint64_t target = e->stops->target, delivered = e->counters.delivered + e->stops->others;
    return target == ~0ull ? target : target > delivered ? target - delivered : 0;
}

uint64_t target_left(const struct engine *e)
{
    uint64_t limit = stops_limit(e);
    return limit > e->retired ? limit - e->retired : 0;
}

/* ---- code ---- */

/* The linear address at which a place lies within [pc, pc + size), or ~0. */
static uint64_t found_within(struct engine *e, const struct place *p, uint64_t pc, uint64_t size)
{
    uint64_t hpa, at = pc;
    if (!p->physical)
        return p->address - pc < size ? p->address : ~0ull;
    while (at < pc + size && code_page(e, at, &hpa)) {
        uint64_t part = 4096 - (at & 0xfff), left = pc + size - at;
        if (p->address - hpa < (part < left ? part : left))
            return at + (p->address - hpa);
        at += part;
    }
    return ~0ull;
}

bool stops_within(struct engine *e, uint64_t pc, uint64_t size)
{
    for (uint32_t n = 0; n < e->stops->code_count; n++)
        if (found_within(e, &e->stops->code[n], pc, size) != ~0ull)
            return true;
    return false;
}

/* At the head of a block that holds a breakpoint, or is stepped through on the way to one. */
void stops_before_block(struct engine *e, uint64_t pc, uint64_t size)
{
    struct stops *s = e->stops;
    const struct place *here = NULL;
    if (!(e->core->eflags & 0x100)) {
        s->from = pc;
        s->to = pc + size;
    }
    e->towards_stop = false;
    for (uint32_t n = 0; s->mode && n < s->code_count; n++) {
        uint64_t at = found_within(e, &s->code[n], pc, s->to > pc && pc >= s->from ? s->to - pc : 1);
        here = at == pc && !here ? &s->code[n] : here;
        e->towards_stop |= at != ~0ull && at != pc;
    }
    if (!here || steps_now(e) == s->passed || is_due(e) || !target_left(e))
        return;
    s->passed = steps_now(e);
    stops_record(e, (struct stop_hit){.id = here->id, .kind = HIT_CODE, .address = pc});
    if (s->mode == STOPS_STOP)
        stop_at(e, STOP_BREAKPOINT);
}

/* ---- data ---- */

static bool overlaps(const struct place *p, uint64_t at, uint64_t size) { return at < p->address + p->size && p->address < at + size; }

bool stops_watch_page(const struct engine *e, uint64_t linear, uint64_t hpa)
{
    for (uint32_t n = 0; n < e->stops->data_count; n++) {
        const struct place *p = &e->stops->data[n];
        if (overlaps(p, (p->physical ? hpa : linear) & ~0xfffull, 4096))
            return true;
    }
    return false;
}

static void note(struct engine *e, const struct place *p, uint64_t at, uint64_t size, bool writes)
{
    struct stops *s = e->stops;
    if (!overlaps(p, at, size) || !(p->kinds & (writes ? WATCH_WRITES : WATCH_READS)))
        return;
    if (s->noted.kind && s->noted.writes >= writes)
        return;                    /* the first, but a write rather than a read */
    uint64_t first = at > p->address ? at : p->address;
    s->noted = (struct stop_hit){.id = p->id, .kind = HIT_DATA, .address = first, .size = size, .writes = writes};
}

void stops_note(struct engine *e, uint64_t linear, uint64_t size, bool writes)
{
    for (uint32_t n = 0; n < e->stops->data_count; n++) {
        const struct place *p = &e->stops->data[n];
        uint64_t hpa, part = 4096 - (linear & 0xfff);
        if (!p->physical)
            note(e, p, linear, size, writes);
        else if (code_page(e, linear, &hpa))
            note(e, p, hpa, size < part ? size : part, writes);
        if (p->physical && size > part && code_page(e, linear + part, &hpa))
            note(e, p, hpa, size - part, writes);
    }
}

void stops_note_physical(struct engine *e, uint64_t hpa, uint64_t size)
{
    for (uint32_t n = 0; n < e->stops->data_count; n++)
        if (e->stops->data[n].physical)
            note(e, &e->stops->data[n], hpa, size, true);
}

void stops_let_in(struct engine *e, uint64_t linear, uint64_t size)
{
    struct stops *s = e->stops;
    for (uint64_t page = linear >> 12; page <= (linear + size - 1) >> 12 && s->let_in_count < LET_IN_MAX; page++)
        s->let_in[s->let_in_count++] = page << 12;
}

void stops_let_out(struct engine *e)
{
    struct stops *s = e->stops;
    while (s->let_in_count)
        micro_flush_page(e, s->let_in[--s->let_in_count]);
}

void stops_forget_noted(struct engine *e) { e->stops->noted.kind = 0; }

/* Between two instructions: was there an access? */
void stops_settle_noted(struct engine *e)
{
    struct stops *s = e->stops;
    if (!s->noted.kind || e->debug.let_in || e->repeats)
        return;
    if (s->mode == STOPS_STOP && e->exit_ready)
        return;                    /* software asks behind the handler: engine_stop_settle() */
    stops_record(e, s->noted);
    s->noted.kind = 0;
    if (s->mode == STOPS_STOP)
        fill_exit(e, STOP_WATCHPOINT, 0, 0);
}

/* An exit has been handled: did it, or its handler, touch what is watched? */
int engine_stop_settle(struct engine *e, uint64_t steps, uint64_t cycles)
{
    struct stops *s = e->stops;
    if (!s->noted.kind)
        return 0;
    record_at(e, s->noted, steps, cycles);
    s->noted.kind = 0;
    return 1;
}
