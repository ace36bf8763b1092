/* Instructions that TCG computes wrongly, carried out here. Each was found by `ring1 fuzz` against a processor (docs/ORACLES.md).
 *
 * BLSI inverts CF. BZHI and BEXTR clear the top bit where the index is the operand's size or more. RORX, SHLD and SHRD with
 * an immediate miss their RIP-relative operand by one byte. LAHF and SAHF behind a REX prefix take SPL for AH. CMPPS and its
 * like with predicate 7 (ordered) run as CMPXCHG16B. PHADD and PHSUB of a register with itself read what they have written.
 * PDEP of 32 bits takes 64 bits of its mask. CMPXCHG of 32 bits writes a destination register although the comparison failed.
 * LOCK is taken before instructions that refuse it, and LOCK NEG leaves other flags. EMMS leaves TOP. PCMPESTRI and PCMPESTRM
 * with a length of -2^31 read before an array of the host's: this one must never run. PCMPISTRI and PCMPISTRM, equal ordered,
 * miss matches that the end of the string cuts short.
 */
#include "defects.h"

enum { FLAG_CF = 1, FLAG_PF = 1 << 2, FLAG_AF = 1 << 4, FLAG_ZF = 1 << 6, FLAG_SF = 1 << 7, FLAG_OF = 1 << 11,
       STATUS = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF };

enum { ORDERED = 7, EQUAL_ORDERED = 0xc };

static struct head head_of(const uint8_t *code, const uint8_t *opcode)
{
    struct head h = {0};
    for (; code < opcode; code++) {
        h.rex = (*code & 0xf0) == 0x40 ? *code : 0;
        h.word |= *code == 0x66;
        if (*code == 0xf2 || *code == 0xf3)
            h.last = *code;
    }
    return h;
}

static bool is_rip_relative(const struct engine *e, uint8_t modrm) { return in_64bit_code(e) && (modrm & 0xc7) == 5; }

/* VEX on general registers: opcode F3 /3, F5, F7 of map 2, F0 of map 3. */
static bool is_bad_vex(const struct engine *e, const uint8_t *o, int left)
{
    if (left < 5 || o[0] != 0xc4)
        return false;
    if ((o[1] & 31) == 3)
        return o[3] == 0xf0 && (o[2] & 3) == 3 && is_rip_relative(e, o[4]);
    if ((o[1] & 31) != 2)
        return false;
    if ((o[2] & 3) == 3)
        return o[3] == 0xf5 && !(o[2] & 0x80 && in_64bit_code(e));
    if (o[2] & 3)
        return false;
    return (o[3] == 0xf3 && (o[4] >> 3 & 7) == 3) || o[3] == 0xf5 || o[3] == 0xf7;
}

static bool is_locked(const uint8_t *code, const uint8_t *opcode) { return memchr(code, 0xf0, (size_t)(opcode - code)) != NULL; }

/* Manual: LOCK. ModRM follows the opcode in all of them. */
static bool may_be_locked(const uint8_t *o, int left)
{
    bool two = o[0] == 0x0f;
    if (left < 2 + two || o[1 + two] >> 6 == 3)
        return false;
    uint8_t op = o[two], reg = o[1 + two] >> 3 & 7;
    if (two)
        return op == 0xab || op == 0xb3 || op == 0xbb || op == 0xb0 || op == 0xb1 || op == 0xc0 || op == 0xc1 ||
               (op == 0xba && reg >= 5) || (op == 0xc7 && reg == 1);
    if (op < 0x38)
        return !(op & 6);
    if (op >= 0x80 && op <= 0x83)
        return reg != 7;
    return op == 0x86 || op == 0x87 || ((op & 0xfe) == 0xf6 && (reg == 2 || reg == 3)) || ((op & 0xfe) == 0xfe && reg < 2);
}

static bool is_locked_neg(const uint8_t *o) { return (o[0] & 0xfe) == 0xf6 && (o[1] >> 3 & 7) == 3; }

/* PHADDW, PHADDD, PHADDSW, PHSUBW, PHSUBD, PHSUBSW of one register. */
static bool is_own_horizontal(struct head h, const uint8_t *o, int left)
{
    return left > 3 && o[1] == 0x38 && o[2] >= 1 && o[2] <= 7 && o[2] != 4 && o[3] >> 6 == 3 && (o[3] & 7) == (o[3] >> 3 & 7) &&
           (!h.word || !(h.rex & 4) == !(h.rex & 1));
}

static bool has_sse_defect(const struct engine *e, const uint8_t *code, size_t size, const uint8_t *o, int left)
{
    struct head h = head_of(code, o);
    if (o[1] == 0xc2)
        return (code[size - 1] & 7) == ORDERED;
    if (o[1] == 0xb1)
        return left > 2 && o[2] >> 6 == 3 && in_64bit_code(e) && !h.word && !(h.rex & 8);
    if (o[1] == 0x3a && h.word && (o[2] == 0x62 || o[2] == 0x63))
        return (code[size - 1] & EQUAL_ORDERED) == EQUAL_ORDERED;
    return (o[1] == 0x3a && h.word && (o[2] == 0x60 || o[2] == 0x61)) || is_own_horizontal(h, o, left);
}

