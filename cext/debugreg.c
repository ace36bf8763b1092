/* Tour 2.6: breakpoints by address (manual: "Debug Registers"). While DR7 enables none, none of this runs.
 *
 * A code breakpoint makes the block hook take its slow way: a block that holds the address is run in single steps,
 * and at the address #DB comes before the instruction, unless RF lets it pass. A page that holds a data breakpoint
 * never stands in Unicorn's TLB, so that each access to it is refused; then the decoded instruction says which bytes
 * it touches, one single step runs it with the page let in, and #DB comes after it.
 *
 * Left out: data breakpoints on what software emulates (MMIO), and on descriptor tables, TSS and page tables.
 */
#include "state.h"

enum { ON_EXECUTION, ON_WRITE, ON_PORT, ON_ACCESS };   /* R/W in DR7 */
enum { FLAG_TF = 1 << 8, FLAG_RF = 1 << 16 };

struct touch { uint64_t linear; unsigned size; bool writes; };

static bool holds(const struct debug *d, int n, uint64_t linear, uint64_t size)
{
    return linear < d->address[n] + d->length[n] && d->address[n] < linear + size;
}

bool debug_watches(const struct engine *e, uint64_t page)
{
    for (int n = 0; n < 4; n++)
        if (e->debug.data >> n & 1 && e->debug.address[n] >> 12 == page >> 12)
            return true;
    return false;
}

static void drop_watched_pages(struct engine *e)
{
    for (int n = 0; n < 4; n++)
        if (e->debug.data >> n & 1)
            micro_flush_page(e, e->debug.address[n]);
}

static void take_breakpoint(struct debug *d, int n, uint64_t dr7, uint64_t address)
{
    static const uint8_t lengths[4] = {1, 2, 8, 4};
    unsigned kind = dr7 >> (16 + 4 * n) & 3, bit = 1u << n;
    d->length[n] = lengths[dr7 >> (18 + 4 * n) & 3];
    d->address[n] = kind == ON_EXECUTION ? address : address & ~(uint64_t)(d->length[n] - 1);
    d->code |= kind == ON_EXECUTION ? bit : 0;
    d->io |= kind == ON_PORT ? bit : 0;
    d->data |= kind == ON_WRITE || kind == ON_ACCESS ? bit : 0;
    d->writes_only |= kind == ON_WRITE ? bit : 0;
}

/* DR0-DR3 or DR7 may have changed. LE and GE are ignored, as on every processor since the P6 family. */
void debug_changed(struct engine *e)
{
    uint64_t dr7 = *field(e, VMCS_GUEST_DR7);
    if (!(dr7 & 0xff) && !(e->debug.code | e->debug.data | e->debug.io))
        return;
    debug_give_up(e);
    struct debug before = e->debug, now = {0};
    for (int n = 0; n < 4; n++)
        if (dr7 >> 2 * n & 3)
            take_breakpoint(&now, n, dr7, e->vcpu->dr[n]);
    bool same = before.data == now.data && !memcmp(before.address, now.address, sizeof now.address);
    e->debug = now;
    if (!same)
        drop_watched_pages(e);
}

/* ---- code breakpoints ---- */

static bool code_ahead(const struct debug *d, uint64_t pc)
{
    bool ahead = false;
    for (int n = 0; n < 4; n++)
        ahead |= d->code >> n & 1 && pc <= d->address[n] && d->address[n] < d->to;
    return ahead && pc >= d->from;
}

static uint64_t code_hits(const struct debug *d, uint64_t pc)
{
    uint64_t hits = 0;
    for (int n = 0; n < 4; n++)
        hits |= (uint64_t)(d->code >> n & 1 && d->address[n] == pc) << n;
    return hits;
}

/* At the head of a block: does #DB come here, or must the block be single-stepped? RF ends after one instruction. */
uint64_t debug_before_block(struct engine *e, uint64_t pc, uint64_t size, bool repeats)
{
    struct debug *d = &e->debug;
    bool resumes = e->core->eflags & FLAG_RF && e->rf_at == e->retired;
    if (!(e->core->eflags & FLAG_TF)) {
        d->from = pc;
        d->to = pc + size;
    }
    d->step = resumes || code_ahead(d, pc);
    return resumes || repeats ? 0 : code_hits(d, pc);
}

/* ---- data breakpoints ---- */

void debug_note(struct engine *e, uint64_t linear, uint64_t size, bool writes)
{
    const struct debug *d = &e->debug;
    for (int n = 0; n < 4; n++)
        if (d->data >> n & 1 && holds(d, n, linear, size) && (writes || !(d->writes_only >> n & 1)))
            e->debug.hits |= 1ull << n;
    if (unlikely(e->watching))
        stops_note(e, linear, size, writes);
}

