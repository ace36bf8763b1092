/* Tour 2.3: every way out of translated code, and what it means.
 *
 * A trap is one of: an exception that the guest's instruction raised at CPL 1 or 3, a software interrupt, a sensitive
 * instruction under the code hook, or a refused TLB fill. What the processor resolves alone is resolved here and the
 * guest goes on without leaving Unicorn's loop; what the VMCS controls ask for becomes an exit.
 */
#include "xen.h"
#include "refused.h"
#include "defects.h"

enum { VECTOR_DB = 1, VECTOR_NMI = 2, VECTOR_UD = 6, VECTOR_DF = 8, VECTOR_GP = 13, VECTOR_PF = 14 };

static void forget_exception(struct engine *e)
{
    int32_t none = -1;             /* Unicorn never delivers, so nothing else takes the exception out of flight */
    memcpy(e->env + layout.old_exception, &none, sizeof none);
}

static uint32_t core_word(const struct engine *e, ptrdiff_t offset)
{
    uint32_t value;
    memcpy(&value, e->env + offset, sizeof value);
    return value;
}

static uint64_t event_info(const struct event *ev)
{
    return 1ull << 31 | (ev->has_error ? 1u << 11 : 0) | (uint64_t)ev->type << 8 | ev->vector;
}

static bool is_intercepted(struct engine *e, const struct event *ev)
{
    if (ev->type != EVENT_HARDWARE_EXCEPTION && ev->type < EVENT_PRIVILEGED_SOFTWARE_EXCEPTION)
        return ev->type == EVENT_SOFTWARE_INTERRUPT && is_deprivileged(e);
    uint64_t bitmap = *field(e, VMCS_EXCEPTION_BITMAP);
    if (ev->vector != VECTOR_PF)
        return bitmap >> ev->vector & 1;
    bool match = (ev->error & *field(e, VMCS_PAGE_FAULT_ERROR_CODE_MASK)) == *field(e, VMCS_PAGE_FAULT_ERROR_CODE_MATCH);
    return match == (bitmap >> VECTOR_PF & 1);
}

static void exit_for_exception(struct engine *e, const struct event *ev)
{
    uint64_t qualification = ev->vector == VECTOR_PF ? ev->cr2 : ev->vector == VECTOR_DB ? ev->dr6 : 0;
    fill_exit(e, EXIT_EXCEPTION_NMI, qualification, ev->type >= EVENT_SOFTWARE_INTERRUPT ? ev->instruction_length : 0);
    e->exit.interruption_info = event_info(ev);
    e->exit.interruption_error = ev->has_error ? ev->error : 0;
}

static void exit_for_pending(struct engine *e, const struct event *during)
{
    const struct pending *p = &e->pending;
    fill_exit(e, p->reason, p->qualification, p->instruction_length);
    e->exit.guest_linear = p->guest_linear;
    e->exit.guest_physical = p->guest_physical;
    e->exit.instruction_info = p->instruction_info;
    if (during) {
        e->exit.idt_vectoring_info = event_info(during);
        e->exit.idt_vectoring_error = during->has_error ? during->error : 0;
        if (during->type >= EVENT_SOFTWARE_INTERRUPT)
            e->exit.instruction_length = during->instruction_length;
        if (p->reason == EXIT_APIC_ACCESS)
            e->exit.qualification = apic_access_in_delivery(p->qualification);
    }
}

static bool exits_during(struct engine *e, const struct event *ev, const struct event *first)
{
    if (!is_intercepted(e, ev))
        return false;
    exit_for_exception(e, ev);
    e->exit.idt_vectoring_info = event_info(first);
    e->exit.idt_vectoring_error = first->has_error ? first->error : 0;
    e->exit.instruction_length = first->type >= EVENT_SOFTWARE_INTERRUPT ? first->instruction_length : 0;
    return true;
}

/* Deliver `event`, and what delivering it raises, until the guest has one or an exit is due. */
void inject(struct engine *e, struct event event)
{
    for (;;) {
        e->pending.kind = PENDING_NONE;
        if (deliver_event(e, &event)) {
            e->debug.hits = 0;     /* of the frame's pushes: no #DB for those */
            charge_delivery(e, &event);
            count_delivery(e);
            if (event.type == EVENT_NMI)
                set_nmi_blocking(e, true);
            if (e->mtf)
                monitor_trap(e, 0);
            return;
        }
        if (e->pending.kind == PENDING_EXIT) {
            exit_for_pending(e, &event);
            return;
        }
        struct event next = event_of(&e->pending);
        bool exits = exits_during(e, &next, &event);       /* as it was raised, before it makes a double or a triple fault */
        if (!exits && (exits = !combine_events(&event, &e->pending, &next)))
            fill_exit(e, EXIT_TRIPLE_FAULT, 0, 0);
        if (exits || exits_during(e, &next, &event))
            return;
        event = next;
    }
}

