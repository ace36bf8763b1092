/* Tour 2.5: an event reaches the guest. Unicorn never delivers one; this file does, or says what stopped it.
 *
 * Here: what goes on before any table is read, the modes without gates (real mode; V8086 mode with
 * redirection), and what a fault on the way becomes. Gates are in interrupt.c.
 */
#include "descriptor.h"
#include "xen.h"

enum { VECTOR_DEBUG = 1, VECTOR_DOUBLE_FAULT = 8, VECTOR_PAGE_FAULT = 14 };

static bool is_hardware_exception(const struct event *event) { return event->type == EVENT_HARDWARE_EXCEPTION; }

/* CR2, DR6 and DR7 change when delivery begins, whatever becomes of it. */
static void show_cause(struct engine *e, const struct event *event)
{
    struct vcpu *v = vcpu_of(e);
    if (!is_hardware_exception(event))
        return;
    /* A double fault that a page fault was part of leaves that one's address (combine_events() passes it on). */
    if (event->vector == VECTOR_PAGE_FAULT || (event->vector == VECTOR_DOUBLE_FAULT && event->cr2))
        v->cr2 = core_of(e)->cr[2] = event->cr2;
    if (event->vector == VECTOR_DEBUG) {
        v->dr6 = (event->dr6 ? v->dr6 & ~0xfull : v->dr6) | event->dr6;    /* of all bits, B0 to B3 alone are cleared too */
        v->field[VMCS_GUEST_DR7] &= ~DR7_GD;
    }
}

/* Manual, "Effects of exceptions on RF": fault-class exceptions push RF = 1, except #DB for a code breakpoint. */
static uint64_t pushed_flags(struct engine *e, const struct event *event)
{
    const uint32_t not_faults = 1u << 1 | 1u << 2 | 1u << 3 | 1u << 4 | 1u << 8 | 1u << 18;
    uint64_t flags = guest_rflags(e);
    if (event->type >= EVENT_SOFTWARE_INTERRUPT)
        return flags & ~(uint64_t)FL_RF;
    if (!is_hardware_exception(event))
        return flags;
    bool general_detect = event->vector == VECTOR_DEBUG && (event->dr6 & DR6_BD);
    bool fault = general_detect || event->vector > 31 || !(not_faults >> event->vector & 1);
    return fault ? flags | FL_RF : flags;
}

/* Through the table of far pointers at `table`, with `flags` on the stack. */
static bool deliver_8086(struct engine *e, const struct delivery *v, uint64_t table, enum rights rights, uint64_t flags)
{
    uint16_t pointer[2];
    struct frame f = {.unit = 2};
    struct stack s = current_stack(e);
    if (!mem_read(e, table + v->event->vector * 4u, pointer, sizeof pointer, rights))
        return false;
    if (pointer[0] > guest_segment(e, CS).limit)
        return raise_fault(e, FAULT_GP, 0);
    frame_push(&f, flags);
    frame_push(&f, guest_segment(e, CS).selector);
    frame_push(&f, v->rip);
    if (!frame_store(e, &s, &f))
        return false;
    set_without_descriptor(e, CS, pointer[1]);
    core_of(e)->rip = pointer[0];
    core_of(e)->regs[RSP] = s.sp;
    return true;
}

static bool deliver_in_real_mode(struct engine *e, const struct delivery *v)
{
    const struct core_segment *idt = &core_of(e)->idt;
    if (v->event->vector * 4u + 3 > idt->limit)
        return raise_fault(e, FAULT_GP, 0);
    if (!deliver_8086(e, v, idt->base, RIGHTS_SYSTEM, v->flags))
        return false;
    set_guest_rflags(e, guest_rflags(e) & ~(uint64_t)(FL_IF | FL_TF | FL_AC | FL_RF));
    return true;
}

/* Manual, "Interrupt and Exception Handling in Virtual-8086 Mode", methods 5 and 6: the program's own handler. */
static bool deliver_redirected(struct engine *e, const struct delivery *v)
{
    uint64_t flags = v->flags;
    bool trusted = (flags & FL_IOPL) == FL_IOPL;
    uint64_t cleared = FL_TF | FL_RF | (trusted ? FL_IF : FL_VIF);
    if (!trusted)                  /* the program sees its virtual flag as IF, and IOPL 3 */
        flags = (flags & ~(uint64_t)FL_IF) | FL_IOPL | (flags & FL_VIF ? FL_IF : 0);
    if (!deliver_8086(e, v, 0, RIGHTS_CURRENT, flags))
        return false;
    set_guest_rflags(e, guest_rflags(e) & ~cleared);
    return true;
}

static bool deliver_software_in_v8086(struct engine *e, const struct delivery *v)
{
    bool redirected = false;
    if ((core_of(e)->cr[4] & CR4_VME) && !is_redirected_to_8086(e, v->event->vector, &redirected))
        return false;
    if (redirected)
        return deliver_redirected(e, v);
    if ((v->flags & FL_IOPL) != FL_IOPL)
        return raise_fault(e, FAULT_GP, 0);
    return deliver_through_gate(e, v);
}

static bool is_external_to_program(const struct event *event)
{
    return event->type != EVENT_SOFTWARE_INTERRUPT && event->type != EVENT_SOFTWARE_EXCEPTION;
}

static bool deliver_by_mode(struct engine *e, const struct delivery *v)
{
    if (in_real_mode(e))
        return deliver_in_real_mode(e, v);
    if (in_v8086(e) && v->event->type == EVENT_SOFTWARE_INTERRUPT)
        return deliver_software_in_v8086(e, v);
    return deliver_through_gate(e, v);
}

bool deliver_event(struct engine *e, const struct event *event)
{
    if (is_xen(e))
        return xen_deliver(e, event);
    bool by_instruction = event->type >= EVENT_SOFTWARE_INTERRUPT;
    struct delivery v = {
        .event = event,
        .ext = is_external_to_program(event),
        .rip = by_instruction ? return_address(e, event->instruction_length) : core_of(e)->rip,
        .flags = pushed_flags(e, event),
    };
    show_cause(e, event);
    if (!deliver_by_mode(e, &v))
        return false;
    clear_event_shadow(e);
    return true;
}

enum exception_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

/* Manual, "Interrupt and Exception Classes". */
static enum exception_class class_of(unsigned vector)
{
    switch (vector) {
    case 0: case 10: case 11: case 12: case 13: case 21: return CONTRIBUTORY;
    case VECTOR_PAGE_FAULT: case 20: return PAGE_FAULT;
    case VECTOR_DOUBLE_FAULT: return DOUBLE_FAULT;
    default: return BENIGN;
    }
}

struct event event_of(const struct pending *p)
{
    return (struct event){.type = EVENT_HARDWARE_EXCEPTION, .vector = p->vector, .has_error = p->has_error,
                          .error = p->error, .cr2 = p->cr2, .dr6 = p->dr6};
}

bool combine_events(const struct event *first, const struct pending *second, struct event *next)
{
    enum exception_class before = is_hardware_exception(first) ? class_of(first->vector) : BENIGN;
    enum exception_class after = class_of(second->vector);
    *next = event_of(second);
    bool serious = after != BENIGN;
    if (before == DOUBLE_FAULT && serious)
        return false;
    bool doubled = (before == CONTRIBUTORY && after == CONTRIBUTORY) || (before == PAGE_FAULT && serious);
    if (doubled)
        *next = (struct event){.type = EVENT_HARDWARE_EXCEPTION, .vector = VECTOR_DOUBLE_FAULT, .has_error = true,
                               .cr2 = after == PAGE_FAULT ? second->cr2 : 0};
    return true;
}
