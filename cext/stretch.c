/* Tour 2.13: cycles are a function of the instructions that retired, wherever translated blocks begin and end.
 *
 * What is priced together is a *stretch*: instructions in a row from where control came in (a transfer, a delivery, an
 * exit) to a transfer, the end of a page or STRETCH_MOST instructions. A translated block that begins a stretch knows its
 * price, and its hook adds it. Stops, single steps and refused fills cut blocks: then what was not done is taken back, `carry`
 * remembers how far the stretch has come, and the rest is booked by the same stretch, not as a new one. All that is
 * rare and goes the slow way; a block that ends within a stretch (OPEN) always does.
 *
 * A REP costs a start, booked when it completes, and for each iteration but the first a rate.
 */
#include "state.h"

static bool goes_on(const struct stretch *s) { return s->done || s->in_rep; }

void end_stretch(struct engine *e) { e->carry = (struct stretch){0}; }

void count_delivery(struct engine *e)
{
    e->counters.delivered++;
    end_stretch(e);
}

/* `s`, after the first `n` instructions of `b`. */
static struct stretch follow(const struct engine *e, struct stretch s, const struct block *b, uint32_t n)
{
    bool priced = s.done && s.left >= b->total;
    s.units_at = priced ? s.units_at + n : b->lengths + n;
    s.left = priced ? s.left - n : s.done ? 0 : b->total - n;
    s.at = b->real_pc;
    s.in_rep = false;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t length = e->lengths[b->lengths + i];
        if (!s.done)
            s.start = s.at;
        s.at += length & LENGTH_MASK;
        s.done++;
        if (length & LAST_OF_STRETCH || s.done == STRETCH_MOST)
            s.done = 0;
    }
    return s;
}

/* ---- prices ---- */

/* The next instruction of a stretch, or the first of one. */
static struct cost price_next(struct engine *e, struct cost_run *r, const uint8_t *code, unsigned length)
{
    if (!r->done || r->done == STRETCH_MOST)
        cost_begin(r, e->costs, r->bits, r->at);
    struct cost c = cost_add(r, code, length);
    if (c.last)
        r->done = 0;
    return c;
}

static void note_unknown(struct engine *e, const uint8_t *code, unsigned length, uint16_t form)
{
    struct unknown_cost *u = e->unknown.form;
    for (uint32_t n = 0; n < e->unknown.count; n++, u++)
        if (u->form == form) {
            u->blocks++;
            return;
        }
    if (e->unknown.count == UNKNOWN_COSTS || length > sizeof u->code)
        return;
    *u = (struct unknown_cost){.length = length, .bits = (uint32_t)code_bits(e), .blocks = 1, .form = form};
    memcpy(u->code, code, length);
    e->unknown.count++;
}

uint32_t engine_unknown_costs(const struct engine *e, struct unknown_cost *to)
{
    memcpy(to, e->unknown.form, e->unknown.count * sizeof *to);
    return e->unknown.count;
}

void price_block(struct engine *e, struct block *b)
{
    uint8_t code[4096 + 32];
    struct cost_run r;
    size_t size = peek_code(e, b->real_pc, code, b->size);
    uint64_t at = 0;
    cost_begin(&r, e->costs, code_bits(e), b->real_pc);
    b->flags |= BLOCK_PRICED;
    b->work = 0;
    for (uint32_t n = 0; n < b->total; n++) {
        unsigned length = length_at(e, b, n);
        struct cost c = at + length <= size ? price_next(e, &r, code + at, length) : (struct cost){.units = COST_UNIT, .last = true};
        if (unlikely(c.unknown))
            note_unknown(e, code + at, length, c.unknown);
        e->units[b->lengths + n] = c.units;
        e->lengths[b->lengths + n] |= c.last ? LAST_OF_STRETCH : 0;
        b->work += n < b->counted ? c.units : 0;
        b->rate = c.rate;
        b->address_size = c.address_size;
        at += length;
    }
    e->counters.priced++;
    if (r.done && r.done < STRETCH_MOST && !(b->flags & BLOCK_SENSITIVE)) {
        b->flags |= BLOCK_OPEN;
        b->pc = BLOCK_SLOW;
    }
}

/* Price the stretch again up to where it was left. */
static bool recall(struct engine *e, const struct stretch *s)
{
    uint8_t code[STRETCH_MOST * 15 + 16];
    struct cost_run *r = &e->pricing;
    if (r->table == e->costs && r->bits == code_bits(e) && r->start == s->start && r->done == s->done && r->at == s->at)
        return true;
    cost_begin(r, e->costs, code_bits(e), s->start);
    if (!s->done || s->at - s->start > STRETCH_MOST * 15)
        return !s->done;
    size_t left = peek_code(e, s->start, code, s->at - s->start);
    const uint8_t *at = code;
    uint64_t address = s->start;
    while (left && lib.cs_disasm_iter(capstone_for(e), &at, &left, &address, e->scan))
        cost_add(r, e->scan->bytes, e->scan->size);
    return r->done == s->done && r->at == s->at;
}

