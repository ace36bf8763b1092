/* Costs of instructions in a row: front end, ports, dependency chain (see cost.h). */
#include "cost.h"
#include "engine.h"

#include <string.h>

static bool transfers(const struct encoding *e)
{
    if (e->map == 1)
        return (e->opcode >= 0x80 && e->opcode <= 0x8f) || e->opcode == 0x05 || e->opcode == 0x07 || e->opcode == 0x34 || e->opcode == 0x35;
    if (e->map)
        return false;
    switch (e->opcode) {
    case 0x9a: case 0xc2: case 0xc3: case 0xca: case 0xcb: case 0xcc: case 0xcd: case 0xce: case 0xcf:
    case 0xe0: case 0xe1: case 0xe2: case 0xe3: case 0xe8: case 0xe9: case 0xea: case 0xeb: return true;
    case 0xff: return (e->modrm >> 3 & 7) >= 2 && (e->modrm >> 3 & 7) <= 5;
    default: return e->opcode >= 0x70 && e->opcode <= 0x7f;
    }
}

static bool is_repeated(const struct encoding *e)
{
    bool string = (e->opcode >= 0xa4 && e->opcode <= 0xa7) || (e->opcode >= 0xaa && e->opcode <= 0xaf) || (e->opcode >= 0x6c && e->opcode <= 0x6f);
    return !e->map && e->repeat && string;
}

void cost_begin(struct cost_run *r, const struct cost_table *table, int bits, uint64_t start)
{
    *r = (struct cost_run){.table = table, .bits = bits, .start = start, .at = start};
}

struct cost cost_add(struct cost_run *r, const uint8_t *code, unsigned length)
{
    struct encoding e;
    encoding_of(code, length, r->bits, &e);
    bool crosses = r->at >> 12 != (r->at + length) >> 12;
    r->at += length;
    r->done++;
    struct cost c = {.units = COST_UNIT / 4, .address_size = e.address_size, .last = crosses || transfers(&e) || is_repeated(&e)};
    if (is_repeated(&e))
        c = (struct cost){.units = 20 * COST_UNIT, .last = true, .rate = COST_UNIT, .address_size = e.address_size};
    r->units += c.units;
    return c;
}

/* ---- tables ---- */

struct cost_table { const char *name; };
static const struct cost_table tables[] = {{"cascade-lake"}};

const struct cost_table *cost_table(const char *name)
{
    for (unsigned i = 0; i < sizeof tables / sizeof *tables; i++)
        if (!strcmp(tables[i].name, name))
            return &tables[i];
    return NULL;
}

const char *cost_table_name(int index) { return index >= 0 && (unsigned)index < sizeof tables / sizeof *tables ? tables[index].name : NULL; }
