/* Prefixes, opcode, ModRM, SIB and displacement: as much of an instruction as its cost depends on.
 *
 * Manual, "Instruction Format". The length is known already, and with it that the instruction is a valid one.
 */
#include "cost.h"

#include <string.h>

/* One bit an opcode: whether a ModRM byte follows. Manual, opcode maps. */
static const uint32_t modrm_one[8] = {0x0f0f0f0f, 0x0f0f0f0f, 0x00000000, 0x00000a0c, 0x0000ffff, 0x00000000, 0xff0f00f3, 0xc0c00000};
static const uint32_t modrm_two[8] = {0xffffa00f, 0x0000ff0f, 0xffffffff, 0xff7fffff, 0xffff0000, 0xfffff838, 0xffff00ff, 0xffffffff};

static bool follows(const uint32_t *map, uint8_t opcode) { return map[opcode >> 5] >> (opcode & 31) & 1; }

struct reader { const uint8_t *at, *end; };

static uint8_t next(struct reader *r) { return r->at < r->end ? *r->at++ : 0; }

static void read_prefixes(struct reader *r, int bits, struct encoding *e, bool *wide, bool *mandatory_66)
{
    for (; r->at < r->end; r->at++) {
        switch (*r->at) {
        case 0x66: *wide = *mandatory_66 = true; break;
        case 0x67: e->address_size = bits == 64 ? 4 : bits == 32 ? 2 : 4; break;
        case 0xf0: e->lock = true; break;
        case 0xf2: e->prefix = 3; break;
        case 0xf3: e->prefix = 2; break;
        case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: break;
        default: return;
        }
    }
}

/* VEX: only the general-purpose extensions exist here (BMI), in maps 0F 38 and 0F 3A. */
static void read_vex(struct reader *r, struct encoding *e)
{
    static const uint8_t prefixes[4] = {0, 1, 2, 3};
    bool three = next(r) == 0xc4;
    uint8_t first = next(r), last = three ? next(r) : first;
    int map = three ? first & 31 : 1;
    e->rex = (uint8_t)(0x40 | (~first >> 5 & (three ? 7 : 4)) | (three && last & 0x80 ? 8 : 0));
    e->vvvv = ~last >> 3 & 15;
    e->prefix = prefixes[last & 3];
    e->size = e->rex & 8 ? 8 : 4;
    e->map = map == 2 ? 4 : map == 3 ? 5 : 6;
    e->opcode = next(r);
}

static void read_opcode(struct reader *r, struct encoding *e)
{
    e->opcode = next(r);
    if (e->opcode != 0x0f)
        return;
    e->opcode = next(r);
    e->map = e->opcode == 0x38 ? 2 : e->opcode == 0x3a ? 3 : 1;
    if (e->map > 1)
        e->opcode = next(r);
}

static int32_t read_signed(struct reader *r, int bytes)
{
    uint32_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint32_t)next(r) << 8 * i;
    return bytes == 1 ? (int8_t)value : bytes == 2 ? (int16_t)value : (int32_t)value;
}

static void read_operand(struct reader *r, struct encoding *e)
{
    e->modrm = next(r);
    int mod = e->modrm >> 6, rm = e->modrm & 7;
    if (mod == 3)
        return;
    bool narrow = e->address_size == 2;
    if (!narrow && rm == 4)
        e->sib = next(r);
    bool no_base = mod == 0 && (narrow ? rm == 6 : rm == 5 || (rm == 4 && (e->sib & 7) == 5));
    int bytes = mod == 1 ? 1 : mod == 2 || no_base ? (narrow ? 2 : 4) : 0;
    e->displacement = read_signed(r, bytes);
}

void encoding_of(const uint8_t *code, unsigned length, int bits, struct encoding *e)
{
    struct reader r = {code, code + length};
    bool wide = false, mandatory_66 = false;
    *e = (struct encoding){.address_size = bits == 64 ? 8 : bits == 32 ? 4 : 2};
    read_prefixes(&r, bits, e, &wide, &mandatory_66);
    if (bits == 64 && r.at < r.end && *r.at >> 4 == 4)
        e->rex = next(&r);
    e->size = e->rex & 8 ? 8 : wide == (bits == 16) ? 4 : 2;
    bool vex = r.end - r.at > 2 && (*r.at == 0xc4 || *r.at == 0xc5) && (bits == 64 || r.at[1] >> 6 == 3);
    if (vex)
        read_vex(&r, e);
    else
        read_opcode(&r, e);
    e->repeat = e->prefix > 1;
    if (!e->prefix && mandatory_66)
        e->prefix = 1;
    e->has_modrm = e->map > 1 || follows(e->map ? modrm_two : modrm_one, e->opcode);
    if (e->has_modrm)
        read_operand(&r, e);
    int left = (int)(r.end - r.at);
    e->immediate = read_signed(&r, left > 4 ? 4 : left == 3 ? 2 : left);
}