/* Room for the units of `b`, which goes on with a stretch. */
static uint32_t make_room(struct engine *e, const struct block *b)
{
    uint32_t at = e->length_count;
    if (at + b->total > LENGTH_BYTES)
        return b->lengths;         /* cannot be: see blocks_nearly_full() */
    memcpy(e->lengths + at, e->lengths + b->lengths, b->total);
    e->length_count += b->total;
    return at;
}

/* Units of each instruction of `b`, which goes on with the stretch `s`. The same code is cut at the same place again. */
static void price_carried(struct engine *e, struct block *b, const struct stretch *s)
{
    uint8_t code[4096 + 32];
    size_t size = peek_code(e, b->real_pc, code, b->size), at = 0;
    b->carried_at = b->carried_done ? b->carried_at : make_room(e, b);
    b->carried_done = (uint8_t)s->done;
    b->carried_from = (uint32_t)s->start;
    b->carried_work = 0;
    if (!recall(e, s))
        cost_begin(&e->pricing, e->costs, code_bits(e), b->real_pc);
    for (uint32_t n = 0; n < b->total; n++) {
        unsigned length = length_at(e, b, n);
        struct cost c = at + length <= size ? price_next(e, &e->pricing, code + at, length) : (struct cost){.units = COST_UNIT};
        e->units[b->carried_at + n] = c.units;
        b->carried_work += c.units;
        at += length;
    }
}

/* A block that was cut: what is left of it may be priced already. */
static bool is_priced(const struct engine *e, const struct block *b, const struct stretch *s)
{
    return s->left >= b->total && !memcmp(e->lengths + s->units_at, e->lengths + b->lengths, b->total);
}

static uint64_t sum_of_rest(const struct engine *e, const struct block *b, const struct stretch *s)
{
    uint64_t sum = 0;
    for (uint32_t n = 0; n < b->total; n++)
        sum += e->units[s->units_at + n];
    return sum;
}

static uint64_t price_of_carried(struct engine *e, struct block *b)
{
    struct stretch *s = &e->carry;
    if (is_priced(e, b, s))
        return sum_of_rest(e, b, s);
    if (b->carried_done != s->done || b->carried_from != (uint32_t)s->start)
        price_carried(e, b, s);
    s->units_at = b->carried_at;
    s->left = b->total;
    return b->carried_work;
}

uint64_t price_of(struct engine *e, struct block *b)
{
    bool carried = goes_on(&e->carry) && e->carry.at == b->real_pc;
    if (!carried)
        end_stretch(e);
    else if (e->carry.done)
        return price_of_carried(e, b);
    return b->work + (b->flags & BLOCK_REP ? e->units[b->lengths + b->total - 1] : 0);
}

static uint32_t unit_of(const struct engine *e, const struct block *b, uint32_t n)
{
    return e->units[e->base.done ? e->base.units_at + n : b->lengths + n];
}

/* ---- booking ---- */

void book_block(struct engine *e, struct block *b)
{
    e->block = b;
    e->retired += b->counted;
    if (!e->costs)
        return;
    e->base = e->carry;
    end_stretch(e);
    if (!e->base.done)
        e->work += b->work;
    else
        for (uint32_t n = 0; n < b->counted; n++)
            e->work += unit_of(e, b, n);
}

/* Of the running block `b` only `done` instructions were carried out. */
void unbook(struct engine *e, const struct block *b, uint32_t done)
{
    if (!e->costs)
        return;
    for (uint32_t n = done; n < b->counted; n++)
        e->work -= unit_of(e, b, n);
    e->next_units = done < b->total ? unit_of(e, b, done) : 0;
    e->carry = follow(e, e->base, b, done);
    e->base = (struct stretch){0};
    e->carry.in_rep = e->rep.begun;
    e->rep.begun = false;
}

void end_block(struct engine *e)
{
    struct block *b = e->block;
    bool waits = e->rep.begun;
    e->block = NULL;
    e->rep.begun = false;
    if (!e->costs || !b)
        return;
    e->carry = follow(e, e->base, b, b->total - waits);
    e->left_base = e->base;
    e->base = (struct stretch){0};
    e->carry.in_rep = waits;
    e->next_units = 0;
}

/* An instruction that the engine carried out itself ends its stretch. */
void book_emulated(struct engine *e)
{
    e->retired++;
    if (!e->costs)
        return;
    e->work += e->next_units ? e->next_units : COST_UNIT;
    e->next_units = 0;
    end_stretch(e);
}

/* The block's last instruction has not retired after all. */
void undo_last(struct engine *e, const struct block *b)
{
    e->retired--;
    if (!e->costs)
        return;
    e->base = e->left_base;
    e->work -= unit_of(e, b, b->total - 1);
    e->base = (struct stretch){0};
}

bool tracks_stretch(const struct engine *e)
{
    return e->costs && (e->block ? goes_on(&e->base) || e->block->flags & BLOCK_OPEN : goes_on(&e->carry));
}

/* A stop leaves the stretch to be gone on with; to the architecture the guest has run on. */
void take_stretch(struct engine *e, const struct vcpu *v)
{
    end_stretch(e);
    e->base = e->carry;
    if (v->paused)
        e->carry = (struct stretch){.start = v->stretch_start, .at = v->stretch_at, .done = (uint32_t)v->stretch_done, .in_rep = v->stretch_in_rep};
}

