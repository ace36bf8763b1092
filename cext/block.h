/* What is known of a translated block (block.c). */
#ifndef RING1_BLOCK_H
#define RING1_BLOCK_H

#include "engine.h"

/* One translated block. Unicorn bakes the record's address into the block (block.c), so its hook needs no search. */
struct block {
    uint64_t pc;                   /* linear; UNSEEN or SLOW make the hook take the slow way */
    struct engine *engine;
    uint32_t counted;              /* instructions to book on entry (a trailing REP is booked when it completes) */
    uint32_t lengths;              /* index into engine->lengths: instruction lengths, for faults in mid-block */
    uint16_t total, size;          /* instructions, bytes */
    uint16_t flags;                /* BLOCK_* */
    uint16_t sensitive;            /* offset of the first instruction that must trap */
    uint64_t real_pc;              /* the block's linear address, also when pc is SLOW */
    uint32_t work;                 /* what `counted` instructions cost, as the start of a stretch; 1/64 cycle */
    uint16_t rate;                 /* a trailing REP: units an iteration, for each but the first */
    uint8_t address_size;          /* of the last instruction, bytes */
    uint8_t quick;                 /* what stands at `sensitive`, if it needs no decoding (hooked.c) */
    uint8_t carried_done;          /* the same where it goes on with a stretch of so many instructions: 0 not yet known, */
    uint32_t carried_code, carried_at, carried_work;   /* of that code (a hash): index of the units; of all instructions */
    uint32_t code;                 /* index into engine->codes: its bytes, when it is priced */
};
enum { BLOCK_REP = 1, BLOCK_SENSITIVE = 2, BLOCK_SCANNED = 4, BLOCK_SECOND_TRY = 8, BLOCK_CALL = 16, BLOCK_JUMP = 32,
       BLOCK_REPLACED = 64, BLOCK_STOP = 128, BLOCK_PRICED = 256, BLOCK_OPEN = 512,
       BLOCK_STOS = 1024, BLOCK_MOVS = 2048, BULK_SHIFT = 12 };    /* OPEN: its end is not the end of a stretch */

/* Bytes of the instruction, if it is one that nobody has to look at, and what kind of end it makes; else 0 (plain.c). */
unsigned plain_length(const uint8_t *code, size_t size, uint16_t *kind);

#endif
