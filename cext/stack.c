/* Stack segments and memory operands, with the checks that TCG leaves out: limits and canonical addresses. */
#include "descriptor.h"

static uint64_t mask_of(uint32_t flags) { return flags & DESC_B ? 0xffffffff : 0xffff; }

struct stack flat_stack(uint64_t sp, enum rights rights, uint32_t error)
{
    return (struct stack){.mask = ~0ull, .sp = sp, .flat = true, .rights = rights, .error = error};
}

struct stack stack_of(const struct descriptor *ss, uint64_t sp, enum rights rights, uint32_t error)
{
    return (struct stack){.base = base_of(ss), .mask = mask_of(ss->high), .sp = sp, .limit = limit_of(ss),
                          .flags = ss->high, .rights = rights, .error = error};
}

struct stack current_stack(struct engine *e)
{
    uint64_t sp = core_of(e)->regs[RSP];
    if (in_64bit_code(e))
        return flat_stack(sp, RIGHTS_CURRENT, 0);
    struct core_segment ss = guest_segment(e, SS);
    return (struct stack){.base = ss.base, .mask = stack_bits(e) == 32 ? 0xffffffff : 0xffff, .sp = sp,
                          .limit = ss.limit, .flags = ss.flags, .rights = RIGHTS_CURRENT};
}

uint64_t moved_sp(const struct stack *s, int64_t by)
{
    uint64_t sp = s->sp + (uint64_t)by;
    return s->mask == 0xffff ? (s->sp & ~0xffffull) | (sp & 0xffff) : sp & s->mask;
}

/* Does [first, first + n) lie in the segment? */
static bool in_segment(uint32_t flags, uint32_t limit, uint64_t first, uint64_t n)
{
    uint64_t last = first + n - 1;
    bool expands_down = (flags & (DESC_S | DESC_CODE | DESC_C)) == (DESC_S | DESC_C);
    return expands_down ? first > limit && last <= mask_of(flags) : last <= limit;
}

static bool reaches(struct engine *e, const struct stack *s, uint64_t offset, unsigned n)
{
    bool fine = s->flat ? is_canonical(e, offset) && is_canonical(e, offset + n - 1)
                        : in_segment(s->flags, s->limit, offset, n);
    return fine || raise_fault(e, FAULT_SS, s->error);
}

static uint64_t linear_of(const struct stack *s, uint64_t offset)
{
    return s->flat ? offset : (s->base + offset) & 0xffffffff;
}

/* How much of `n` bytes at `offset` is one piece: all, or one slot where SP would wrap. */
static unsigned piece(const struct stack *s, uint64_t offset, unsigned n, unsigned unit)
{
    return !s->flat && offset + n - 1 > s->mask ? unit : n;
}

static bool read_bytes(struct engine *e, const struct stack *s, uint64_t sp, uint8_t *to, unsigned n, unsigned unit)
{
    for (unsigned done = 0, part; done < n; done += part) {
        uint64_t offset = (sp + done) & s->mask;
        part = piece(s, offset, n - done, unit);
        if (!reaches(e, s, offset, part) || !mem_read(e, linear_of(s, offset), to + done, part, s->rights))
            return false;
    }
    return true;
}

bool stack_read(struct engine *e, const struct stack *s, unsigned skip, uint64_t *slots, unsigned count, unsigned unit)
{
    uint8_t bytes[MAX_POPPED * 8];
    if (!read_bytes(e, s, s->sp + skip, bytes, count * unit, unit))
        return false;
    for (unsigned k = 0; k < count; k++) {
        slots[k] = 0;
        memcpy(&slots[k], bytes + (size_t)k * unit, unit);
    }
    return true;
}

void frame_push(struct frame *f, uint64_t value)
{
    f->n += f->unit;
    memcpy(f->bytes + sizeof f->bytes - f->n, &value, f->unit);
}

/* The processor pushes from the top down: of a frame that does not fit, the first slot so pushed is what faults. */
static bool fault_of_first_push(struct engine *e, const struct stack *s, const struct frame *f)
{
    for (unsigned pushed = f->unit; pushed <= f->n; pushed += f->unit) {
        uint64_t offset = moved_sp(s, -(int64_t)pushed) & s->mask;
        if (!mem_check(e, linear_of(s, offset), f->unit, ACCESS_WRITE, s->rights))
            break;
    }
    return false;
}

bool frame_store(struct engine *e, struct stack *s, const struct frame *f)
{
    const uint8_t *from = f->bytes + sizeof f->bytes - f->n;
    uint64_t sp = moved_sp(s, -(int64_t)f->n);
    for (unsigned done = 0, part; done < f->n; done += part) {
        uint64_t offset = (sp + done) & s->mask;
        part = piece(s, offset, f->n - done, f->unit);
        if (!reaches(e, s, offset, part))
            return false;
        if (!mem_write(e, linear_of(s, offset), from + done, part, s->rights))
            return fault_of_first_push(e, s, f);
    }
    s->sp = sp;
    return true;
}

static bool operand_check(struct engine *e, const struct insn *i, unsigned delta, unsigned n, uint64_t *linear)
{
    int vector = i->seg == SS ? FAULT_SS : FAULT_GP;
    *linear = operand_address(e, i) + delta;
    if (in_64bit_code(e))
        return (is_canonical(e, *linear) && is_canonical(e, *linear + n - 1)) || raise_fault(e, vector, 0);
    struct core_segment s = guest_segment(e, i->seg);
    *linear &= 0xffffffff;
    bool fine = s.flags & DESC_P && in_segment(s.flags, s.limit, effective_address(e, i) + delta, n);
    return fine || raise_fault(e, vector, 0);
}

bool operand_read(struct engine *e, const struct insn *i, unsigned delta, void *to, unsigned n)
{
    uint64_t linear;
    return operand_check(e, i, delta, n, &linear) && mem_read(e, linear, to, n, RIGHTS_CURRENT);
}

bool operand_write(struct engine *e, const struct insn *i, const void *from, unsigned n)
{
    uint64_t linear;
    if (!operand_check(e, i, 0, n, &linear))
        return false;
    bool writable = in_64bit_code(e) || in_real_mode(e) || in_v8086(e) || is_writable(guest_segment(e, i->seg).flags);
    return writable ? mem_write(e, linear, from, n, RIGHTS_CURRENT) : raise_fault(e, FAULT_GP, 0);
}

bool operand_selector(struct engine *e, const struct insn *i, uint16_t *selector)
{
    if (i->is_memory)
        return operand_read(e, i, 0, selector, sizeof *selector);
    *selector = (uint16_t)core_of(e)->regs[i->modrm_rm];
    return true;
}

void write_gpr(struct engine *e, int number, unsigned size, uint64_t value)
{
    uint64_t *reg = &core_of(e)->regs[number];
    *reg = size == 2 ? (*reg & ~0xffffull) | (value & 0xffff) : size == 4 ? (uint32_t)value : value;
}
