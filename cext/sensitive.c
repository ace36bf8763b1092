/* Which instructions TCG would run at CPL 1 although a ring 0 that is watched must not.
 *
 * Popek and Goldberg's sensitive, unprivileged instructions, and those that Unicorn runs without the checks of the
 * manual: they get the code hook. Privileged ones are not listed: at CPL 1 they fault by themselves.
 */
#include "defects.h"

/* The opcode bytes after legacy prefixes and REX. */
const uint8_t *opcode_of(const struct engine *e, const uint8_t *at, size_t size, int *left)
{
    const uint8_t *end = at + size;
    for (; at < end; at++) {
        bool legacy = *at == 0x66 || *at == 0x67 || *at == 0xf0 || *at == 0xf2 || *at == 0xf3 || *at == 0x2e || *at == 0x36 ||
                      *at == 0x3e || *at == 0x26 || *at == 0x64 || *at == 0x65;
        if (!legacy && !(in_64bit_code(e) && (*at & 0xf0) == 0x40))
            break;
    }
    *left = (int)(end - at);
    return at;
}

/* C4 and C5 are VEX, not LES and LDS. */
static bool is_vex(const struct engine *e, const uint8_t *o, int left)
{
    bool flat = in_real_mode(e) || e->core->eflags & 1 << 17;
    return left > 2 && (o[0] == 0xc4 || o[0] == 0xc5) && !flat && (in_64bit_code(e) || o[1] >> 6 == 3);
}

/* A VEX prefix where none belongs. TCG takes one before any instruction (VEX RDTSC shows the host's clock); without AVX only
 * those on general registers have one: map 2, F2 F3 F5 F6 F7 and map 3, F0. */
static bool is_vex_without_use(const struct engine *e, const uint8_t *o, int left)
{
    bool general = left > 3 && o[0] == 0xc4 &&
                   (((o[1] & 31) == 2 && (o[3] == 0xf2 || o[3] == 0xf3 || (o[3] >= 0xf5 && o[3] <= 0xf7))) ||
                    ((o[1] & 31) == 3 && o[3] == 0xf0));
    return is_vex(e, o, left) && !general;
}

bool has_useless_vex(const struct engine *e, const cs_insn *c)
{
    int left;
    const uint8_t *o = opcode_of(e, c->bytes, c->size, &left);
    return is_vex_without_use(e, o, left);
}

/* MOVBE has a form with memory only; TCG takes the other for an access to address 0. F2: CRC32. */
static bool is_movbe_without_memory(const uint8_t *code, const uint8_t *o, int left)
{
    return left > 3 && o[0] == 0x0f && o[1] == 0x38 && (o[2] & 0xfe) == 0xf0 && o[3] >> 6 == 3 &&
           !memchr(code, 0xf2, (size_t)(o - code));
}

/* Of what capstone does not know: instructions that TCG would carry out although the processor has no such. */
bool is_undefined(const struct engine *e, const uint8_t *code, size_t size)
{
    int left;
    const uint8_t *o = opcode_of(e, code, size, &left);
    return has_lock_prefix(code, size, code_bits(e)) || is_vex_without_use(e, o, left) || is_movbe_without_memory(code, o, left);
}

/* MOV Sreg, POP Sreg, LxS: in protected mode their descriptor reads would look like user accesses at CPL 3, and a null
 * SS would raise the CPL. In real and V8086 mode they only set a base; the stack segment's shadow is ours all the same. */
static bool loads_segment(const struct engine *e, const uint8_t *o, int left)
{
    bool flat = in_real_mode(e) || e->core->eflags & 1 << 17;
    bool two = left > 1 && o[0] == 0x0f;
    if (o[0] == 0x8e && left > 1)
        return !flat || (o[1] >> 3 & 7) == SS;
    if (o[0] == 0x17 || (two && o[1] == 0xb2))         /* POP SS, LSS */
        return true;
    bool others = o[0] == 0x07 || o[0] == 0x1f || o[0] == 0xc4 || o[0] == 0xc5 ||
                  (two && (o[1] == 0xa1 || o[1] == 0xa9 || o[1] == 0xb4 || o[1] == 0xb5));
    return others && !flat && !is_vex(e, o, left);
}

/* BT, BTS, BTR, BTC (see translator.c). */
bool begins_block(const struct engine *e, const uint8_t *code, size_t size)
{
    int left;
    const uint8_t *o = opcode_of(e, code, size, &left);
    if (left < 3 || o[0] != 0x0f)
        return false;
    return (o[1] & 0xe7) == 0xa3 || (o[1] == 0xba && o[2] >> 5 & 1);
}

bool is_sensitive(const struct engine *e, const cs_insn *c)
{
    int left;
    const uint8_t *o = opcode_of(e, c->bytes, c->size, &left);
    if (keeps_sensitive(e) && is_replaced(c->id))
        return false;
    switch (c->id) {
    case X86_INS_PUSHF: case X86_INS_PUSHFD: case X86_INS_PUSHFQ: case X86_INS_POPF: case X86_INS_POPFD: case X86_INS_POPFQ:
    case X86_INS_IRET: case X86_INS_IRETD: case X86_INS_IRETQ:
    case X86_INS_PAUSE: case X86_INS_CPUID: case X86_INS_RDTSC: case X86_INS_RDTSCP: case X86_INS_RDRAND: case X86_INS_RDSEED:
    case X86_INS_IN: case X86_INS_OUT: case X86_INS_INSB: case X86_INS_INSW: case X86_INS_INSD:
    case X86_INS_OUTSB: case X86_INS_OUTSW: case X86_INS_OUTSD:
    case X86_INS_SYSCALL: case X86_INS_SYSENTER: case X86_INS_INT1:
    case X86_INS_SGDT: case X86_INS_SIDT: case X86_INS_SLDT: case X86_INS_STR: case X86_INS_SMSW:
    case X86_INS_WRFSBASE: case X86_INS_WRGSBASE: case X86_INS_RDPKRU: case X86_INS_WRPKRU:
        return true;
    case X86_INS_CLI: case X86_INS_STI:                /* with IOPL 3, ring 3 has the interrupt flag */
        return is_deprivileged(e) && e->cpl == 3 && e->iopl == 3;
    case X86_INS_RETF:             /* TCG writes RIP before the second load: Unicorn, which shows that load, sets it back */
        return e->detail.on || (!in_real_mode(e) && !(e->core->eflags & 1 << 17));
    case X86_INS_LCALL: case X86_INS_LJMP: case X86_INS_RETFQ:
    case X86_INS_LAR: case X86_INS_LSL: case X86_INS_VERR: case X86_INS_VERW: case X86_INS_ARPL:
        return !in_real_mode(e) && !(e->core->eflags & 1 << 17);
    case X86_INS_CALL: case X86_INS_JMP:               /* capstone's names for some far forms */
        return left > 1 && o[0] == 0xff && ((o[1] >> 3 & 7) == 3 || (o[1] >> 3 & 7) == 5) && !in_real_mode(e);
    default:
        return left > 0 && (loads_segment(e, o, left) || is_vex_without_use(e, o, left) || has_defect(e, c->bytes, c->size, o, left) ||
                            (left > 2 && has_fragile_flags(c->id, o, o[*o == 0x0f ? 2 : 1])) ||
                            (left == 2 && has_fragile_flags(c->id, o, o[1])));
    }
}
