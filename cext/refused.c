/* A fill that was refused becomes a trap within Unicorn's loop: a page fault need not leave it, and come back.
 *
 * Unicorn has one way for it: it notes an error, asks itself to stop (cpu_exit), and jumps out. Both calls are led here
 * (translator.c). What is refused is then handled as any other trap is, by on_interrupt().
 */
#include "refused.h"
#include "defects.h"
#include "translator.h"

enum { VECTOR_SS = 12, VECTOR_GP = 13 };

/* The error is set for a refused fill, right before these calls, and nowhere else for the page that was refused. */
static bool is_refused_fill(const struct engine *e)
{
    return e && e->refusal.valid && e->invalid_error && *e->invalid_error == UC_ERR_EXCEPTION &&
           (*e->invalid_address & ~0xfffull) == e->refusal.page;
}

void exit_unless_refused(void *cpu)
{
    if (!is_refused_fill(running_engine()))
        lib.internal.exit_cpu(cpu);
}

void leave_loop_unless_refused(void *cpu, uintptr_t caller)
{
    struct engine *e = running_engine();
    if (!is_refused_fill(e))
        lib.internal.leave_loop(cpu, caller);
    *e->invalid_error = UC_ERR_OK;
    lib.internal.raise(e->env, TRAP_REFUSED, 0, caller);
}

/* ---- what becomes of it ---- */

/* Which segment's rules a non-canonical access breaks decides between #SS and #GP. */
static bool through_stack(struct engine *e)
{
    const struct insn *i = decode_at_rip(e);
    if (!i)
        return false;
    if (i->is_memory)
        return i->seg == SS;
    return i->uses_stack;
}

/* An access to the APIC-access page that needs no exit. */
static bool virtualized(struct engine *e)
{
    bool tf = e->guest_tf;
    struct pending access = e->pending;
    const struct insn *i = decode_at_rip(e);
    e->pending = access;
    if (!i || !virtualize_apic_access(e, i))
        return false;
    instruction_done(e, i, tf);
    return true;
}

static void data_refused(struct engine *e, uint64_t linear)
{
    enum access access = e->refusal.access;
    uint64_t hpa;
    const struct insn *i = access == ACCESS_READ ? decode_at_rip(e) : NULL;
    if (i && is_read_modify_write(i)) {    /* the manual checks a read-modify-write as a write; TCG loads first */
        access = ACCESS_WRITE;
        if (!first_page_is_writable(e, i, linear)) {
            resolve_pending(e, NULL);
            return;
        }
    }
    if (!is_canonical(e, linear)) {
        raise_fault(e, through_stack(e) ? VECTOR_SS : VECTOR_GP, 0);
    } else if (e->refusal.page_fault && access == e->refusal.access) {
        e->pending = e->refused;
        e->pending.cr2 = linear;
    } else if (tlb_translate_again(e, linear, access, &hpa)) {
        bool watched = unlikely(e->debug.data) && debug_watches(e, e->refusal.page);
        if (watched || (unlikely(e->watching) && stops_watch_page(e, e->refusal.page, hpa)))
            debug_step_over(e, linear);
        return;
    } else if (e->pending.reason == EXIT_APIC_ACCESS && virtualized(e)) {
        return;
    }
    resolve_pending(e, NULL);
}

static void fetch_refused(struct engine *e, uint64_t linear, const struct block *last)
{
    uint64_t hpa;
    if (e->refusal.lookahead) {
        e->stepping = e->step_fetch = true;
        e->fetch_page = e->refusal.page >> 12;
        e->core->eflags |= 0x100;
        return;
    }
    if (!is_canonical(e, linear)) {
        undo_transfer(e, last);
        raise_fault(e, VECTOR_GP, 0);
    } else if (tlb_translate_again(e, linear, ACCESS_FETCH, &hpa)) {
        return;
    }
    resolve_pending(e, NULL);
}

void handle_refusal(struct engine *e)
{
    bool wide = in_64bit_code(e);
    uint64_t linear = wide ? *e->invalid_address : (uint32_t)*e->invalid_address;
    const struct block *last = e->block;
    if (!wide)
        e->core->rip = (uint32_t)e->core->rip;     /* TCG jumps beyond 32 bits */
    if (e->refusal.access == ACCESS_FETCH)
        finish_block(e);           /* a translation failed: the block before it is complete */
    settle_block(e);
    if (unlikely(e->debug.let_in))
        debug_give_up(e);
    if (e->refusal.own_code)
        step_through_page(e);
    else if (e->refusal.access == ACCESS_FETCH)
        fetch_refused(e, linear, last);
    else if (!e->refusal.overdrawn)
        data_refused(e, linear);
    stops_settle(e);
}
