/* Events through IDT gates: protected mode, V8086 mode, long mode (manual, "INT n/INTO/INT3/INT1"). */
#include "descriptor.h"

struct entry {                     /* where the gate leads, and the frame on the way */
    struct descriptor gate, code, ss;
    struct stack stack;
    unsigned unit;
    int cpl;
    bool inner, new_ss;
};

static bool gate_fault(struct engine *e, const struct delivery *v, int vector)
{
    return raise_fault(e, vector, v->event->vector * 8u + 2 + v->ext);
}

static bool read_gate(struct engine *e, const struct delivery *v, struct descriptor *gate)
{
    const struct core_segment *idt = &core_of(e)->idt;
    uint32_t words[4] = {0}, size = in_long_mode(e) ? 16 : 8, offset = v->event->vector * size;
    if (offset + size - 1 > idt->limit)
        return gate_fault(e, v, FAULT_GP);
    if (!mem_read(e, idt->base + offset, words, size, RIGHTS_SYSTEM))
        return false;
    *gate = (struct descriptor){.low = words[0], .high = words[1], .upper = words[2]};
    return true;
}

static bool is_by_instruction(const struct event *event)
{
    return event->type == EVENT_SOFTWARE_INTERRUPT || event->type == EVENT_SOFTWARE_EXCEPTION;
}

static bool check_gate(struct engine *e, const struct delivery *v, uint32_t high)
{
    const uint32_t wide = 1u << SYS_INT32 | 1u << SYS_TRAP32;
    const uint32_t narrow = 1u << SYS_INT16 | 1u << SYS_TRAP16 | 1u << SYS_TASK_GATE;
    uint32_t types = in_long_mode(e) ? wide : wide | narrow;
    if ((high & DESC_S) || !(types >> system_type(high) & 1))
        return gate_fault(e, v, FAULT_GP);
    if (is_by_instruction(v->event) && dpl_of(high) < guest_cpl(e))
        return gate_fault(e, v, FAULT_GP);
    return high & DESC_P || gate_fault(e, v, FAULT_NP);
}

static bool check_code(struct engine *e, const struct delivery *v, struct entry *n)
{
    uint16_t selector = gate_selector(&n->gate);
    if (is_null(selector))
        return raise_fault(e, FAULT_GP, v->ext);
    if (!read_descriptor(e, selector, FAULT_GP, v->ext, &n->code))
        return false;
    int cpl = guest_cpl(e), dpl = dpl_of(n->code.high);
    bool wrong_size = in_long_mode(e) && (n->code.high & (DESC_L | DESC_B)) != DESC_L;
    bool bad = !is_code(n->code.high) || dpl > cpl || wrong_size;
    n->inner = !is_conforming(n->code.high) && dpl < cpl;
    n->cpl = n->inner ? dpl : cpl;
    if (bad || ((v->flags & FL_VM) && n->cpl != 0))        /* V8086 mode is left for CPL 0 only */
        return selector_fault(e, FAULT_GP, selector, v->ext);
    return n->code.high & DESC_P || selector_fault(e, FAULT_NP, selector, v->ext);
}

static bool choose_long_stack(struct engine *e, const struct delivery *v, struct entry *n)
{
    int ist = (int)n->gate.high & 7;
    if (n->inner || ist) {
        if (!inner_stack_long(e, n->cpl, ist, v->ext, &n->stack))
            return false;
    } else {
        n->stack = flat_stack(core_of(e)->regs[RSP], RIGHTS_CURRENT, v->ext);
    }
    n->stack.sp &= ~15ull;
    return true;
}

static bool choose_stack(struct engine *e, const struct delivery *v, struct entry *n)
{
    if (n->unit == 8)
        return choose_long_stack(e, v, n);
    n->new_ss = n->inner;
    if (n->inner)
        return inner_stack(e, n->cpl, v->ext, &n->ss, &n->stack);
    n->stack = current_stack(e);
    n->stack.error = v->ext;
    return true;
}

static void push_data_segments(struct engine *e, struct frame *f)
{
    static const int order[] = {GS, FS, DS, ES};
    for (int k = 0; k < 4; k++)
        frame_push(f, guest_segment(e, order[k]).selector);
}

static struct frame build_frame(struct engine *e, const struct delivery *v, const struct entry *n)
{
    struct frame f = {.unit = n->unit};
    if (v->flags & FL_VM)
        push_data_segments(e, &f);
    if (n->inner || n->unit == 8) {
        frame_push(&f, guest_segment(e, SS).selector);
        frame_push(&f, core_of(e)->regs[RSP]);
    }
    frame_push(&f, v->flags);
    frame_push(&f, guest_segment(e, CS).selector);
    frame_push(&f, v->rip);
    if (v->event->has_error)
        frame_push(&f, v->event->error);
    return f;
}

static void enter_handler(struct engine *e, const struct delivery *v, const struct entry *n)
{
    bool interrupt_gate = !(system_type(n->gate.high) & 1);
    uint64_t cleared = FL_TF | FL_NT | FL_RF | FL_VM | (interrupt_gate ? FL_IF : 0);
    static const int data[] = {ES, DS, FS, GS};
    set_guest_cpl(e, n->cpl);
    set_guest_rflags(e, guest_rflags(e) & ~cleared);
    if (v->flags & FL_VM)
        for (int k = 0; k < 4; k++)
            set_null(e, data[k], 0, 0);
    if (n->new_ss)
        set_from_descriptor(e, SS, n->ss.selector, &n->ss);
    else if (n->inner)
        set_null(e, SS, (uint16_t)n->cpl, n->cpl);
    core_of(e)->regs[RSP] = n->stack.sp;
    enter_code(e, &n->code, n->cpl, gate_offset(&n->gate, n->unit));
}

bool deliver_through_gate(struct engine *e, const struct delivery *v)
{
    struct entry n = {0};
    if (!read_gate(e, v, &n.gate) || !check_gate(e, v, n.gate.high))
        return false;
    if (system_type(n.gate.high) == SYS_TASK_GATE)
        return switch_task(e, &(struct task_switch){.selector = gate_selector(&n.gate), .source = TASK_BY_IDT_GATE,
                                                    .vector = FAULT_GP, .ext = v->ext});
    n.unit = in_long_mode(e) ? 8 : system_type(n.gate.high) & 8 ? 4 : 2;
    if (!check_code(e, v, &n) || !choose_stack(e, v, &n))
        return false;
    if (!check_target_offset(e, &n.code, gate_offset(&n.gate, n.unit), v->ext) || !mark_accessed(e, &n.code))
        return false;
    struct frame f = build_frame(e, v, &n);
    if ((n.new_ss && !mark_accessed(e, &n.ss)) || !frame_store(e, &n.stack, &f))
        return false;
    enter_handler(e, v, &n);
    return true;
}
