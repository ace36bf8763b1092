/* Refused TLB fills (refused.c), and what they need of trap.c. */
#ifndef RING1_REFUSED_H
#define RING1_REFUSED_H

#include "state.h"

/* Unicorn's calls of cpu_exit() and cpu_loop_exit_restore() come here. */
void exit_unless_refused(void *cpu);
void leave_loop_unless_refused(void *cpu, uintptr_t caller) __attribute__((noreturn));
void handle_refusal(struct engine *e);

void undo_transfer(struct engine *e, const struct block *b);
void instruction_done(struct engine *e, const struct insn *i, bool tf);

#endif
