/* Instructions of 64-bit code that nothing here has to look at: integer arithmetic, moves, near branches. Nine in ten are
 * such; their length is all that is asked, and asking capstone takes as long as translating them. Opcodes: manual, opcode maps.
 */
#include "block.h"

#include <stddef.h>

enum { NONE, BARE, MODRM, MODRM_8, MODRM_Z, IMM_8, IMM_Z, IMM_FULL, GROUP, BRANCH_8, BRANCH_Z, RETURN };

#define ROW(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p
#define ALU MODRM, MODRM, MODRM, MODRM, IMM_8, IMM_Z, NONE, NONE
#define ALL(x) x, x, x, x, x, x, x, x
static const uint8_t one_byte[256] = {
    ALU, ALU, ALU, ALU, ALU, ALU, ALU, ALU,
    ALL(NONE), ALL(NONE), ALL(BARE), ALL(BARE),
    ROW(NONE, NONE, NONE, MODRM, NONE, NONE, NONE, NONE, IMM_Z, MODRM_Z, IMM_8, MODRM_8, NONE, NONE, NONE, NONE),
    ALL(BRANCH_8), ALL(BRANCH_8),
    ROW(MODRM_8, MODRM_Z, NONE, MODRM_8, MODRM, MODRM, MODRM, MODRM, MODRM, MODRM, MODRM, MODRM, NONE, GROUP, NONE, NONE),
    ALL(BARE), ROW(BARE, BARE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE),
    IMM_8, IMM_Z, NONE, NONE, NONE, NONE, NONE, NONE,
    ALL(IMM_8), ALL(IMM_FULL),
    ROW(GROUP, GROUP, NONE, RETURN, NONE, NONE, GROUP, GROUP, NONE, BARE, NONE, NONE, NONE, NONE, NONE, NONE),
    GROUP, GROUP, GROUP, GROUP, NONE, NONE, NONE, NONE, ALL(NONE),
    ALL(NONE), BRANCH_Z, BRANCH_Z, NONE, BRANCH_8, NONE, NONE, NONE, NONE,
    ROW(NONE, NONE, NONE, NONE, NONE, NONE, GROUP, GROUP, NONE, NONE, NONE, NONE, NONE, NONE, GROUP, GROUP),
};

static unsigned two_byte(uint8_t opcode, uint8_t modrm)
{
    switch (opcode >> 4) {
    case 0x4: return MODRM;                            /* CMOVcc */
    case 0x8: return BRANCH_Z;
    case 0x9: return modrm >> 6 == 3 ? MODRM : NONE;   /* SETcc */
    default: break;
    }
    switch (opcode) {
    case 0x1f: return modrm >> 3 & 7 ? NONE : MODRM;   /* NOP */
    case 0xa3: case 0xab: case 0xaf: case 0xb3: case 0xb6: case 0xb7: case 0xbb: case 0xbc: case 0xbd: case 0xbe: case 0xbf: return MODRM;
    case 0xba: return modrm >> 5 & 1 ? MODRM_8 : NONE;
    default: return NONE;
    }
}

/* What the opcode and ModRM's middle field make together. */
static unsigned group(uint8_t opcode, uint8_t modrm)
{
    unsigned reg = modrm >> 3 & 7;
    bool shifts = reg != 6 && (modrm >> 6 == 3 || (reg != 2 && reg != 3));
    switch (opcode) {
    case 0x8d: return modrm >> 6 == 3 ? NONE : MODRM;
    case 0xc0: case 0xc1: return shifts ? MODRM_8 : NONE;
    case 0xd0: case 0xd1: case 0xd2: case 0xd3: return shifts ? MODRM : NONE;
    case 0xc6: return reg ? NONE : MODRM_8;
    case 0xc7: return reg ? NONE : MODRM_Z;
    case 0xf6: return reg == 1 ? NONE : reg ? MODRM : MODRM_8;
    case 0xf7: return reg == 1 ? NONE : reg ? MODRM : MODRM_Z;
    case 0xfe: return reg > 1 ? NONE : MODRM;
    default: return reg == 3 || reg == 5 || reg == 7 ? NONE : MODRM;      /* FF */
    }
}

/* Bytes of ModRM, SIB and displacement. */
static unsigned operand_length(const uint8_t *at)
{
    unsigned mod = *at >> 6, rm = *at & 7;
    if (mod == 3)
        return 1;
    bool sib = rm == 4, wide = mod == 2 || (mod == 0 && (rm == 5 || (sib && (at[1] & 7) == 5)));
    return 1u + sib + (wide ? 4 : mod);
}

static unsigned immediate_length(unsigned form, bool word, bool wide)
{
    switch (form) {
    case IMM_8: case MODRM_8: case BRANCH_8: return 1;
    case IMM_FULL: return wide ? 8 : word ? 2 : 4;
    case IMM_Z: case MODRM_Z: return word && !wide ? 2 : 4;
    case BRANCH_Z: return 4;
    default: return 0;
    }
}

static uint16_t kind_of(unsigned form, uint8_t opcode, uint8_t modrm)
{
    if (form == BRANCH_8 || form == BRANCH_Z || form == RETURN)
        return opcode == 0xe8 ? BLOCK_CALL : BLOCK_JUMP;
    unsigned reg = modrm >> 3 & 7;
    return opcode != 0xff || form != MODRM ? 0 : reg == 2 ? BLOCK_CALL : reg == 4 ? BLOCK_JUMP : 0;
}

unsigned plain_length(const uint8_t *code, size_t size, uint16_t *kind)
{
    const uint8_t *at = code;
    bool word = false, legacy = false;
    uint8_t rex = 0;
    if (size < 15)
        return 0;                  /* whatever may follow is not looked at beyond the end */
    for (; *at == 0x66 || *at == 0x3e || *at == 0x2e || *at == 0x64 || *at == 0x65; at++, legacy = true)
        if (at - code > 3)
            return 0;
        else
            word |= *at == 0x66;
    if ((*at & 0xf0) == 0x40)
        rex = *at++;
    bool two = *at == 0x0f;
    uint8_t opcode = *(at += two), modrm = at[1];
    unsigned form = two ? two_byte(opcode, modrm) : one_byte[opcode];
    if (form == GROUP)
        form = group(opcode, modrm);
    *kind = two && form != BRANCH_Z ? 0 : kind_of(form, opcode, modrm);
    if (form == NONE || (legacy && *kind))
        return 0;
    unsigned operand = form >= MODRM && form <= MODRM_Z ? operand_length(at + 1) : 0;
    unsigned length = (unsigned)(at - code) + 1 + operand + immediate_length(form, word, rex & 8);
    return length > 15 ? 0 : length;
}

int decode_plain(const uint8_t *code, uint64_t size)
{
    uint16_t kind;
    return (int)plain_length(code, size, &kind);
}
