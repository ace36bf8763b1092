/* What defects.c names of MMX and SSE, carried out. */
#include "defects.h"

enum { FLAG_CF = 1, FLAG_PF = 1 << 2, FLAG_AF = 1 << 4, FLAG_ZF = 1 << 6, FLAG_SF = 1 << 7, FLAG_OF = 1 << 11,
       STATUS = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF };

static bool media_refuses(struct engine *e)
{
    if (e->core->cr[0] & 1 << 2 || !(e->core->cr[4] & 1 << 9))
        return !raise_fault(e, 6, 0);
    return e->core->cr[0] & 1 << 3 ? !raise_fault(e, 7, 0) : false;
}

static bool load_xmm(struct engine *e, const struct insn *i, size_t size, uint8_t value[16])
{
    memset(value, 0, 16);
    if (i->is_memory)
        return mem_read(e, operand_address(e, i), value, size, RIGHTS_CURRENT);
    lib.uc_reg_read(e->uc, UC_X86_REG_XMM0 + i->modrm_rm, value);
    return true;
}

static bool is_nan(const uint8_t *lane, size_t size)
{
    uint64_t raw = 0;
    memcpy(&raw, lane, size);
    return size == 4 ? (raw & 0x7fffffff) > 0x7f800000 : (raw & ~(1ull << 63)) > 0x7ffull << 52;
}

static void set_top_and_tags(struct engine *e, uint16_t tags)
{
    uint16_t status = 0;
    lib.uc_reg_read(e->uc, UC_X86_REG_FPSW, &status);
    status &= (uint16_t)~0x3800;
    lib.uc_reg_write(e->uc, UC_X86_REG_FPSW, &status);
    lib.uc_reg_write(e->uc, UC_X86_REG_FPTAG, &tags);
}

bool emms(struct engine *e, const struct insn *i)
{
    if (e->core->cr[0] & 1 << 2)
        return raise_fault(e, 6, 0);
    if (e->core->cr[0] & 1 << 3)
        return raise_fault(e, 7, 0);
    set_top_and_tags(e, 0xffff);
    return done(e, i);
}

static int32_t saturate(int32_t value) { return value > 32767 ? 32767 : value < -32768 ? -32768 : value; }

/* One half of the result, from `n` bytes: 8 or 16. */
static void add_neighbours(uint8_t *to, const uint8_t *from, size_t n, uint8_t op)
{
    bool dwords = op == 2 || op == 6, minus = op >= 5, saturating = op == 3 || op == 7;
    for (size_t at = 0; at < n; at += dwords ? 8 : 4) {
        int32_t a, b;
        int16_t words[2];
        memcpy(words, from + at, 4);
        memcpy(&a, from + at, 4);
        memcpy(&b, from + at + 4 * dwords, 4);
        a = dwords ? a : words[0];
        b = dwords ? b : words[1];
        int32_t sum = (int32_t)((uint32_t)a + (minus ? -(uint32_t)b : (uint32_t)b));
        sum = saturating ? saturate(sum) : sum;
        memcpy(to + at / 2, &sum, dwords ? 4 : 2);
    }
}

bool own_horizontal(struct engine *e, const struct insn *i, bool wide, uint8_t op)
{
    uint8_t value[16], result[16];
    if (wide ? media_refuses(e) : e->core->cr[0] & 1 << 2 ? !raise_fault(e, 6, 0) : e->core->cr[0] & 1 << 3 ? !raise_fault(e, 7, 0) : false)
        return false;
    size_t size = wide ? 16 : 8;
    int reg = wide ? UC_X86_REG_XMM0 + i->modrm_rm : UC_X86_REG_FP0 + (i->modrm_rm & 7);
    lib.uc_reg_read(e->uc, reg, value);
    add_neighbours(result, value, size, op);
    memcpy(result + size / 2, result, size / 2);
    if (!wide) {
        memset(result + 8, 0xff, 2);
        set_top_and_tags(e, 0);
    }
    lib.uc_reg_write(e->uc, reg, result);
    return done(e, i);
}

bool compare_ordered(struct engine *e, const struct insn *i, struct head h)
{
    size_t lane = h.last == 0xf2 || (!h.last && h.word) ? 8 : 4, bytes = h.last ? lane : 16;
    uint8_t ours[16], other[16];
    if (media_refuses(e))
        return false;
    if (i->is_memory && !h.last && operand_address(e, i) & 15)
        return raise_fault(e, 13, 0);
    if (!load_xmm(e, i, bytes, other))
        return false;
    lib.uc_reg_read(e->uc, UC_X86_REG_XMM0 + i->modrm_reg, ours);
    for (size_t at = 0; at < bytes; at += lane)
        memset(ours + at, is_nan(ours + at, lane) || is_nan(other + at, lane) ? 0 : 0xff, lane);
    lib.uc_reg_write(e->uc, UC_X86_REG_XMM0 + i->modrm_reg, ours);
    return done(e, i);
}

