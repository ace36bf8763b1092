/* Tour 2.8: between two instructions: which exit or event is due there.
 *
 * Manual, "Priority Among Concurrent Events" and what each VM-execution control says of its own place: INIT, the preemption timer,
 * the NMI window, NMIs, the interrupt window, external interrupts. Debug traps come before all of these, with the
 * instruction that caused them; the monitor trap flag before even those.
 */
#include "state.h"

enum { VECTOR_NMI = 2, IN_HLT = 1 };

static bool by_pin(struct engine *e, uint64_t control) { return *field(e, VMCS_PIN_BASED_VM_EXEC_CONTROL) & control; }
static bool interrupts_enabled(const struct engine *e) { return e->core->eflags & RFLAGS_IF && !events_blocked(e); }

/* ---- the VMX-preemption timer: it counts every cycle ---- */

static bool timer_runs(struct engine *e) { return by_pin(e, PIN_ACTIVATE_VMX_PREEMPTION_TIMER); }

void start_timer(struct engine *e)
{
    struct vcpu *v = e->vcpu;
    if (!timer_runs(e))
        return;
    if (!v->paused)
        v->timer_expires = cycles_now(e) + *field(e, VMCS_VMX_PREEMPTION_TIMER_VALUE);
    uint64_t at = meter_at(e, v->timer_expires);
    e->until = at < e->until ? at : e->until;
}

/* What stopped at its deadline may have stopped at the timer's. */
void stop_timer(struct engine *e)
{
    uint64_t now = cycles_now(e), at = e->vcpu->timer_expires;
    if (!timer_runs(e))
        return;
    if (e->exit.reason == STOP_DEADLINE && now >= at)
        fill_exit(e, EXIT_PREEMPTION_TIMER, 0, 0);
    if (*field(e, VMCS_VM_EXIT_CONTROLS) & VM_EXIT_SAVE_VMX_PREEMPTION_TIMER_VALUE)
        *field(e, VMCS_VMX_PREEMPTION_TIMER_VALUE) = at > now ? at - now : 0;
}

static bool timer_is_due(struct engine *e) { return meter(e) >= e->until && timer_runs(e) && cycles_now(e) >= e->vcpu->timer_expires; }

/* ---- what waits ---- */

static bool nmi_is_due(struct engine *e)
{
    if (!e->line_nmi)
        return false;
    bool virtual = by_pin(e, PIN_VIRTUAL_NMIS), blocked = e->nmi_blocked || in_mov_ss_shadow(e);
    return by_pin(e, PIN_NMI_EXITING) ? virtual || !blocked : !blocked;
}

static bool interrupt_is_due(struct engine *e)
{
    return e->line_busy && (by_pin(e, PIN_EXTERNAL_INTERRUPT_EXITING) || interrupts_enabled(e));
}

static bool window_is_open(struct engine *e, uint64_t window)
{
    if (!exiting(e, window) || events_blocked(e))
        return false;
    return window == PRIMARY_NMI_WINDOW_EXITING ? !e->nmi_blocked : (e->core->eflags & RFLAGS_IF) != 0;
}

enum due { DUE_NOTHING, DUE_INIT, DUE_TIMER, DUE_NMI_WINDOW, DUE_NMI, DUE_INTERRUPT_WINDOW, DUE_VIRTUAL, DUE_INTERRUPT };

static enum due what_is_due(struct engine *e)
{
    if (e->line_init)
        return DUE_INIT;
    if (timer_is_due(e))
        return DUE_TIMER;
    if (window_is_open(e, PRIMARY_NMI_WINDOW_EXITING))
        return DUE_NMI_WINDOW;
    if (nmi_is_due(e))
        return DUE_NMI;
    if (window_is_open(e, PRIMARY_INTERRUPT_WINDOW_EXITING))
        return DUE_INTERRUPT_WINDOW;
    if (e->virtual_pending && interrupts_enabled(e) && !exiting(e, PRIMARY_INTERRUPT_WINDOW_EXITING))
        return DUE_VIRTUAL;
    return interrupt_is_due(e) ? DUE_INTERRUPT : DUE_NOTHING;
}

static void take_nmi(struct engine *e)
{
    struct event nmi = {.type = EVENT_NMI, .vector = VECTOR_NMI};
    e->line_nmi = false;
    if (!by_pin(e, PIN_NMI_EXITING)) {
        inject(e, nmi);
        return;
    }
    fill_exit(e, EXIT_EXCEPTION_NMI, 0, 0);
    e->exit.interruption_info = 1ull << 31 | (uint64_t)EVENT_NMI << 8 | VECTOR_NMI;
}