/* `code` of `size` bytes with its opcode at `o`. */
bool has_defect(const struct engine *e, const uint8_t *code, size_t size, const uint8_t *o, int left)
{
    if (is_locked(code, o) && (!may_be_locked(o, left) || is_locked_neg(o)))
        return true;
    if (left > 0 && (o[0] == 0x9e || o[0] == 0x9f))
        return head_of(code, o).rex != 0 && in_64bit_code(e);
    if (is_bad_vex(e, o, left))
        return true;
    if (left >= 2 && o[0] == 0x0f && o[1] == 0x77)
        return true;
    if (left < 3 || o[0] != 0x0f)
        return false;
    if (o[1] == 0xa4 || o[1] == 0xac)
        return is_rip_relative(e, o[2]);
    return has_sse_defect(e, code, size, o, left);
}

/* ---- operands ---- */

static bool load(struct engine *e, const struct insn *i, unsigned rm, size_t size, uint64_t *value)
{
    *value = 0;
    if (i->is_memory)
        return mem_read(e, operand_address(e, i), value, size, RIGHTS_CURRENT);
    *value = size == 8 ? e->core->regs[rm] : (uint32_t)e->core->regs[rm];
    return true;
}

static void store(struct engine *e, unsigned reg, size_t size, uint64_t value)
{
    e->core->regs[reg] = size == 8 ? value : (uint32_t)value;
}

void set_status(struct engine *e, uint64_t defined, uint64_t flags)
{
    set_guest_rflags(e, (guest_rflags(e) & ~defined) | flags);
}

static uint64_t sign_and_zero(uint64_t value, size_t size)
{
    bool negative = value >> (size * 8 - 1) & 1;
    return (value ? 0 : FLAG_ZF) | (negative ? FLAG_SF : 0);
}

static uint64_t cut(uint64_t value, size_t size) { return size == 8 ? value : (uint32_t)value; }

/* ---- BLSI, BZHI, BEXTR, RORX ---- */

static bool vex_general(struct engine *e, const struct insn *i, const uint8_t *o)
{
    size_t size = o[2] & 0x80 && i->bits == 64 ? 8 : 4, bits = size * 8;
    unsigned high = i->bits == 64, reg = (o[4] >> 3 & 7) | (o[1] & 0x80 || !high ? 0 : 8), rm = (o[4] & 7) | (o[1] & 0x20 || !high ? 0 : 8);
    unsigned vvvv = (~o[2] >> 3 & 15) & (high ? 15 : 7);
    uint64_t value;
    if (!load(e, i, rm, size, &value))
        return false;
    uint64_t control = cut(e->core->regs[vvvv], size), result;
    if (o[3] == 0xf0) {
        unsigned count = (unsigned)i->immediate & (bits - 1);
        result = cut(count ? value >> count | value << (bits - count) : value, size);
        store(e, reg, size, result);
    } else if ((o[2] & 3) == 3) {
        result = 0;
        for (unsigned to = 0, from = 0; to < 32; to++)
            result |= value >> to & 1 ? (control >> from++ & 1) << to : 0;
        store(e, reg, size, result);
    } else if (o[3] == 0xf3) {
        result = cut(value & -value, size);
        store(e, vvvv, size, result);
        set_status(e, STATUS & ~(FLAG_PF | FLAG_AF), sign_and_zero(result, size) | (value ? FLAG_CF : 0));
    } else if (o[3] == 0xf5) {
        unsigned from = control & 0xff;
        result = from < bits ? value & ((1ull << from) - 1) : value;
        store(e, reg, size, result);
        set_status(e, STATUS & ~(FLAG_PF | FLAG_AF), sign_and_zero(result, size) | (from >= bits ? FLAG_CF : 0));
    } else {
        unsigned start = control & 0xff, length = control >> 8 & 0xff;
        result = start < bits ? value >> start : 0;
        result = length < 64 ? result & ((1ull << length) - 1) : result;
        store(e, reg, size, result);
        set_status(e, STATUS & ~(FLAG_PF | FLAG_AF | FLAG_SF), result ? 0 : FLAG_ZF);
    }
    return done(e, i);
}

/* ---- SHLD, SHRD with an immediate, memory relative to RIP ---- */