static uint64_t in_segment(struct engine *e, int seg, uint64_t offset, int address_size)
{
    uint64_t at = address_size == 8 ? offset : address_size == 4 ? (uint32_t)offset : (uint16_t)offset;
    uint64_t base = in_64bit_code(e) && seg < FS ? 0 : e->core->segs[seg].base;
    return in_64bit_code(e) ? base + at : (uint32_t)(base + at);
}

static unsigned string_touches(struct engine *e, const struct insn *i, struct touch *t)
{
    uint8_t kind = i->opcode[0] & 0xfe;
    unsigned size = i->opcode[0] & 1 ? i->operand_size : 1, n = 0;
    int source = i->is_memory && i->seg != ES ? i->seg : DS;
    if (kind == 0xa4 || kind == 0xa6 || kind == 0xac)      /* MOVS, CMPS, LODS */
        t[n++] = (struct touch){in_segment(e, source, e->core->regs[RSI], i->address_size), size, false};
    if (kind != 0xac)
        t[n++] = (struct touch){in_segment(e, ES, e->core->regs[RDI], i->address_size), size, kind == 0xa4 || kind == 0xaa};
    return n;
}

static bool is_string(const struct insn *i)
{
    return (i->opcode[0] >= 0xa4 && i->opcode[0] <= 0xa7) || (i->opcode[0] >= 0xaa && i->opcode[0] <= 0xaf);
}

static struct touch stack_touch(struct engine *e, const struct insn *i)
{
    unsigned size = in_64bit_code(e) && i->operand_size != 2 ? 8 : i->operand_size;
    bool pops = i->id == X86_INS_POP || i->id == X86_INS_RET || i->id == X86_INS_LEAVE || i->id == X86_INS_POPAW || i->id == X86_INS_POPAL;
    bool all = i->id == X86_INS_PUSHAW || i->id == X86_INS_PUSHAL || i->id == X86_INS_POPAW || i->id == X86_INS_POPAL;
    uint64_t sp = e->core->regs[i->id == X86_INS_LEAVE ? RBP : RSP];
    size *= all ? 8 : 1;
    return (struct touch){in_segment(e, SS, pops ? sp : sp - size, stack_bits(e) / 8), size, !pops};
}

/* BT and its kin with a bit number in a register reach beyond their operand. */
static bool is_bit_string(const struct insn *i)
{
    return i->opcode[0] == 0x0f && (i->opcode[1] & 0xe7) == 0xa3;
}

static unsigned touches(struct engine *e, const struct insn *i, struct touch *t)
{
    unsigned n = 0;
    if (is_string(i))
        return string_touches(e, i, t);
    if (i->is_memory && i->memory_size && !is_bit_string(i))
        t[n++] = (struct touch){operand_address(e, i), i->memory_size, i->memory_written};
    if (i->uses_stack)
        t[n++] = stack_touch(e, i);
    return n;
}

/* An access to a watched page was refused: what does the instruction touch? Then let it have the page, for one step. */
void debug_step_over(struct engine *e, uint64_t linear)
{
    struct touch t[3];
    const struct insn *i = decode_at_rip(e);
    unsigned n = i ? touches(e, i, t) : 0;
    bool explained = false;
    for (unsigned k = 0; k < n; k++) {
        explained |= t[k].linear <= (linear | 0xfff) && t[k].linear + t[k].size > (linear & ~0xfffull);
        debug_note(e, t[k].linear, t[k].size, t[k].writes);
        stops_let_in(e, t[k].linear, t[k].size);
    }
    stops_let_in(e, linear, 1);
    if (!explained)                /* XLAT, MASKMOVQ, BTS: the refused address is all that is known */
        debug_note(e, linear, i && i->memory_size ? i->memory_size : 1,
                   e->refusal.access == ACCESS_WRITE || (i && i->memory_written));
    e->debug.let_in = e->stepping = true;
    e->core->eflags |= FLAG_TF;
}

/* The instruction is over (or did not complete, and its hits are void): the pages are watched again. */
uint64_t debug_take_hits(struct engine *e)
{
    uint64_t hits = e->debug.hits;
    e->debug.hits = 0;
    if (e->debug.let_in) {
        drop_watched_pages(e);
        stops_let_out(e);
    }
    e->debug.let_in = false;
    return hits;
}

void debug_give_up(struct engine *e)
{
    debug_take_hits(e);
    stops_forget_note(e);
    e->debug.step = false;
}

/* ---- I/O breakpoints ---- */

void debug_note_port(struct engine *e, uint32_t port, uint32_t size)
{
    for (int n = 0; n < 4; n++)
        if (e->debug.io >> n & 1 && e->core->cr[4] & CR4_DE && holds(&e->debug, n, port, size))
            e->debug.hits |= 1ull << n;
}
