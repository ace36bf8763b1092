/* Single steps: where a whole block would go too far, or would not pay.
 *
 * TF in the core is then ours, not the guest's (e->guest_tf), and each block is of one instruction. It is so before a
 * deadline that lies within a block, towards a breakpoint, near a page that must not be fetched yet, and where blocks are
 * translated again and again to run a few instructions each.
 */
#include "state.h"

enum { DEBT_MAX = 4096, SLOW_STRETCH = 512, SHORT_STRETCH = 8 };   /* instructions */

void stop_at(struct engine *e, uint32_t reason)
{
    fill_exit(e, reason, 0, 0);
    leave_block(e, TRAP_STOP);
}

static void start_stepping(struct engine *e)
{
    e->stepping = true;
    e->core->eflags |= 0x100;
    leave_block(e, TRAP_AGAIN);
}

static void stop_stepping(struct engine *e)
{
    forget_steps(e);
    if (e->guest_tf)
        return;
    e->core->eflags &= ~0x100ull;
    leave_block(e, TRAP_AGAIN);    /* this block was translated for single steps */
}

void forget_steps(struct engine *e) { e->stepping = e->step_fetch = e->step_deadline = false; }

/* Single steps until another page is reached. */
void step_through_page(struct engine *e)
{
    uint64_t linear;
    linear_rip(e, &linear);
    e->stepping = e->step_fetch = true;
    e->fetch_page = (linear >> 12) + 1;
    e->core->eflags |= 0x100;
}

/* A block may be of 128 instructions. A guest that leaves each after one (a store into it, a fault, a device's register) has
 * the next translated, at half a millisecond an instruction. What was translated and not run is a debt that running pays off. */
static void settle_debt(struct engine *e)
{
    uint64_t paid = e->retired > e->debt_at ? e->retired - e->debt_at : 0;
    e->debt = e->debt > paid ? e->debt - paid : 0;
    e->debt_at = e->retired;
    if (e->debt > DEBT_MAX)
        e->slow_until = e->retired + SLOW_STRETCH;
}

bool goes_slowly(const struct engine *e) { return e->mtf || e->slow_until - e->retired - 1 < SLOW_STRETCH; }

void step_for_a_while(struct engine *e)
{
    e->stepping = true;
    if (!goes_slowly(e))
        e->slow_until = e->retired + SHORT_STRETCH;
    e->core->eflags |= 0x100;
}

bool is_due(const struct engine *e) { return meter(e) >= e->until || !retired_left(e); }

/* By the clock the first instruction behind which it is due counts, though others in the block may take no time at all. */
static bool crosses_deadline(struct engine *e, struct block *b)
{
    bool by_clock = e->costs ? e->work + price_of(e, b) >= e->until : e->retired + b->total > e->until;
    return by_clock || b->total > retired_left(e) || b->total > target_left(e);
}

/* Land on `until` exactly: run whole blocks while they fit, then single steps. */
void keep_pace(struct engine *e, struct block *b)
{
    if (unlikely(b->flags & BLOCK_STOP || e->towards_stop))
        stops_before_block(e, b->real_pc, b->size);
    if (b->real_pc >> 12 != e->fetch_page - 1)
        e->step_fetch = false;
    settle_debt(e);
    if (is_due(e))
        stop_at(e, STOP_DEADLINE);
    if (!target_left(e))
        stop_at(e, STOP_TARGET);
    bool crosses = crosses_deadline(e, b), steps = e->core->eflags & 0x100, slow = goes_slowly(e);
    e->step_deadline |= crosses && !steps;
    if ((crosses || slow || e->debug.step || e->towards_stop) && !steps)
        start_stepping(e);
    if (e->stepping && !e->step_deadline && !e->step_fetch && !e->debug.step && !e->debug.let_in && !e->towards_stop && !slow)
        stop_stepping(e);
    e->counters.steps += e->stepping;
}