void raise_event(struct engine *e, struct event event)
{
    if (is_intercepted(e, &event))
        exit_for_exception(e, &event);
    else
        inject(e, event);
}

void resolve_pending(struct engine *e, const struct event *during)
{
    e->debug.hits = 0;             /* the instruction did not complete */
    stops_forget_note(e);
    if (e->pending.kind == PENDING_EXIT && (during || !becomes_ve(e)))
        exit_for_pending(e, during);
    else
        raise_event(e, event_of(&e->pending));
}

static void debug_exception(struct engine *e, uint64_t dr6)
{
    raise_event(e, (struct event){.type = EVENT_HARDWARE_EXCEPTION, .vector = VECTOR_DB, .dr6 = dr6});
}

/* MOV SS holds a data breakpoint's trap back until after the next instruction. */
void hold_back(struct engine *e, uint64_t hits)
{
    e->debug.hits = hits;
    e->debug.let_in = e->stepping = true;
    e->core->eflags |= 0x100;
}

/* TF as it is at the end, not at the start, decides after SYSCALL and SYSRET, and where a handler was entered. */
static bool ends_with_new_tf(const struct insn *i)
{
    return i->id == X86_INS_SYSCALL || i->id == X86_INS_SYSRET || i->id == X86_INS_SYSRETQ || i->id == X86_INS_SYSENTER ||
           i->id == X86_INS_INT1;
}

/* An emulated instruction is over: #DB if it was to be single-stepped. */
void instruction_done(struct engine *e, const struct insn *i, bool tf)
{
    charge_instruction(e, i);
    if (i->id == X86_INS_IRET || i->id == X86_INS_IRETD || i->id == X86_INS_IRETQ)
        e->rf_at = e->retired;     /* it may have set RF, for the next instruction */
    e->counters.resolved++;
    if (ends_with_new_tf(i))
        tf = e->guest_tf;
    uint64_t hits = unlikely(e->debug.hits) ? debug_take_hits(e) : 0, cause = hits | (tf ? DR6_BS : 0);
    if (e->mtf && !e->exit_ready)
        monitor_trap(e, cause);
    else if (cause && !e->exit_ready && !in_mov_ss_shadow(e))
        debug_exception(e, cause);
    else if (hits && !e->exit_ready)
        hold_back(e, hits);
}

static void do_sensitive_trap(struct engine *e, const struct insn *i)
{
    bool tf = e->guest_tf;
    if (i && do_sensitive(e, i))
        instruction_done(e, i, tf);
    else
        resolve_pending(e, NULL);
}

/* Bytes of the instruction of block `b` that ends at linear address `end`. */
static uint32_t length_before(const struct engine *e, const struct block *b, uint64_t end)
{
    uint64_t at = b ? b->real_pc : end;
    for (uint32_t n = 0; b && n < b->total && at < end; n++) {
        uint32_t length = length_at(e, b, n);
        at += length;
        if (at == end)
            return length;
    }
    return 2;
}

/* INT n, INT3, INTO: Unicorn has moved RIP past it, but not for INT 6, which it takes for an invalid instruction; the event
 * begins at the instruction. INTO may stand in mid-block. `held`: a trap that MOV SS held back comes at the handler's first. */
static void software_interrupt(struct engine *e, uint8_t vector, const struct block *b, uint64_t held)
{
    uint8_t opcode = 0xcd;
    uint64_t end;
    linear_rip(e, &end);
    const struct insn *i = vector == VECTOR_UD ? decode_at_rip(e) : NULL;
    uint32_t length = i ? i->length : length_before(e, b, end);
    e->core->rip -= i ? 0 : length;
    if (vector == 3 || vector == 4)
        peek_code(e, end - 1, &opcode, 1);
    bool exception = (vector == 3 && opcode == 0xcc) || (vector == 4 && opcode == 0xce);
    if (e->mov_ss_at + 1 == e->retired)
        e->mov_ss_at = e->retired;         /* should it exit: the shadow is still there */
    raise_event(e, (struct event){.type = exception ? EVENT_SOFTWARE_EXCEPTION : EVENT_SOFTWARE_INTERRUPT,
                                  .vector = vector, .instruction_length = length});
    if (unlikely(held) && !e->exit_ready)
        debug_exception(e, held);
    else if (held)
        e->debug.hits = held;
}

static void exception(struct engine *e, uint8_t vector)
{
    if (vector == VECTOR_GP || vector == VECTOR_UD) {
        bool tf = e->guest_tf, known = false;
        const struct insn *i = decode_at_rip(e);
        if (i && do_privileged(e, i, &known) && known) {
            instruction_done(e, i, tf);
            return;
        }
        if (known) {
            resolve_pending(e, NULL);
            return;
        }
    }
    raise_fault(e, vector, core_word(e, layout.error_code));
    resolve_pending(e, NULL);
}

