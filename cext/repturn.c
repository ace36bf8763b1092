/* The turns of blocks with a REP that need little. What is copied is mostly short: half of a memcpy()'s time is here. */
#include "state.h"

/* Another iteration, with nothing to look at between two. */
bool goes_on_in_rep(struct engine *e, struct block *b, uint64_t pc)
{
    if (e->rep_pc != pc || b->real_pc != pc || b->pc != BLOCK_SLOW || e->interrupted || e->stepping || rep_is_due(e))
        return false;
    if (e->costs)
        count_rep(e, b);
    if (b->flags & (BLOCK_STOS | BLOCK_MOVS))
        rep_in_bulk(e, b);
    e->block = b;
    return true;
}

/* `b`, known and with a REP at its end, where nothing else is to be looked at before a block. */
bool begins_rep(struct engine *e, struct block *b, uint64_t pc, uint32_t size)
{
    uint32_t odd = BLOCK_STOP | BLOCK_SECOND_TRY | BLOCK_SENSITIVE | BLOCK_OPEN, plain = BLOCK_REP | BLOCK_SCANNED;
    bool known = (b->flags & (plain | odd)) == plain && b->real_pc == pc && b->size == size && (!e->costs || b->flags & BLOCK_PRICED);
    if (!e->limit || !known || (e->block && e->block->flags & (BLOCK_OPEN | BLOCK_SENSITIVE)))
        return false;
    uint32_t last = b->total - 1u;
    if ((e->costs ? e->work + b->work + e->units[b->lengths + last] : e->retired + b->total) > e->limit)
        return false;
    end_block(e);
    book_block(e, b);
    e->rep_pc = pc + size - length_at(e, b, last);
    if (e->costs)
        begin_rep(e, b, false);
    e->limit = 0;
    return true;
}

/* The block behind a REP, which has been settled: mostly there is nothing else to look at. */
bool runs_behind_rep(struct engine *e, struct block *b)
{
    update_limit(e);
    if ((e->costs ? e->work + b->work : e->retired + b->counted) > e->limit)
        return false;
    book_block(e, b);
    return true;
}
