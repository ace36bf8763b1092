/* What stops a guest for someone who looks: its own debug registers, and a debugger's breakpoints and watchpoints. */
#ifndef RING1_WATCHED_H
#define RING1_WATCHED_H

#include "engine.h"

/* debugreg.c: ask only where e->debug has a bit set */
void debug_changed(struct engine *e);
uint64_t debug_before_block(struct engine *e, uint64_t pc, uint64_t size, bool repeats);   /* bits for DR6: #DB comes first */
bool debug_watches(const struct engine *e, uint64_t page);
void debug_step_over(struct engine *e, uint64_t linear);
void debug_note(struct engine *e, uint64_t linear, uint64_t size, bool writes);
void debug_note_port(struct engine *e, uint32_t port, uint32_t size);
uint64_t debug_take_hits(struct engine *e);
void debug_give_up(struct engine *e);

/* stops.c */
bool stops_create(struct engine *e);
void stops_destroy(struct engine *e);
uint64_t stops_limit(const struct engine *e);
uint64_t target_left(const struct engine *e);      /* instructions */
bool stops_within(struct engine *e, uint64_t pc, uint64_t size);
void stops_before_block(struct engine *e, uint64_t pc, uint64_t size);
bool stops_watch_page(const struct engine *e, uint64_t linear, uint64_t hpa);
void stops_note(struct engine *e, uint64_t linear, uint64_t size, bool writes);
void stops_note_physical(struct engine *e, uint64_t hpa, uint64_t size);
void stops_let_in(struct engine *e, uint64_t linear, uint64_t size);
void stops_let_out(struct engine *e);
void stops_forget_noted(struct engine *e);
void stops_settle_noted(struct engine *e);
bool stops_at_exit(struct engine *e);

/* Nothing is noted where no memory is watched: these stand in the way of every trap. */
static inline void stops_forget_note(struct engine *e)
{
    if (unlikely(e->watching))
        stops_forget_noted(e);
}

static inline void stops_settle(struct engine *e)
{
    if (unlikely(e->watching))
        stops_settle_noted(e);
}

#endif