/* Manual: "Imm8 Control Byte Operation for PCMPESTRI / PCMPESTRM / PCMPISTRI / PCMPISTRM". */
struct strings { int32_t one[16], two[16]; unsigned lengths[2], count; uint8_t control; };

static unsigned explicit_length(uint64_t raw, bool wide, unsigned most)
{
    uint64_t size = wide ? ((int64_t)raw < 0 ? -raw : raw) : ((int32_t)raw < 0 ? -(uint32_t)raw : (uint32_t)raw);
    return size < most ? (unsigned)size : most;
}

static void spread(int32_t *to, const uint8_t value[16], uint8_t control)
{
    for (unsigned n = 0; n < (control & 1 ? 8u : 16u); n++) {
        uint16_t word = control & 1 ? (uint16_t)(value[2 * n] | value[2 * n + 1] << 8) : value[n];
        to[n] = !(control & 2) ? word : control & 1 ? (int16_t)word : (int8_t)word;
    }
}

/* One bit of a row: element `a` of the first string against `b` of the second, where an end may have come before. */
static bool pair_matches(const struct strings *s, unsigned a, unsigned b, bool (*compare)(int32_t, int32_t))
{
    bool one = a < s->lengths[0], two = b < s->lengths[1];
    switch (s->control >> 2 & 3) {
    case 0: case 1: return one && two && compare(s->one[a], s->two[b]);
    case 2: return one && two ? compare(s->one[a], s->two[b]) : !one && !two;
    default: return !one || (two && compare(s->one[a], s->two[b]));
    }
}

static bool equals(int32_t a, int32_t b) { return a == b; }
static bool at_most(int32_t a, int32_t b) { return a <= b; }
static bool at_least(int32_t a, int32_t b) { return a >= b; }

static bool element_matches(const struct strings *s, unsigned b)
{
    bool result;
    switch (s->control >> 2 & 3) {
    case 0:
        result = false;
        for (unsigned a = 0; a < s->count; a++)
            result |= pair_matches(s, a, b, equals);
        return result;
    case 1:
        result = false;
        for (unsigned a = 0; a < s->count; a += 2)
            result |= pair_matches(s, a, b, at_most) && pair_matches(s, a + 1, b, at_least);
        return result;
    case 2:
        return pair_matches(s, b, b, equals);
    default:
        result = true;
        for (unsigned a = 0; a + b < s->count; a++)
            result &= pair_matches(s, a, a + b, equals);
        return result;
    }
}

static uint32_t matches(const struct strings *s)
{
    uint32_t mask = 0;
    for (unsigned b = 0; b < s->count; b++) {
        bool negated = s->control & 0x10 && (!(s->control & 0x20) || b < s->lengths[1]);
        mask |= (uint32_t)(element_matches(s, b) != negated) << b;
    }
    return mask;
}

static void put_mask(struct engine *e, const struct strings *s, uint32_t mask)
{
    uint8_t out[16] = {0};
    unsigned size = 16 / s->count;
    for (unsigned n = 0; n < s->count && s->control & 0x40; n++)
        memset(out + n * size, mask >> n & 1 ? 0xff : 0, size);
    if (!(s->control & 0x40))
        memcpy(out, &mask, 2);
    lib.uc_reg_write(e->uc, UC_X86_REG_XMM0, out);
}

/* Without explicit lengths a string ends at its first zero. */
static unsigned implicit_length(const int32_t *elements, unsigned most)
{
    unsigned n = 0;
    while (n < most && elements[n])
        n++;
    return n;
}

/* PCMPESTRM, PCMPESTRI, PCMPISTRM, PCMPISTRI by their opcodes, 60 to 63. */
bool compare_strings(struct engine *e, const struct insn *i, bool wide, uint8_t opcode)
{
    struct strings s = {.control = (uint8_t)i->immediate, .count = i->immediate & 1 ? 8 : 16};
    uint8_t ours[16], other[16];
    if (media_refuses(e) || !load_xmm(e, i, 16, other))
        return false;
    lib.uc_reg_read(e->uc, UC_X86_REG_XMM0 + i->modrm_reg, ours);
    spread(s.one, ours, s.control);
    spread(s.two, other, s.control);
    bool implicit = opcode >= 0x62;
    s.lengths[0] = implicit ? implicit_length(s.one, s.count) : explicit_length(e->core->regs[RAX], wide, s.count);
    s.lengths[1] = implicit ? implicit_length(s.two, s.count) : explicit_length(e->core->regs[RDX], wide, s.count);
    uint32_t mask = matches(&s);
    if (!(opcode & 1))
        put_mask(e, &s, mask);
    else
        e->core->regs[RCX] = !mask ? s.count : s.control & 0x40 ? 31 - (unsigned)__builtin_clz(mask) : (unsigned)__builtin_ctz(mask);
    set_status(e, STATUS, (mask ? FLAG_CF : 0) | (s.lengths[1] < s.count ? FLAG_ZF : 0) | (s.lengths[0] < s.count ? FLAG_SF : 0) |
                              (mask & 1 ? FLAG_OF : 0));
    return done(e, i);
}

