/* Tour 2.14: what instructions cost: the arithmetic of --timing cycle. Knows no engine and no guest. */
#ifndef RING1_COST_H
#define RING1_COST_H

#include <stdbool.h>
#include <stdint.h>

/* Costs are kept in sixty-fourths of a cycle: short blocks take fractions of one. */
enum { COST_SHIFT = 6, COST_UNIT = 1 << COST_SHIFT };
enum { STRETCH_MOST = 64, STRETCH_CODE_BYTES = STRETCH_MOST * 15 };        /* instructions */

/* No instruction costs less, so many cycles bound the instructions that they hold. */
enum { COST_LEAST = 4 };

/* An instruction taken apart as far as its cost needs it. */
struct encoding {
    uint8_t map;                   /* 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A, 4 and 5: the last two under VEX, 6: none that we know */
    uint8_t prefix;                /* 0 none, 1 66, 2 F3, 3 F2 */
    uint8_t opcode;
    uint8_t size;                  /* operand size by prefixes and mode: 2, 4 or 8 bytes */
    uint8_t address_size;          /* bytes */
    uint8_t rex, vvvv;
    bool has_modrm, lock, repeat;  /* repeat: F2 or F3 */
    uint8_t modrm, sib;
    int32_t displacement;
    int64_t immediate;             /* of a relative jump: signed */
};
void encoding_of(const uint8_t *code, unsigned length, int bits, struct encoding *to);

/* Registers and flags that instructions wait for; bit n of a mask. */
enum { FLOW_GPR, FLOW_XMM = 16, FLOW_MMX = 32, FLOW_FLAGS = 40, FLOW_X87, FLOW_COUNT };

/* One instruction of a stretch, as far as values flow through it. */
struct flow_step {
    uint64_t reads, writes;
    uint64_t address_reads;
    int32_t displacement;
    uint16_t latency;              /* behind the operands, cycles */
    uint8_t base, index, scale;    /* 16: none */
    bool loads, stores, vector, pushes, pops;
};

enum { FLOW_PLACES = 8 };
struct flow {
    uint32_t ready[FLOW_COUNT];    /* when each value is there, cycles */
    uint32_t begun;                /* when the last instruction that others may wait for began, and a cycle */
    uint16_t version[16];          /* counts writes of general registers: addresses are compared by it */
    int32_t stack;                 /* what pushes and pops added to RSP */
    struct { uint64_t key; uint32_t ready; } place[FLOW_PLACES];    /* stores that loads may find */
    uint8_t next_place;
};

/* The running cost of a stretch: instructions in a row, from where control came in. */
struct cost_table;
enum { COST_CANDIDATES = 62 };
struct cost_run {
    const struct cost_table *table;
    uint64_t start, at;            /* linear addresses: of the first instruction, of the next */
    uint32_t done;                 /* instructions */
    uint32_t units;                /* what they cost so far */
    uint32_t uops, alone;          /* front end: micro-operations; units in which nothing else runs */
    uint32_t load[COST_CANDIDATES];    /* units, by set of ports */
    int bits;
    bool may_fuse;                 /* the last instruction, with a conditional jump */
    struct flow flow;
    struct flow_step step[STRETCH_MOST];
};
struct cost {
    uint16_t units;
    bool last;                     /* the stretch ends with it */
    bool transfers;                /* so does any translation: it goes elsewhere, or to another page */
    uint16_t unknown;              /* there is no row for it: its map and opcode, else 0 */
    uint8_t address_size;          /* bytes */
    uint16_t rate;                 /* a repeated string instruction: units an iteration, for each but the first */
};
const struct cost_table *cost_table(const char *name);        /* NULL: none of that name */
void cost_begin(struct cost_run *r, const struct cost_table *table, int bits, uint64_t start);
struct cost cost_add(struct cost_run *r, const uint8_t *code, unsigned length);

#endif