/* TCG has carried out a near RET, JMP or CALL to a non-canonical address; the processor faults at the instruction,
 * before it. Where it stood is known from the block that ended with it. */
void undo_transfer(struct engine *e, const struct block *b)
{
    uint64_t length = b && b->total ? length_at(e, b, b->total - 1u) : 0, target = e->core->rip;
    if (!length)
        return;
    e->core->rip = b->real_pc + b->size - length;
    const struct insn *i = decode_at_rip(e);
    if (i && i->id == X86_INS_RET)
        e->core->regs[RSP] -= 8 + (i->opcode[0] == 0xc2 ? (uint16_t)i->immediate : 0);
    else if (i && i->id == X86_INS_CALL)
        e->core->regs[RSP] += 8;
    else if (!i || i->id != X86_INS_JMP)
        e->core->rip = target;     /* it ran past the end of canonical space */
    if (e->core->rip != target)
        undo_last(e, b);
}

/* A single step is over: the guest's, or ours. RF lasts until a repeated instruction is complete. */
static void stepped(struct engine *e, const struct block *b, uint64_t rep_pc)
{
    uint64_t pc;
    uint64_t cause = debug_take_hits(e) | (e->guest_tf ? DR6_BS : 0);
    linear_rip(e, &pc);
    e->repeats = pc == rep_pc;
    if (!is_canonical(e, pc)) {
        undo_transfer(e, b);
        raise_fault(e, VECTOR_GP, 0);
        resolve_pending(e, NULL);
        return;
    }
    if (pc == rep_pc && e->debug.code) {
        e->core->eflags |= 1 << 16;
        e->rf_at = e->retired;
    }
    if (e->mtf)
        monitor_trap(e, cause);
    else if (cause)
        debug_exception(e, cause);
}

/* TCG gave up on the block at RIP. One by one its instructions show which it is; that one is invalid. */
static void untranslatable(struct engine *e)
{
    if (!(e->core->eflags & 0x100)) {
        step_through_page(e);
        return;
    }
    raise_fault(e, VECTOR_UD, 0);
    resolve_pending(e, NULL);
}

static void dispatch(struct engine *e, uint32_t vector)
{
    struct block *b = e->block;
    uint64_t rep = e->rep_pc;
    bool software = vector < 256 && core_word(e, layout.is_software) == 1;
    if (vector == VECTOR_DB || vector == TRAP_UNTRANSLATABLE)      /* the block has run to its end */
        finish_block(e);
    settle_block(e);
    uint64_t held = software ? e->debug.hits : 0;  /* by MOV SS: nothing else has hits before INT n */
    if (unlikely(held) && is_xen(e))
        e->debug.hits = held = 0;  /* it comes within Xen, which drops it (xen/arch/x86/traps.c, do_debug) */
    if (unlikely(e->debug.let_in) && vector != VECTOR_DB)
        debug_give_up(e);
    if (vector == TRAP_SENSITIVE)
        do_sensitive_trap(e, decode_at_rip(e));
    else if (software)
        software_interrupt(e, (uint8_t)vector, b, held);
    else if (vector == TRAP_UNTRANSLATABLE)
        untranslatable(e);
    else if (vector == TRAP_DUE)
        take_what_is_due(e);
    else if (vector == TRAP_BREAKPOINT)
        debug_exception(e, debug_take_hits(e));
    else if (vector != VECTOR_DB)
        exception(e, (uint8_t)vector);
    else
        stepped(e, b, rep);
}

/* The same for the instruction under the code hook, without a trap (hooked.c). */
void carry_out(struct engine *e, const struct insn *i)
{
    e->repeats = false;
    settle_block(e);
    if (unlikely(e->debug.let_in))
        debug_give_up(e);
    do_sensitive_trap(e, i);
    stops_settle(e);
    check_progress(e);
}

void on_interrupt(uc_engine *uc, uint32_t vector, void *data)
{
    struct engine *e = data;
    forget_exception(e);
    if (vector == TRAP_REFUSED) {
        handle_refusal(e);
        if (!e->exit_ready && is_due(e))      /* no block may come to look: its first fetch may fault again */
            fill_exit(e, STOP_DEADLINE, 0, 0);
    } else if (vector != TRAP_AGAIN && vector != TRAP_STOP) {
        e->repeats = false;
        dispatch(e, vector);
        stops_settle(e);
    }
    e->refusal.valid = false;
    check_progress(e);
    if (e->exit_ready || is_halted(e) || blocks_nearly_full(e))
        lib.uc_emu_stop(uc);
    update_limit(e);
}

bool on_invalid(uc_engine *uc, void *data)
{
    on_interrupt(uc, VECTOR_UD, data);
    return true;
}
