/* What stops.c and stopexit.c share. */
#ifndef RING1_STOPS_H
#define RING1_STOPS_H

#include "state.h"

enum { LET_IN_MAX = 8, HITS = 1024 };

struct place { uint64_t id, address, size; uint32_t kinds; bool physical; };
struct condition { uint64_t id, count; uint64_t *match, *when; uint32_t match_words, when_words; uint64_t reasons[3]; };

struct stops {
    uint32_t mode;                 /* enum stops_mode */
    uint64_t target;               /* steps */
    uint64_t others;               /* steps that software completed for virtual CPUs and that are not booked yet */
    uint64_t passed;               /* breakpoints at this very step have been seen */
    uint64_t from, to;             /* the block that is being single-stepped towards a breakpoint */
    struct place *code, *data;
    uint32_t code_count, data_count, condition_count;
    struct condition *conditions;
    struct stop_hit noted;         /* an access that is not over yet, or not yet reported */
    uint64_t let_in[LET_IN_MAX];   /* linear pages that stand in Unicorn's TLB for one step */
    uint32_t let_in_count;
    uint64_t total;                /* hits since the stops were armed; the newest HITS of them: */
    struct stop_hit hits[HITS];
};

void *stops_grown(void *list, uint32_t count, size_t size);    /* with room for one more; NULL: no memory */
void stops_record(struct engine *e, struct stop_hit hit);      /* a hit, now */

static inline uint64_t steps_now(const struct engine *e) { return engine_steps(e) + e->stops->others; }

#endif
