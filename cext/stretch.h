/* Stretches: what is priced together, however blocks are cut (stretch.c). */
#ifndef RING1_STRETCH_H
#define RING1_STRETCH_H

#include "engine.h"

struct block;

/* How far the guest is in a stretch: instructions in a row that are priced together (stretch.c). */
struct stretch {
    uint64_t start, at;            /* linear addresses: of its first instruction, of the next one */
    uint32_t done;                 /* instructions; 0: the next one begins a stretch */
    uint32_t units_at, left;       /* so many instructions from the next one on are priced already: index into engine->units */
    bool in_rep;                   /* the next one is a REP that has done at least one iteration */
};

/* The code of a stretch so far, as it ran: a guest may have written over it since. */
struct trail { uint32_t length, count; uint8_t code[STRETCH_CODE_BYTES], lengths[STRETCH_MOST]; };

/* Forms without a row that blocks were made of. */
struct unknown_costs { uint32_t count; struct unknown_cost form[UNKNOWN_COSTS]; };

/* The REP under way, as far as its iterations cost. */
struct rep {
    uint64_t count;                /* RCX behind the last iteration that was booked or is free */
    uint64_t mask;                 /* of RCX, by address size */
    uint32_t units;                /* to book when it completes */
    uint16_t rate;
    bool begun;                    /* it was left behind at least one iteration */
    bool counts;                   /* `count` is known; before, the first iteration is under way in a block that began earlier */
};

/* pricing.c: after the first `n` instructions of a block: how far the stretch is, and its code */
struct stretch follow(const struct engine *e, struct stretch s, const struct block *b, uint32_t n);
void follow_code(const struct engine *e, struct trail *to, const struct trail *before, uint32_t done, const struct block *b, uint32_t n);
void copy_trail(struct trail *to, const struct trail *from);
void append_to_trail(struct trail *t, const uint8_t *code, const uint8_t *lengths, uint32_t count);
uint32_t bytes_before(const struct engine *e, const struct block *b, uint32_t n);   /* bytes of its first `n` instructions */
void price_block(struct engine *e, struct block *b);
uint64_t price_of(struct engine *e, struct block *b);              /* of running it now, with its REP's first iteration */
void book_block(struct engine *e, struct block *b);
void unbook(struct engine *e, const struct block *b, uint32_t done);
void end_block(struct engine *e);                  /* the running block has run to its end */
void begin_rep(struct engine *e, const struct block *b, bool goes_on);
void count_rep(struct engine *e, struct block *b);
void end_rep(struct engine *e, bool completed, bool iterated);
bool rep_is_due(const struct engine *e);
uint64_t iterations_work(const struct engine *e);                  /* of the REP under way, not yet booked */
uint16_t bulk_kind(const uint8_t *code, size_t size);              /* bulk.c */
void rep_in_bulk(struct engine *e, const struct block *b);
bool goes_on_in_rep(struct engine *e, struct block *b, uint64_t pc);                       /* repturn.c */
bool begins_rep(struct engine *e, struct block *b, uint64_t pc, uint32_t size);
bool runs_behind_rep(struct engine *e, struct block *b);
void settle_rep(struct engine *e, const struct block *b, uint64_t pc, bool ended);
void left_behind(struct engine *e, const struct block *b, uint64_t pc);    /* --timing detailed: it ended, `pc` comes next */
void restore_left(struct engine *e);               /* to where the block before began */
void unretire(struct engine *e, const struct block *b, uint64_t pc);
void settle_block(struct engine *e);               /* un-book what the block has not done, RIP being exact */
void finish_block(struct engine *e);               /* it has run to its end */
void book_emulated(struct engine *e);
void undo_last(struct engine *e, const struct block *b);
void end_stretch(struct engine *e);
void count_delivery(struct engine *e);             /* an event has reached the guest: a stretch begins */
bool tracks_stretch(const struct engine *e);
void take_stretch(struct engine *e, const struct vcpu *v);
void leave_stretch(struct engine *e, struct vcpu *v);
void book_completed(struct engine *e, struct vcpu *v);             /* what software carried out for it: a cycle each */
uint64_t meter_at(const struct engine *e, uint64_t cycles);        /* meter() when the clock will read `cycles` */

#endif
