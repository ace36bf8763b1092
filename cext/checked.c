/* RDTSC, RDTSCP and PAUSE run in translated code, without a trap of ours: a kernel that waits does little else.
 *
 * TCG's helpers for them ask an intercept check of AMD-V's first; that call is led here (translator.c). What is to exit, or
 * to be single-stepped, becomes the trap that a sensitive instruction is. Then they ask for the time; that call too.
 */
#include "state.h"

enum { SVM_EXIT_RDTSC = 0x6e, SVM_EXIT_PAUSE = 0x77 };     /* AMD-V's intercept codes, as QEMU's helpers pass them */

static bool is_rdtscp(struct engine *e)
{
    const struct insn *i = decode_at_rip(e);
    return i && i->id == X86_INS_RDTSCP;
}

static void before_rdtsc(struct engine *e, uintptr_t caller)
{
    bool refused = !exiting2(e, SECONDARY_ENABLE_RDTSCP) && is_rdtscp(e);
    if (refused || exiting(e, PRIMARY_RDTSC_EXITING) || e->core->hflags & HF_INHIBIT_IRQ)
        lib.internal.raise(e->env, TRAP_SENSITIVE, 0, caller);
}

/* It ends its block, which is booked; the helper would leave Unicorn's loop altogether. */
static void do_pause(struct engine *e, uintptr_t caller)
{
    const struct block *b = e->block;
    bool alone = e->core->eflags & 0x100 || e->core->hflags & HF_INHIBIT_IRQ || !b || !b->total || e->debug.code;
    e->pause_exits = pause_exits(e);
    if (e->pause_exits || alone)
        lib.internal.raise(e->env, TRAP_SENSITIVE, 0, caller);
    e->core->rip = b->real_pc + b->size - (in_64bit_code(e) ? 0 : e->core->segs[CS].base);
    leave_block(e, TRAP_AGAIN);
}

void before_checked(struct engine *e, uint32_t type, uintptr_t caller)
{
    if (type == SVM_EXIT_RDTSC)
        before_rdtsc(e, caller);
    else if (type == SVM_EXIT_PAUSE)
        do_pause(e, caller);
}

/* What the guest reads: its block is booked to the end, and has run to RIP. */
uint64_t tsc_in_block(struct engine *e)
{
    struct block *b = e->block;
    uint64_t booked = e->retired, pc, tsc;
    linear_rip(e, &pc);
    if (b && pc - b->real_pc < b->size)
        unbook(e, b, pc);
    tsc = guest_tsc(e);
    memcpy(e->env + layout.tsc_aux, &e->vcpu->tsc_aux, 4);     /* RDTSCP's helper takes it from there next */
    e->retired = booked;
    return tsc;
}