static void take_interrupt(struct engine *e)
{
    bool acknowledges = *field(e, VMCS_VM_EXIT_CONTROLS) & VM_EXIT_ACKNOWLEDGE_INTERRUPT_ON_EXIT;
    bool exits = by_pin(e, PIN_EXTERNAL_INTERRUPT_EXITING);
    if (exits && is_notification(e, e->line_vector)) {
        e->line_busy = false;
        process_posted(e);
        return;
    }
    e->line_busy = exits && !acknowledges;
    if (!exits) {
        inject(e, (struct event){.type = EVENT_EXTERNAL, .vector = e->line_vector});
        return;
    }
    fill_exit(e, EXIT_EXTERNAL_INTERRUPT, 0, 0);
    if (acknowledges)
        e->exit.interruption_info = 1ull << 31 | e->line_vector;
}

static void take(struct engine *e, enum due due)
{
    switch (due) {
    case DUE_INIT: e->line_init = false, fill_exit(e, EXIT_INIT_SIGNAL, 0, 0); break;
    case DUE_TIMER: fill_exit(e, STOP_DEADLINE, 0, 0); break;      /* stop_timer() names it */
    case DUE_NMI_WINDOW: fill_exit(e, EXIT_NMI_WINDOW, 0, 0); break;
    case DUE_INTERRUPT_WINDOW: fill_exit(e, EXIT_INTERRUPT_WINDOW, 0, 0); break;
    case DUE_NMI: take_nmi(e); break;
    case DUE_VIRTUAL: deliver_virtual_interrupt(e); break;
    case DUE_INTERRUPT: take_interrupt(e); break;
    case DUE_NOTHING: break;
    }
}

/* Before a block, with RIP exact. */
void check_boundary(struct engine *e)
{
    if (e->interrupted)
        stop_at(e, STOP_INTERRUPTED);
    if (what_is_due(e) != DUE_NOTHING)
        leave_block(e, TRAP_DUE);
}

void take_what_is_due(struct engine *e) { take(e, what_is_due(e)); }

bool watches_boundaries(struct engine *e)
{
    const uint64_t windows = PRIMARY_NMI_WINDOW_EXITING | PRIMARY_INTERRUPT_WINDOW_EXITING;
    return e->line_init || e->line_nmi || e->line_busy || e->virtual_pending || (e->vcpu && exiting(e, windows));
}

/* ---- the monitor trap flag ---- */

/* Debug traps of the same instruction stay pending. */
void monitor_trap(struct engine *e, uint64_t debug_cause)
{
    uint64_t enabled = debug_cause & PENDING_BREAKPOINTS ? PENDING_ENABLED_BREAKPOINT : 0;
    *field(e, VMCS_GUEST_PENDING_DBG_EXCEPTIONS) |= debug_cause | enabled;
    fill_exit(e, EXIT_MONITOR_TRAP_FLAG, 0, 0);
}

/* ---- HLT that does not exit ---- */

void halt_guest(struct engine *e) { *field(e, VMCS_GUEST_ACTIVITY_STATE) = IN_HLT; }
bool is_halted(struct engine *e) { return *field(e, VMCS_GUEST_ACTIVITY_STATE) == IN_HLT; }

/* Nothing in this machine comes by itself: time passes until the deadline, or what is due is taken. */
void wait_halted(struct engine *e)
{
    enum due due = what_is_due(e);
    if (e->interrupted) {
        fill_exit(e, STOP_INTERRUPTED, 0, 0);
    } else if (due != DUE_NOTHING) {
        *field(e, VMCS_GUEST_ACTIVITY_STATE) = due == DUE_TIMER || due == DUE_INIT || (due == DUE_INTERRUPT && by_pin(e, PIN_EXTERNAL_INTERRUPT_EXITING)) ||
                                               (due == DUE_NMI && by_pin(e, PIN_NMI_EXITING)) ? IN_HLT : 0;
        take(e, due);
    } else {
        uint64_t rest = e->until > meter(e) ? (e->until >> meter_shift(e)) - guest_cycles(e) : 0;
        ledger_book(e, LEDGER_IDLE, rest);
        fill_exit(e, STOP_DEADLINE, 0, 0);
    }
}

void engine_raise_interrupt(struct engine *e, int vector)
{
    e->line_busy = vector >= 0;
    e->line_vector = (uint8_t)vector;
}

void engine_raise_nmi(struct engine *e) { e->line_nmi = true; }
void engine_raise_init(struct engine *e) { e->line_init = true; }
