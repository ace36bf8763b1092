/* Far RET, and what it shares with IRET: checks of the CS and SS that a frame brings back. */
#include "descriptor.h"

bool check_return_code(struct engine *e, uint16_t selector, struct far_return *r)
{
    int rpl = rpl_of(selector);
    if (is_null(selector))
        return raise_fault(e, FAULT_GP, 0);
    if (!read_descriptor(e, selector, FAULT_GP, 0, &r->cs))
        return false;
    int dpl = dpl_of(r->cs.high);
    bool level = is_conforming(r->cs.high) ? dpl <= rpl : dpl == rpl;
    if (!is_code(r->cs.high) || rpl < guest_cpl(e) || !level)
        return selector_fault(e, FAULT_GP, selector, 0);
    if (!(r->cs.high & DESC_P))
        return selector_fault(e, FAULT_NP, selector, 0);
    r->cpl = rpl;
    return check_code_bits(e, &r->cs, 0);
}

bool check_return_stack(struct engine *e, uint16_t selector, struct far_return *r)
{
    int rpl = rpl_of(selector);
    r->ss.selector = selector;
    r->null_ss = is_null(selector);
    if (r->null_ss)
        return (is_64bit_target(e, &r->cs) && r->cpl < 3 && rpl == r->cpl) || raise_fault(e, FAULT_GP, 0);
    if (!read_descriptor(e, selector, FAULT_GP, 0, &r->ss))
        return false;
    if (rpl != r->cpl || dpl_of(r->ss.high) != r->cpl || !is_writable(r->ss.high))
        return selector_fault(e, FAULT_GP, selector, 0);
    return r->ss.high & DESC_P || selector_fault(e, FAULT_SS, selector, 0);
}

bool mark_return(struct engine *e, const struct far_return *r)
{
    return mark_accessed(e, &r->cs) && (!r->outer || r->null_ss || mark_accessed(e, &r->ss));
}

/* Data segments that the outer level may not keep: their selectors become null ("RETURN-TO-OUTER-PRIVILEGE-LEVEL" of
 * RET and IRET names the selector alone), so that FS and GS keep the base that 64-bit code goes by. */
static void drop_inner_segments(struct engine *e, int cpl)
{
    static const int data[] = {ES, DS, FS, GS};
    for (int k = 0; k < 4; k++) {
        struct core_segment s = guest_segment(e, data[k]);
        if ((s.flags & DESC_P) && !is_conforming(s.flags) && dpl_of(s.flags) < cpl)
            set_segment(e, data[k], 0, s.base, s.limit, 0);
    }
}

static uint64_t outer_sp(struct engine *e, const struct far_return *r, uint64_t release)
{
    uint64_t sp = r->rsp + release;
    if (is_64bit_target(e, &r->cs))
        return sp;
    if (r->ss.high & DESC_B)
        return (uint32_t)sp;
    return (core_of(e)->regs[RSP] & ~0xffffull) | (sp & 0xffff);
}

/* `inner_sp` is where the stack pointer goes when the frame holds none; `release`: RET's parameter bytes. */
void do_return(struct engine *e, const struct far_return *r, uint64_t inner_sp, uint64_t release)
{
    bool lowered = r->cpl > guest_cpl(e);
    set_guest_cpl(e, r->cpl);
    core_of(e)->regs[RSP] = r->outer ? outer_sp(e, r, release) : inner_sp;
    if (r->outer && r->null_ss)
        set_null(e, SS, r->ss.selector, r->cpl);
    else if (r->outer)
        set_from_descriptor(e, SS, r->ss.selector, &r->ss);
    if (lowered)
        drop_inner_segments(e, r->cpl);
    enter_code(e, &r->cs, r->cpl, r->rip);
}

static bool return_without_descriptor(struct engine *e, const uint64_t *slots, uint64_t sp)
{
    if (slots[0] > guest_segment(e, CS).limit)
        return raise_fault(e, FAULT_GP, 0);
    set_without_descriptor(e, CS, (uint16_t)slots[1]);
    core_of(e)->rip = slots[0];
    core_of(e)->regs[RSP] = sp;
    transfer_done(e);
    return true;
}

bool op_far_return(struct engine *e, const struct insn *i)
{
    struct far_return r = {0};
    struct stack s = current_stack(e);
    unsigned unit = i->operand_size, release = i->opcode[0] == 0xca ? (uint16_t)i->immediate : 0;
    uint64_t slots[2], outer[2];
    uint64_t inner_sp = moved_sp(&s, 2 * unit + release);
    if (!stack_read(e, &s, 0, slots, 2, unit))
        return false;
    if (in_real_mode(e) || in_v8086(e))
        return return_without_descriptor(e, slots, inner_sp);
    if (!check_return_code(e, (uint16_t)slots[1], &r))
        return false;
    r.rip = slots[0];
    r.outer = r.cpl > guest_cpl(e);
    if (r.outer) {
        if (!stack_read(e, &s, 2 * unit + release, outer, 2, unit) || !check_return_stack(e, (uint16_t)outer[1], &r))
            return false;
        r.rsp = outer[0];
    }
    if (!check_target_offset(e, &r.cs, r.rip, 0) || !mark_return(e, &r))
        return false;
    do_return(e, &r, inner_sp, release);
    transfer_done(e);
    return true;
}
