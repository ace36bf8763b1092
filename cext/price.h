/* What events cost beyond the instructions themselves: walks, deliveries, exits, entries, handlers. The figures are the CPU
 * model's (hwmodel/arch/models); --timing fast has none, but that a delivery takes a cycle.
 *
 * Only modelled events cost anything. Unicorn's own TLB is refilled at times that host time decides; such a refill finds its
 * answer in the modelled TLB and is free. What software looks at on the side is free as well, and leaves nothing behind.
 */
#ifndef RING1_PRICE_H
#define RING1_PRICE_H

#include "engine.h"

enum { LINE_LEVELS = 3 };

/* A cache as far as the page walker sees it: lines of page tables, the newest of a set first. */
struct line_level {
    uint64_t *lines;               /* line number + 1; 0: empty */
    uint32_t sets, ways;
};

struct price {
    struct event_costs costs;
    bool on;
    bool injects;                  /* the event on its way was put there by software */
    bool paid;                     /* the walk to come has been made already, to find that it faults */
    uint64_t spent;                /* cycles of the walk under way */
    struct line_level levels[LINE_LEVELS];
    uint64_t near_from, near_to;   /* machine memory of this processor's node */
    uint32_t far;                  /* cycles more for other memory; 0: all is near */
};

void price_create(struct engine *e);
void price_destroy(struct engine *e);
uint32_t line_level_of(struct price *p, uint64_t line);            /* where a line is found: 0 first level, LINE_LEVELS memory */
void forget_lines(struct engine *e);

/* Walks: begin, each reference and each hit of what walks remember, end. */
void begin_walk(struct engine *e);
void price_reference(struct engine *e, uint64_t hpa);
void price_hit(struct engine *e, uint64_t cycles);
void charge_walk(struct engine *e);
/* The access that needed the walk: its own memory may be another node's. */
void charge_distance(struct engine *e, uint64_t hpa);
/* A page that only the second level of the TLB holds. */
void charge_level2(struct engine *e);

/* Events. */
void charge_delivery(struct engine *e, const struct event *event);
void charge_instruction(struct engine *e, const struct insn *i);   /* that the engine has carried out */
void charge_injection(struct engine *e);           /* an entry brings an event; until price.injects is reset */
void charge_exit(struct engine *e);                /* with its handler */
void charge_entry(struct engine *e);

#endif