void leave_stretch(const struct engine *e, struct vcpu *v)
{
    const struct stretch s = v->paused ? e->carry : (struct stretch){0};
    v->stretch_start = s.start;
    v->stretch_at = s.at;
    v->stretch_done = s.done;
    v->stretch_in_rep = s.in_rep;
}

void book_completed(struct engine *e, struct vcpu *v)
{
    e->retired += v->retire;
    e->work += v->retire << COST_SHIFT;
    v->retire = 0;
}

/* ---- REP ---- */

static uint64_t rep_count(const struct engine *e) { return e->core->regs[RCX] & e->rep.mask; }

/* `b`, whose end is the REP at rep_pc, is about to run. The first iteration is free: its count is not known where other
 * instructions come before it in its block. */
void begin_rep(struct engine *e, const struct block *b, bool in_rep)
{
    uint64_t mask = b->address_size == 8 ? ~0ull : b->address_size == 4 ? 0xffffffff : 0xffff;
    e->rep = (struct rep){.mask = mask, .units = unit_of(e, b, b->total - 1u), .rate = b->rate};
    e->rep.counts = b->total == 1;
    e->rep.count = rep_count(e);
    if (e->rep.counts && !in_rep && e->rep.count)
        e->rep.count--;
}

/* Another iteration follows, in a block of its own. */
void count_rep(struct engine *e, struct block *b)
{
    if (e->block && e->block != b)
        e->base = follow(e, e->base, e->block, e->block->total - 1u);
    if (!e->rep.counts)
        e->rep.count = rep_count(e);
    e->rep.counts = true;
}

static uint64_t iterations_work(const struct engine *e)
{
    uint64_t now = rep_count(e);
    return e->rep.counts && now < e->rep.count ? (e->rep.count - now) * e->rep.rate : 0;
}

/* It is over, or left within; `iterated`: at least once, in the block that ended. */
void end_rep(struct engine *e, bool completed, bool iterated)
{
    e->work += iterations_work(e) + (completed ? e->rep.units : 0);
    e->rep.begun = !completed && (iterated || (e->rep.counts && rep_count(e) <= e->rep.count));
    if (e->rep.begun)
        e->rep.count = rep_count(e);
}

/* Between two iterations: has the deadline come? */
bool rep_is_due(const struct engine *e) { return e->costs && e->work + iterations_work(e) >= e->until; }

/* A walk has moved the clock within the running block: does the deadline lie in it now? Then it is stepped towards. An
 * instruction alone is booked already; it may reach beyond the deadline if it began before, with its walks. */
bool is_overdrawn(const struct engine *e)
{
    const struct block *b = e->block;
    if (!e->costs)
        return e->retired > e->until;
    uint64_t repeated = e->rep_pc != NO_REP ? iterations_work(e) : 0, alone = b && b->total == 1 && b->counted ? unit_of(e, b, 0) : 0;
    return b && e->work + repeated - alone >= e->until;
}

/* ---- blocks that are left ---- */

/* The REP under way is over when RIP stands elsewhere; before it, in its own block, it has not begun. `ended`: so has the block. */
void settle_rep(struct engine *e, const struct block *b, uint64_t pc, bool ended)
{
    bool ahead = b && pc >= b->real_pc && pc < e->rep_pc;
    bool completed = e->rep_pc != NO_REP && e->rep_pc != pc && !ahead;
    e->retired += completed;
    if (e->costs && e->rep_pc != NO_REP && !ahead)
        end_rep(e, completed, ended);
    e->rep_pc = NO_REP;
}

static bool contains(const struct block *b, uint64_t pc) { return pc - b->real_pc < b->size; }

/* Un-book what `b`, left at `pc` without having run to its end, has not done. */
void unretire(struct engine *e, const struct block *b, uint64_t pc)
{
    uint32_t done = 0;
    for (uint64_t at = b->real_pc; done < b->counted && at < pc; done++)
        at += length_at(e, b, done);
    e->retired -= b->counted - done;
    unbook(e, b, done);
}

/* Traps come in the middle of a block that was booked in full: take back what has not retired. RIP is exact. */
void settle_block(struct engine *e)
{
    uint64_t pc;
    struct block *b = e->block;
    linear_rip(e, &pc);
    settle_rep(e, b, pc, false);
    if (b && contains(b, pc)) {
        e->block = NULL;
        unretire(e, b, pc);
    } else {
        end_block(e);
    }
}

/* It has run to its end. */
void finish_block(struct engine *e)
{
    uint64_t pc;
    linear_rip(e, &pc);
    settle_rep(e, NULL, pc, e->block != NULL);
    end_block(e);
}

/* ---- time ---- */

uint64_t meter_at(const struct engine *e, uint64_t cycles)
{
    uint64_t at = cycles > e->skew ? cycles - e->skew : 0, most = ~0ull >> meter_shift(e);
    return (at < most ? at : most) << meter_shift(e);
}
