/* --timing detailed: every data access and every branch is looked at (detail.c). */
#ifndef RING1_DETAIL_H
#define RING1_DETAIL_H

#include "engine.h"

struct block;
enum { HISTORY_BITS = 12, TARGETS = 1024, RETURNS = 16, STREAMS = 16 };

/* The branch predictor, in one paragraph. Conditional jumps are guessed by gshare: 4096 two-bit counters, chosen by the
 * jump's address exclusive-or the outcomes of the last twelve; they begin weakly not taken. Indirect jumps and calls go
 * where they went last (1024 targets, direct-mapped by address); returns where the newest of sixteen remembered calls
 * came from, in a ring that old calls fall out of. Direct jumps and calls are always known. A wrong guess costs what the CPU model
 * says (`mispredict`); what ends an instruction stream in another way (faults, interrupts, IRET, far transfers) is not guessed. */
struct predictor {
    uint8_t counters[1 << HISTORY_BITS];
    uint64_t from[TARGETS], target[TARGETS], returns[RETURNS];
    uint32_t history, newest;
};

struct detail {
    bool on;
    uint64_t last_line;            /* of the newest access */
    uint64_t late;                 /* cycles lost since the last transfer: booked with the next one */
    uint64_t next_line[STREAMS];   /* what the prefetcher brings in next */
    uint32_t next_stream;
    struct predictor predictor;
    struct detail_counters counters;
};

void detail_access(struct engine *e, uint64_t hpa, uint64_t size, bool stores);    /* without effect if it is off */
void detail_branch(struct engine *e, const struct block *b, uint64_t to);  /* `b` has run to its end, and `to` comes next */
void detail_close(struct engine *e, const struct block *b, uint32_t done); /* book what is late, if a transfer is the last thing done */
void detail_book(struct engine *e);
void detail_forget(struct engine *e);              /* all that it learnt */

#endif