static bool shift_double(struct engine *e, const struct insn *i)
{
    size_t size = i->operand_size, bits = size * 8;
    unsigned count = (unsigned)i->immediate & (size == 8 ? 63 : 31);
    uint64_t at = operand_address(e, i), value = 0, mask = bits == 64 ? ~0ull : (1ull << bits) - 1;
    uint64_t other = e->core->regs[i->modrm_reg] & mask, result;
    bool left = i->opcode[1] == 0xa4, carry;
    if (!mem_check(e, at, size, ACCESS_WRITE, RIGHTS_CURRENT) || !mem_read(e, at, &value, size, RIGHTS_CURRENT))
        return false;
    count = bits == 16 ? count & 15 : count;       /* by more than the operand has: undefined */
    if (count == 0)
        return done(e, i);
    result = (left ? value << count | other >> (bits - count) : value >> count | other << (bits - count)) & mask;
    carry = left ? value >> (bits - count) & 1 : value >> (count - 1) & 1;
    if (!mem_write(e, at, &result, size, RIGHTS_CURRENT))
        return false;
    uint64_t flags = (result ? 0 : FLAG_ZF) | (result >> (bits - 1) & 1 ? FLAG_SF : 0) | (carry ? FLAG_CF : 0);
    flags |= __builtin_parity((unsigned)result & 0xff) ? 0 : FLAG_PF;
    flags |= (result ^ value) >> (bits - 1) & 1 ? FLAG_OF : 0;
    set_status(e, STATUS & ~FLAG_AF, flags);
    return done(e, i);
}

static bool move_ah(struct engine *e, const struct insn *i)
{
    uint64_t *rax = &e->core->regs[RAX], kept = FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF;
    if (i->opcode[0] == 0x9f)
        *rax = (*rax & ~0xff00ull) | ((guest_rflags(e) & kept) | 2) << 8;
    else
        set_status(e, kept, *rax >> 8 & kept);
    return done(e, i);
}

/* The flags of `from` less `what`. */
static uint64_t difference_flags(uint64_t from, uint64_t what, size_t size)
{
    unsigned top = (unsigned)(size * 8 - 1);
    uint64_t mask = size == 8 ? ~0ull : (1ull << size * 8) - 1, result = (from - what) & mask;
    uint64_t flags = (result ? 0 : FLAG_ZF) | (result >> top & 1 ? FLAG_SF : 0) | (from < what ? FLAG_CF : 0);
    flags |= __builtin_parity((unsigned)result & 0xff) ? 0 : FLAG_PF;
    return flags | ((from ^ what ^ result) & FLAG_AF) | (((from ^ what) & (from ^ result)) >> top & 1 ? FLAG_OF : 0);
}

static bool locked_neg(struct engine *e, const struct insn *i)
{
    size_t size = i->opcode[0] & 1 ? i->operand_size : 1;
    uint64_t at = operand_address(e, i), value = 0, result;
    if (!mem_check(e, at, size, ACCESS_WRITE, RIGHTS_CURRENT) || !mem_read(e, at, &value, size, RIGHTS_CURRENT))
        return false;
    result = -value;
    if (!mem_write(e, at, &result, size, RIGHTS_CURRENT))
        return false;
    set_status(e, STATUS, difference_flags(0, value, size));
    return done(e, i);
}

static bool exchange32(struct engine *e, const struct insn *i)
{
    uint64_t *to = &e->core->regs[i->modrm_rm], *rax = &e->core->regs[RAX], was = (uint32_t)*to, wanted = (uint32_t)*rax;
    if (was == wanted)
        *to = (uint32_t)e->core->regs[i->modrm_reg];
    else
        *rax = was;
    set_status(e, STATUS, difference_flags(wanted, was, 4));
    return done(e, i);
}

/* The instruction at RIP if it is one of these: *handled, and whether it was carried out. */
bool do_defect(struct engine *e, const struct insn *i, bool *handled)
{
    uint8_t code[15];
    uint64_t linear;
    int left;
    *handled = i->defective;
    if (!i->defective)
        return false;
    linear_rip(e, &linear);
    const uint8_t *o = opcode_of(e, code, peek_code(e, linear, code, i->length), &left);
    struct head h = head_of(code, o);
    if (is_locked(code, o))
        return may_be_locked(o, left) ? locked_neg(e, i) : raise_fault(e, 6, 0);
    if (o[0] == 0xc4)
        return vex_general(e, i, o);
    if (o[0] != 0x0f)
        return move_ah(e, i);
    if (o[1] == 0xc2)
        return compare_ordered(e, i, h);
    if (o[1] == 0x77)
        return emms(e, i);
    if (o[1] == 0xb1)
        return exchange32(e, i);
    if (o[1] == 0x38)
        return own_horizontal(e, i, h.word, o[2]);
    return o[1] == 0x3a ? compare_strings(e, i, h.rex & 8, o[2]) : shift_double(e, i);
}

/* ---- read-modify-write ---- */

/* Of rotations and CMPXCHG capstone does not say so. */
bool is_read_modify_write(const struct insn *i)
{
    uint8_t o = i->opcode[0];
    bool rotates = o == 0xc0 || o == 0xc1 || (o >= 0xd0 && o <= 0xd3), exchanges = o == 0x0f && (i->opcode[1] & 0xfe) == 0xb0;
    return i->reads_and_writes || (i->is_memory && (rotates || exchanges));
}

/* TCG found that the load of an operand faults on its second page, at `linear`; the store would on the first: that counts. */
bool first_page_is_writable(struct engine *e, const struct insn *i, uint64_t linear)
{
    uint64_t hpa, start = operand_address(e, i);
    return linear != (start | 0xfff) + 1 || !is_canonical(e, start) || tlb_translate_again(e, start, ACCESS_WRITE, &hpa);
}
