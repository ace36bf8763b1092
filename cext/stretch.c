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

void end_stretch(struct engine *e)
{
    e->carry = (struct stretch){0};
    if (unlikely(e->detail.late))
        detail_book(e);
}

void count_delivery(struct engine *e)
{
    e->counters.delivered++;
    end_stretch(e);
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
    if (e->base.done)
        copy_trail(&e->base_trail, &e->trail);
    e->carry = (struct stretch){0};
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
    follow_code(e, &e->trail, &e->base_trail, e->carry.done, b, done);
    e->base = (struct stretch){0};
    e->carry.in_rep = e->rep.begun;
    e->rep.begun = false;
    if (unlikely(e->detail.late) && done)
        detail_close(e, b, done);
}

void end_block(struct engine *e)
{
    struct block *b = e->block;
    bool waits = e->rep.begun;
    e->block = NULL;
    e->rep.begun = false;
    if (!e->costs || !b)
        return;
    if (likely(!goes_on(&e->base) && !waits && !(b->flags & (BLOCK_OPEN | BLOCK_SENSITIVE)))) {
        e->carry = e->left_base = e->base = (struct stretch){0};       /* it was a stretch, or several */
        e->next_units = 0;
        return;
    }
    e->carry = follow(e, e->base, b, b->total - waits);
    follow_code(e, &e->trail, &e->base_trail, e->carry.done, b, b->total - waits);
    e->left_base = e->base;
    if (e->base.done)
        copy_trail(&e->left_trail, &e->base_trail);
    e->base = (struct stretch){0};
    e->carry.in_rep = waits;
    e->next_units = 0;
}

void left_behind(struct engine *e, const struct block *b, uint64_t pc)
{
    if (likely(!e->detail.on) || !b->engine)
        return;
    detail_branch(e, b, pc);
    if (!e->carry.in_rep)
        detail_close(e, b, b->total);
}

void restore_left(struct engine *e)
{
    e->base = e->left_base;
    if (e->base.done)
        copy_trail(&e->base_trail, &e->left_trail);
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
    e->carry = e->base = (struct stretch){0};
    if (!v->paused)
        return;
    e->detail.late = v->stretch_late;
    e->carry = (struct stretch){.start = v->stretch_start, .at = v->stretch_at, .done = (uint32_t)v->stretch_done, .in_rep = v->stretch_in_rep};
    e->trail.length = e->trail.count = 0;
    append_to_trail(&e->trail, v->stretch_code, v->stretch_lengths, e->carry.done);
}

void leave_stretch(struct engine *e, struct vcpu *v)
{
    const struct stretch s = v->paused ? e->carry : (struct stretch){0};
    v->stretch_start = s.start;
    v->stretch_at = s.at;
    v->stretch_done = s.done;
    v->stretch_in_rep = s.in_rep;
    v->stretch_late = e->detail.late;
    e->detail.late = 0;
    if (!s.done)
        return;
    memcpy(v->stretch_code, e->trail.code, e->trail.length);
    memcpy(v->stretch_lengths, e->trail.lengths, e->trail.count);
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
    if (e->block && e->block != b) {
        e->base = follow(e, e->base, e->block, e->block->total - 1u);
        follow_code(e, &e->base_trail, &e->base_trail, e->base.done, e->block, e->block->total - 1u);
    }
    if (!e->rep.counts)
        e->rep.count = rep_count(e);
    e->rep.counts = true;
}

uint64_t iterations_work(const struct engine *e)
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

/* The running block, if there is one, has run to its end. */
static void leave_end(struct engine *e, uint64_t pc)
{
    const struct block *b = e->block;
    end_block(e);
    if (b)
        left_behind(e, b, pc);
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
        leave_end(e, pc);
    }
}

/* It has run to its end. */
void finish_block(struct engine *e)
{
    uint64_t pc;
    linear_rip(e, &pc);
    settle_rep(e, NULL, pc, e->block != NULL);
    leave_end(e, pc);
}

/* ---- time ---- */

uint64_t meter_at(const struct engine *e, uint64_t cycles)
{
    uint64_t at = cycles > e->skew ? cycles - e->skew : 0, most = ~0ull >> meter_shift(e);
    return (at < most ? at : most) << meter_shift(e);
}
