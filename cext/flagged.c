/* Instructions whose flags TCG gets wrong, carried out here.
 *
 * RCL, RCR and SETcc to memory: TCG makes the flags explicit before it touches memory. If that faults, the flags it goes
 * back to are no longer there. CMPXCHG8B and CMPXCHG16B: its helper reads the flags before they have been settled, and what
 * it leaves in them is not a flags word at all. LOOPE and LOOPNE: where the count reaches zero, TCG forgets what kind of
 * operation set the flags.
 */
#include "state.h"

enum { FLAG_CF = 1, FLAG_PF = 1 << 2, FLAG_ZF = 1 << 6, FLAG_SF = 1 << 7, FLAG_OF = 1 << 11 };

static bool is_wide_exchange(unsigned id) { return id == X86_INS_CMPXCHG8B || id == X86_INS_CMPXCHG16B; }

static bool is_conditional_loop(unsigned id) { return id == X86_INS_LOOPE || id == X86_INS_LOOPNE; }

/* `opcode` without prefixes. */
bool has_fragile_flags(unsigned id, const uint8_t *opcode, uint8_t modrm)
{
    bool rotates = id == X86_INS_RCL || id == X86_INS_RCR, sets = opcode[0] == 0x0f && (opcode[1] & 0xf0) == 0x90;
    return is_wide_exchange(id) || is_conditional_loop(id) || ((rotates || sets) && modrm >> 6 != 3);
}

static bool exchange_wide(struct engine *e, const struct insn *i)
{
    uint64_t *regs = e->core->regs, at = operand_address(e, i), flags = guest_rflags(e);
    bool wide = i->id == X86_INS_CMPXCHG16B;
    unsigned half = wide ? 8 : 4;
    uint64_t old[2] = {0}, mask = wide ? ~0ull : 0xffffffff;
    uint8_t bytes[16];
    if (wide && at & 15)
        return raise_fault(e, 13, 0);
    if (!mem_check(e, at, 2 * half, ACCESS_WRITE, RIGHTS_CURRENT) || !mem_read(e, at, bytes, 2 * half, RIGHTS_CURRENT))
        return false;
    memcpy(&old[0], bytes, half);
    memcpy(&old[1], bytes + half, half);
    bool equal = old[0] == (regs[RAX] & mask) && old[1] == (regs[RDX] & mask);
    if (equal) {
        memcpy(bytes, &regs[RBX], half);
        memcpy(bytes + half, &regs[RCX], half);
    }
    if (!mem_write(e, at, bytes, 2 * half, RIGHTS_CURRENT))
        return false;
    if (!equal) {
        regs[RAX] = old[0];
        regs[RDX] = old[1];
    }
    set_guest_rflags(e, (flags & ~(uint64_t)FLAG_ZF) | (equal ? FLAG_ZF : 0));
    return done(e, i);
}

static unsigned rotate_count(const struct engine *e, const struct insn *i, unsigned bits)
{
    unsigned raw = i->opcode[0] >= 0xd2 ? (uint8_t)e->core->regs[RCX] : i->opcode[0] >= 0xd0 ? 1 : (uint8_t)i->immediate;
    raw &= bits == 64 ? 63 : 31;
    return bits < 32 ? raw % (bits + 1) : raw;
}

/* As the processor defines it for a count of one, and TCG for the others: OF is set if the top bit changed. */
static bool rotate_through_carry(struct engine *e, const struct insn *i)
{
    unsigned size = i->opcode[0] & 1 ? i->operand_size : 1, bits = 8 * size;
    uint64_t at = operand_address(e, i), flags = guest_rflags(e), carry = flags & FLAG_CF, value = 0;
    if (!mem_check(e, at, size, ACCESS_WRITE, RIGHTS_CURRENT) || !mem_read(e, at, &value, size, RIGHTS_CURRENT))
        return false;
    uint64_t before = value;
    unsigned count = rotate_count(e, i, bits);
    for (unsigned n = 0; n < count; n++) {
        bool left = i->id == X86_INS_RCL;
        uint64_t out = left ? value >> (bits - 1) & 1 : value & 1;
        value = left ? value << 1 | carry : value >> 1 | carry << (bits - 1);
        value &= bits == 64 ? ~0ull : (1ull << bits) - 1;
        carry = out;
    }
    if (!mem_write(e, at, &value, size, RIGHTS_CURRENT))
        return false;
    uint64_t changed = (before ^ value) >> (bits - 1) & 1;
    if (count)
        set_guest_rflags(e, (flags & ~(uint64_t)(FLAG_CF | FLAG_OF)) | carry | (changed ? FLAG_OF : 0));
    return done(e, i);
}

/* The sixteen conditions in their order: O, B, Z, BE, S, P, L, LE, each followed by its opposite. */
static bool condition(uint64_t flags, unsigned number)
{
    bool less = !(flags & FLAG_SF) != !(flags & FLAG_OF);
    const bool holds[8] = {flags & FLAG_OF, flags & FLAG_CF, flags & FLAG_ZF, flags & (FLAG_CF | FLAG_ZF),
                           flags & FLAG_SF, flags & FLAG_PF, less,            less || flags & FLAG_ZF};
    return holds[number >> 1 & 7] != (number & 1);
}

static bool set_byte(struct engine *e, const struct insn *i)
{
    uint8_t value = condition(guest_rflags(e), i->opcode[1] & 15);
    return mem_write(e, operand_address(e, i), &value, 1, RIGHTS_CURRENT) && done(e, i);
}

static void set_count(struct engine *e, const struct insn *i, uint64_t value)
{
    uint64_t *rcx = &e->core->regs[RCX];
    *rcx = i->address_size == 2 ? (*rcx & ~0xffffull) | value : value;
}

static bool loop_on_flag(struct engine *e, const struct insn *i)
{
    uint64_t bits = i->address_size == 8 ? ~0ull : i->address_size == 4 ? 0xffffffff : 0xffff, linear;
    uint64_t count = (e->core->regs[RCX] - 1) & bits;
    bool zero = guest_rflags(e) & FLAG_ZF, taken = count && zero == (i->id == X86_INS_LOOPE);
    linear_rip(e, &linear);
    uint64_t step = (uint64_t)(int8_t)(i->immediate - linear - i->length);   /* capstone's operand is where it leads */
    uint64_t target = e->core->rip + i->length + step;
    if (i->bits == 64 && taken && !is_canonical(e, target))
        return raise_fault(e, 13, 0);
    set_count(e, i, count);
    advance_rip(e, i);
    if (taken)
        e->core->rip = i->bits == 64 ? target : i->operand_size == 2 ? (uint16_t)target : (uint32_t)target;
    return true;
}

bool op_fragile_flags(struct engine *e, const struct insn *i)
{
    if (is_conditional_loop(i->id))
        return loop_on_flag(e, i);
    if (is_wide_exchange(i->id))
        return exchange_wide(e, i);
    return i->id == X86_INS_RCL || i->id == X86_INS_RCR ? rotate_through_carry(e, i) : set_byte(e, i);
}
