/* Far CALL and JMP through call gates: 16- and 32-bit ones, and the 64-bit ones of long mode. */
#include "descriptor.h"

struct passage {
    const struct descriptor *gate;
    struct descriptor code;
    uint64_t offset, next;         /* target; return address */
    unsigned unit;                 /* bytes a stack slot */
};

static bool check_gate(struct engine *e, struct descriptor *gate)
{
    int dpl = dpl_of(gate->high);
    if (dpl < guest_cpl(e) || dpl < rpl_of(gate->selector))
        return selector_fault(e, FAULT_GP, gate->selector, 0);
    if (!(gate->high & DESC_P))
        return selector_fault(e, FAULT_NP, gate->selector, 0);
    return !in_long_mode(e) || read_upper_half(e, FAULT_GP, 0, gate);
}

static bool check_gate_code(struct engine *e, const struct descriptor *code, bool call)
{
    int cpl = guest_cpl(e), dpl = dpl_of(code->high);
    bool reachable = is_code(code->high) && dpl <= cpl && (call || is_conforming(code->high) || dpl == cpl);
    bool wrong_size = in_long_mode(e) && (code->high & (DESC_L | DESC_B)) != DESC_L;
    if (!reachable || wrong_size)
        return selector_fault(e, FAULT_GP, code->selector, 0);
    return code->high & DESC_P || selector_fault(e, FAULT_NP, code->selector, 0);
}

static bool push_parameters(struct engine *e, struct frame *f, unsigned count)
{
    uint64_t slots[MAX_POPPED];
    struct stack old = current_stack(e);
    if (!stack_read(e, &old, 0, slots, count, f->unit))
        return false;
    while (count)
        frame_push(f, slots[--count]);
    return true;
}

static bool build_inner_frame(struct engine *e, const struct passage *p, struct frame *f)
{
    *f = (struct frame){.unit = p->unit};
    frame_push(f, guest_segment(e, SS).selector);
    frame_push(f, core_of(e)->regs[RSP]);
    if (p->unit != 8 && !push_parameters(e, f, p->gate->high & 31))
        return false;
    frame_push(f, guest_segment(e, CS).selector);
    frame_push(f, p->next);
    return true;
}

static bool find_inner_stack(struct engine *e, const struct passage *p, struct descriptor *ss, struct stack *s)
{
    int cpl = dpl_of(p->code.high);
    if (p->unit == 8)
        return inner_stack_long(e, cpl, 0, 0, s);
    return inner_stack(e, cpl, 0, ss, s);
}

static bool call_inner(struct engine *e, const struct passage *p)
{
    struct descriptor ss;
    struct stack s;
    struct frame f;
    int cpl = dpl_of(p->code.high);
    if (!find_inner_stack(e, p, &ss, &s) || !check_target_offset(e, &p->code, p->offset, 0))
        return false;
    if (!build_inner_frame(e, p, &f) || !mark_accessed(e, &p->code))
        return false;
    if ((p->unit != 8 && !mark_accessed(e, &ss)) || !frame_store(e, &s, &f))
        return false;
    set_guest_cpl(e, cpl);
    if (p->unit == 8)
        set_null(e, SS, (uint16_t)cpl, cpl);
    else
        set_from_descriptor(e, SS, ss.selector, &ss);
    core_of(e)->regs[RSP] = s.sp;
    enter_code(e, &p->code, cpl, p->offset);
    return true;
}

static bool go_at_same_level(struct engine *e, const struct passage *p, bool call)
{
    struct frame f = {.unit = p->unit};
    struct stack s = p->unit == 8 ? flat_stack(core_of(e)->regs[RSP], RIGHTS_CURRENT, 0) : current_stack(e);
    frame_push(&f, guest_segment(e, CS).selector);
    frame_push(&f, p->next);
    if (!check_target_offset(e, &p->code, p->offset, 0) || !mark_accessed(e, &p->code))
        return false;
    if (call && !frame_store(e, &s, &f))
        return false;
    enter_code(e, &p->code, guest_cpl(e), p->offset);
    core_of(e)->regs[RSP] = s.sp;
    return true;
}

bool far_through_gate(struct engine *e, const struct insn *i, struct descriptor *gate, bool call)
{
    struct passage p = {.gate = gate, .next = return_address(e, i->length)};
    p.unit = in_long_mode(e) ? 8 : system_type(gate->high) == SYS_CALL32 ? 4 : 2;
    if (!check_gate(e, gate))
        return false;
    p.offset = gate_offset(gate, p.unit);
    if (is_null(gate_selector(gate)))
        return raise_fault(e, FAULT_GP, 0);
    if (!read_descriptor(e, gate_selector(gate), FAULT_GP, 0, &p.code) || !check_gate_code(e, &p.code, call))
        return false;
    bool inner = call && !is_conforming(p.code.high) && dpl_of(p.code.high) < guest_cpl(e);
    if (!(inner ? call_inner(e, &p) : go_at_same_level(e, &p, call)))
        return false;
    transfer_done(e);
    return true;
}
