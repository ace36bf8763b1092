/* Locks, from the plainest to one that knows of the hypervisor.
 *
 *   tas_lock       test-and-set: whoever is luckiest has it next
 *   ticket_lock    first come, first served: if the next in line does not run, nobody gets on
 *   pv_spinlock    spins for a while if the holder runs, then sleeps; who comes by may have it first, as
 *                  in Linux's paravirtual queued spinlock: an order could name one that does not run
 *   pv_mutex       sleeps at once if it is taken (Drepper's "Futexes Are Tricky", mutex 2)
 *
 * The pv ones want the features WAIT_WAKE (and YIELD) active; with PREEMPTION pages shared the
 * spinlock does not spin for a holder that does not run, and tells the hypervisor that it holds. */
#ifndef PV_LOCKS_H
#define PV_LOCKS_H
#include <stdbool.h>
#include <stdint.h>
#include "pv/native.h"

/* Each acquire says whether it had to wait. */
struct tas_lock { volatile uint32_t taken; };
bool tas_acquire(struct tas_lock *lock);
void tas_release(struct tas_lock *lock);

struct ticket_lock { volatile uint32_t next, owner; };
bool ticket_acquire(struct ticket_lock *lock);
void ticket_release(struct ticket_lock *lock);

/* 0 free, 1 taken, 2 taken and somebody may sleep.  A sleep and a wake-up cost two hypercalls, about as
 * much as so many PAUSEs: whoever spins for no longer loses at most twice what the best choice had cost
 * (Karlin et al., "Empirical Studies of Competitive Spinning", SOSP 1991). */
enum { PV_SPINS = 64 };
struct pv_spinlock { volatile uint32_t state, holder; };
bool pv_acquire(struct pv_spinlock *lock, uint32_t cpu);
void pv_release(struct pv_spinlock *lock, uint32_t cpu);

struct pv_mutex { volatile uint32_t state; };
bool mutex_acquire(struct pv_mutex *lock);
void mutex_release(struct pv_mutex *lock);

/* Whether spinning is done with PAUSE, which a processor with PAUSE-loop exiting notices. */
extern bool spin_pauses;

/* Share the preemption page of the calling processor; `cpu` is its number. */
void turns_share(uint32_t cpu);
extern struct native_preemption turns_page[];
#endif
