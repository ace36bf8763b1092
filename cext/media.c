/* CR0.TS, CR0.EM and CR4.OSFXSR: which instructions they concern.
 *
 * The manual ("Control Registers") exempts what works on general registers: CRC32, POPCNT, MOVNTI, fences, prefetches; MOVBE,
 * BMI and ADX have no #NM at all, and need no OSFXSR. TCG asks for the three before it tells those in the opcode maps 0F 38
 * and 0F 3A from the SSE instructions there: MOVBE was #NM while TS was set, ADCX #UD while OSFXSR was clear. It also lets
 * #NM go before #UD; in the manual's table of the combinations of OSFXSR, EM and TS it is the other way round.
 * So it translates such an instruction with other flags (translator.c), and nothing need be trapped.
 */
#include "state.h"

/* The maps' SSE instructions lie below 80, and AES; INVPCID and its like at 80, general registers from F0. What is not there
 * at all is #UD whatever the flags. */
static bool is_in_general_part(uint8_t opcode) { return opcode >= 0x80 && !(opcode >= 0xdb && opcode <= 0xdf); }

static bool is_general(const uint8_t *o, int left)
{
    if (o[0] == 0xc4)              /* VEX; LES asks for none of the flags */
        return left > 3 && ((o[1] & 31) == 2 || (o[1] & 31) == 3) && is_in_general_part(o[3]);
    bool amd = o[1] == 0x0e || o[1] == 0x0f;           /* 3DNow!: #UD */
    return amd || (left > 2 && (o[1] == 0x38 || o[1] == 0x3a) && is_in_general_part(o[2]));
}

/* Whether TCG wants OSFXSR for it, if it is an MMX or SSE instruction; `prefixed`, `sized`: 66, F2 or F3; 66 before it. */
static bool needs_osfxsr(uint8_t opcode, bool prefixed, bool sized)
{
    if (opcode == 0x38 || opcode == 0x3a)
        return sized;
    return (opcode >= 0x10 && opcode <= 0x5f) || opcode == 0xc2 || opcode == 0xc6 || prefixed;
}

static bool has_prefix(const uint8_t *code, const uint8_t *opcode, uint8_t prefix)
{
    return memchr(code, prefix, (size_t)(opcode - code)) != NULL;
}

/* The flags that TCG is to translate the instruction at `code` with. */
uint64_t media_flags(const struct engine *e, const uint8_t *code, size_t size, uint64_t flags)
{
    int left;
    const uint8_t *o = opcode_of(e, code, size, &left);
    if (left < 2 || (o[0] != 0x0f && o[0] != 0xc4))
        return flags;
    if (is_general(o, left))
        return (flags & ~(uint64_t)(HF_TS | HF_EM)) | HF_OSFXSR;
    if (o[0] != 0x0f || o[1] == 0xae)                  /* FXSAVE and its like: TCG is right */
        return flags;
    bool sized = has_prefix(code, o, 0x66), prefixed = sized || has_prefix(code, o, 0xf2) || has_prefix(code, o, 0xf3);
    bool undefined = flags & HF_EM || (!(flags & HF_OSFXSR) && needs_osfxsr(o[1], prefixed, sized));
    return undefined ? flags & ~(uint64_t)HF_TS : flags;
}
