/* Tour 2.10: where each cycle went. The clock moves here and in the block hook, nowhere else. */
#include "ledger.h"

#include <assert.h>

#include "state.h"

void ledger_book(struct engine *e, enum ledger_heading heading, uint64_t cycles)
{
    e->ledger.cycles[heading] += cycles;
    if (heading != LEDGER_IDLE && e->vcpu)
        e->vcpu->ledger.cycles[heading] += cycles;
    e->skew += cycles;
    uint64_t less = cycles << meter_shift(e);
    e->until -= less < e->until ? less : e->until;
}

void ledger_book_exit(struct engine *e, enum ledger_heading heading, uint64_t cycles, uint32_t reason)
{
    ledger_book(e, heading, cycles);
    if (reason >= REASONS)
        return;
    e->ledger.exit_cycles[reason] += cycles;
    if (e->vcpu)
        e->vcpu->ledger.exit_cycles[reason] += cycles;
}

void ledger_settle(struct engine *e)
{
    uint64_t cycles = guest_cycles(e) - e->settled;
    e->settled = guest_cycles(e);
    e->ledger.work = e->work;
    e->ledger.cycles[LEDGER_GUEST] += cycles;
    if (e->vcpu)
        e->vcpu->ledger.cycles[LEDGER_GUEST] += cycles;
}

void ledger_check(struct engine *e)
{
    uint64_t sum = 0;
    for (int heading = 0; heading < LEDGER_HEADINGS; heading++)
        sum += e->ledger.cycles[heading];
    assert(sum == cycles_now(e));
}

/* ---- for software ---- */

struct ledger *engine_ledger(struct engine *e) { return &e->ledger; }

uint64_t engine_settle(struct engine *e, struct vcpu *v)
{
    struct vcpu *ran_last = e->vcpu;
    e->vcpu = v;
    book_completed(e, v);
    ledger_settle(e);
    e->vcpu = ran_last;
    return cycles_now(e);
}

uint64_t engine_book(struct engine *e, struct vcpu *v, uint32_t heading, uint64_t cycles, uint32_t reason)
{
    struct vcpu *ran_last = e->vcpu;
    e->vcpu = v;
    ledger_book_exit(e, (enum ledger_heading)heading, cycles, reason);
    e->vcpu = ran_last;
    return cycles_now(e);
}

void engine_set_clock(struct engine *e, uint64_t instructions, uint64_t cycles)
{
    e->retired = instructions;
    e->work = e->ledger.work;
    e->settled = guest_cycles(e);
    e->skew = cycles - e->settled;
}
