/* Several engines over the same machine memory: the physical CPUs of one machine.
 *
 * One of them runs at a time. Each has its own TLB, and its own translations of code, which Unicorn keeps coherent with
 * stores of that engine alone. So a page is held as caches hold lines: whoever translates from it takes writable mappings
 * away from the others, and whoever may write to it takes translated code away from them. The log of dirty pages is one.
 */
#include "state.h"

#include <stdlib.h>

void engine_join(struct engine *e, struct engine *other)
{
    if (!e->dirty_is_lent)
        free(e->dirty);
    e->dirty = other->dirty;
    e->dirty_is_lent = true;
    e->peer = other->peer ? other->peer : other;
    other->peer = e;
}

void peers_leave(struct engine *e)
{
    struct engine *before = e;
    while (before->peer && before->peer != e)
        before = before->peer;
    if (before != e)
        before->peer = e->peer == before ? NULL : e->peer;
    e->peer = NULL;
}

static void lose_code(struct engine *q, uint64_t page)
{
    struct page *p = &q->pages[page];
    if (p->state != PAGE_CODE)
        return;
    lib.internal.tb_invalidate(q->uc, page << 12, (page + 1) << 12);
    if (p->exec_grant == q->grants)
        micro_flush(q);
    p->state = PAGE_DATA;
    p->stores = 0;
}

/* This engine is given a writable mapping, or software writes: no other one may run what it translated there. */
void peers_lose_code(struct engine *e, uint64_t page)
{
    for (struct engine *q = e->peer; q && q != e; q = q->peer)
        lose_code(q, page);
}

/* This engine is given an executable mapping: a store by any other one has to ask first. */
void peers_lose_writes(struct engine *e, uint64_t page)
{
    for (struct engine *q = e->peer; q && q != e; q = q->peer)
        if (q->pages[page].write_grant == q->grants)
            micro_flush(q);
}

void peers_flush(struct engine *e)
{
    for (struct engine *q = e->peer; q && q != e; q = q->peer)
        micro_flush(q);
}
