/* REP STOS and REP MOVS: TCG makes a block of each iteration. Most of those within a page are done here at once.
 *
 * Only between two iterations, only on pages whose translations the model holds with all rights (the iteration before has
 * just used them), and never the last one: faults, traps, the end and what follows stay TCG's. A REP is one instruction
 * however its iterations are made, and their cost is reckoned from RCX: nothing that can be seen depends on this.
 */
#include "mmu.h"
#include "state.h"

enum { WORTH_IT = 8, STOS = 0xaa, MOVS = 0xa4 };

/* What `code` of `size` bytes is: BLOCK_STOS or BLOCK_MOVS with its element's size, or 0. In 64-bit code, without prefixes but
 * F3, 66 and REX. */
uint16_t bulk_kind(const uint8_t *code, size_t size)
{
    unsigned shift = 2;
    bool rep = false;
    for (size_t n = 0; n + 1 < size; n++) {
        if (code[n] == 0xf3)
            rep = true;
        else if (code[n] == 0x66)
            shift = 1;
        else if ((code[n] & 0xf0) == 0x40)
            shift = n + 2 == size && code[n] & 8 ? 3 : shift;
        else
            return 0;
    }
    uint8_t opcode = code[size - 1];
    if (!rep || ((opcode & 0xfe) != STOS && (opcode & 0xfe) != MOVS))
        return 0;
    return (uint16_t)(((opcode & 0xfe) == STOS ? BLOCK_STOS : BLOCK_MOVS) | (opcode & 1 ? shift : 0) << BULK_SHIFT);
}

/* Host memory behind `linear`, if the guest can use it without anything else happening. */
static bool at_hand(struct engine *e, uint64_t linear, enum access access, uint64_t *hpa)
{
    const struct cached *t = is_canonical(e, linear) ? tlb_peek(e, linear) : NULL;
    if (!t || !tlb_allows(e, t, access, e->cpl == 3))
        return false;
    *hpa = cached_hpa(t, linear) | (linear & 0xfff);
    return *hpa >> 12 != e->apic_page >> 12 && (access != ACCESS_WRITE || e->pages[*hpa >> 12].state == PAGE_DATA);
}

static uint64_t room(uint64_t linear, unsigned shift) { return (4096 - (linear & 0xfff)) >> shift; }

/* The element first, then what is filled already, twice as much each time. */
static void fill(uint8_t *to, uint64_t value, uint64_t bytes, unsigned element)
{
    memcpy(to, &value, element);
    for (uint64_t done = element; done < bytes; done *= 2)
        memcpy(to + done, to, done < bytes - done ? done : bytes - done);
}

/* How many iterations may be made before the deadline. */
static uint64_t in_time(const struct engine *e)
{
    uint64_t work = e->work + iterations_work(e);
    return !e->costs || !e->rep.rate ? ~0ull : work < e->until ? (e->until - work - 1) / e->rep.rate : 0;
}

/* Between two iterations of the REP that is block `b`. */
void rep_in_bulk(struct engine *e, const struct block *b)
{
    uint64_t *regs = e->core->regs, to, from = 0, count = regs[RCX], most = in_time(e);
    unsigned shift = b->flags >> BULK_SHIFT & 3;
    bool moves = b->flags & BLOCK_MOVS;
    if (count <= WORTH_IT || e->core->df < 0 || e->detail.on || e->debug.data || e->watching || !at_hand(e, regs[RDI], ACCESS_WRITE, &to) ||
        (moves && !at_hand(e, regs[RSI], ACCESS_READ, &from)))
        return;
    const uint64_t limits[] = {most, room(regs[RDI], shift), moves ? room(regs[RSI], shift) : ~0ull,
                               moves && to > from ? (to - from) >> shift : ~0ull};
    count--;
    for (size_t n = 0; n < sizeof limits / sizeof *limits; n++)
        count = limits[n] < count ? limits[n] : count;
    if (count < WORTH_IT)
        return;
    if (moves)
        memmove(e->ram + to, e->ram + from, count << shift);
    else
        fill(e->ram + to, regs[RAX], count << shift, 1u << shift);
    host_wrote(e, to, count << shift);
    regs[RCX] -= count;
    regs[RDI] += count << shift;
    regs[RSI] += moves ? count << shift : 0;
}
