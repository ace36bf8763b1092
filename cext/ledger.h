/* The ledger: every cycle of the clock under one heading.
 *
 *   guest       instructions: the costs of their blocks
 *   walk        TLB misses and page walks that guest accesses made
 *   exit        VM exits, hardware's part          entry   VM entries, hardware's part
 *   hypervisor  handlers, with their VMREADs and VMWRITEs
 *   device      what a device makes the processor wait for
 *   injection   events on their way into the guest: faults, interrupts, exceptions
 *   steal       (of a virtual CPU) it could have run, and another one did
 *   idle        nobody could run
 *
 * A processor's headings sum to its clock (ledger_check()); its steal is 0. A virtual CPU's are its part of that; what it
 * waited for makes up the rest of the clock (hwmodel/timing/ledger.py).
 */
#ifndef RING1_LEDGER_H
#define RING1_LEDGER_H

#include "engine.h"


/* Let `cycles` pass on this processor, for the virtual CPU that runs, under `heading`. Costs of blocks are not booked one by
 * one: ledger_settle() books what guest time has passed since the last settlement. After a booking in translated code call
 * update_limit(). */
void ledger_book(struct engine *pcpu, enum ledger_heading heading, uint64_t cycles);
/* The same as part of what an exit costs. */
void ledger_book_exit(struct engine *pcpu, enum ledger_heading heading, uint64_t cycles, uint32_t reason);
/* The running block goes beyond the deadline: time has passed in its midst. */
bool is_overdrawn(const struct engine *pcpu);
/* RIP is exact: book the guest's own time up to here. */
void ledger_settle(struct engine *pcpu);
/* The headings sum to the clock, or the program ends here. */
void ledger_check(struct engine *pcpu);

#endif
