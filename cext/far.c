/* Far CALL and JMP. Their call gates are in gate.c, the returns in return.c and iret.c. */
#include "descriptor.h"

bool is_64bit_target(struct engine *e, const struct descriptor *code)
{
    return in_long_mode(e) && (code->high & DESC_L);
}

bool check_code_bits(struct engine *e, const struct descriptor *code, uint32_t ext)
{
    bool impossible = is_64bit_target(e, code) && (code->high & DESC_B);
    return !impossible || selector_fault(e, FAULT_GP, code->selector, ext);
}

bool check_target_offset(struct engine *e, const struct descriptor *code, uint64_t offset, uint32_t ext)
{
    bool inside = is_64bit_target(e, code) ? is_canonical(e, offset) : offset <= limit_of(code);
    return inside || raise_fault(e, FAULT_GP, ext);
}

void enter_code(struct engine *e, const struct descriptor *code, int cpl, uint64_t offset)
{
    set_from_descriptor(e, CS, with_rpl(code->selector, cpl), code);
    core_of(e)->rip = offset;
}

/* RF does not survive an instruction, nor does the shadow of STI or MOV SS. */
void transfer_done(struct engine *e)
{
    uint64_t flags = guest_rflags(e);
    if (flags & FL_RF)
        set_guest_rflags(e, flags & ~(uint64_t)FL_RF);
    clear_event_shadow(e);
}

uint64_t return_address(struct engine *e, unsigned length)
{
    uint64_t next = core_of(e)->rip + length;
    int bits = code_bits(e);
    return bits == 64 ? next : bits == 32 ? (uint32_t)next : (uint16_t)next;
}

/* Push the address of the next instruction on the current stack, whose pointer goes to *sp. */
static bool push_return(struct engine *e, const struct insn *i, uint64_t *sp)
{
    struct frame f = {.unit = i->operand_size};
    struct stack s = current_stack(e);
    frame_push(&f, guest_segment(e, CS).selector);
    frame_push(&f, return_address(e, i->length));
    if (!frame_store(e, &s, &f))
        return false;
    *sp = s.sp;
    return true;
}

static bool far_without_descriptor(struct engine *e, const struct insn *i, uint16_t selector, uint64_t offset, bool call)
{
    uint64_t sp = core_of(e)->regs[RSP];
    if (offset > guest_segment(e, CS).limit)
        return raise_fault(e, FAULT_GP, 0);
    if (call && !push_return(e, i, &sp))
        return false;
    set_without_descriptor(e, CS, selector);
    core_of(e)->rip = offset;
    core_of(e)->regs[RSP] = sp;
    transfer_done(e);
    return true;
}

static bool check_direct(struct engine *e, const struct descriptor *code)
{
    int cpl = guest_cpl(e), dpl = dpl_of(code->high);
    bool allowed = is_conforming(code->high) ? dpl <= cpl : dpl == cpl && rpl_of(code->selector) <= cpl;
    if (!allowed)
        return selector_fault(e, FAULT_GP, code->selector, 0);
    if (!check_code_bits(e, code, 0))
        return false;
    return code->high & DESC_P || selector_fault(e, FAULT_NP, code->selector, 0);
}

static bool far_direct(struct engine *e, const struct insn *i, const struct descriptor *code, uint64_t offset, bool call)
{
    uint64_t sp = core_of(e)->regs[RSP];
    if (!check_direct(e, code) || !check_target_offset(e, code, offset, 0) || !mark_accessed(e, code))
        return false;
    if (call && !push_return(e, i, &sp))
        return false;
    enter_code(e, code, guest_cpl(e), offset);
    core_of(e)->regs[RSP] = sp;
    transfer_done(e);
    return true;
}

/* Task gates and TSSs: privilege and presence here, the TSS itself in switch_task(). */
static bool far_to_task(struct engine *e, const struct insn *i, const struct descriptor *d, bool call)
{
    int dpl = dpl_of(d->high);
    bool gate = system_type(d->high) == SYS_TASK_GATE;
    if (dpl < guest_cpl(e) || dpl < rpl_of(d->selector))
        return selector_fault(e, FAULT_GP, d->selector, 0);
    if (gate && !(d->high & DESC_P))
        return selector_fault(e, FAULT_NP, d->selector, 0);
    return switch_task(e, &(struct task_switch){.selector = gate ? gate_selector(d) : d->selector, .vector = FAULT_GP,
                                                .source = call ? TASK_BY_CALL : TASK_BY_JMP, .length = i->length});
}

static bool far_to_system(struct engine *e, const struct insn *i, struct descriptor *d, bool call)
{
    unsigned type = system_type(d->high);
    if (type == SYS_CALL32 || (type == SYS_CALL16 && !in_long_mode(e)))
        return far_through_gate(e, i, d, call);
    bool task = type == SYS_TASK_GATE || type == SYS_TSS16 || type == SYS_TSS32;
    if (task && !in_long_mode(e))
        return far_to_task(e, i, d, call);
    return selector_fault(e, FAULT_GP, d->selector, 0);
}

static bool far_pointer(struct engine *e, const struct insn *i, uint16_t *selector, uint64_t *offset)
{
    *offset = 0;
    if (i->opcode[0] != 0xff) {    /* 9A, EA */
        *selector = i->immediate2;
        memcpy(offset, &i->immediate, i->operand_size);
        return i->bits != 64 || raise_fault(e, FAULT_UD, 0);
    }
    if (!i->is_memory)
        return raise_fault(e, FAULT_UD, 0);
    return operand_read(e, i, 0, offset, i->operand_size) && operand_read(e, i, i->operand_size, selector, 2);
}

static bool far_transfer(struct engine *e, const struct insn *i, bool call)
{
    uint16_t selector;
    uint64_t offset;
    struct descriptor d;
    if (!far_pointer(e, i, &selector, &offset))
        return false;
    if (in_real_mode(e) || in_v8086(e))
        return far_without_descriptor(e, i, selector, offset, call);
    if (is_null(selector))
        return raise_fault(e, FAULT_GP, 0);
    if (!read_descriptor(e, selector, FAULT_GP, 0, &d))
        return false;
    if (is_code(d.high))
        return far_direct(e, i, &d, offset, call);
    if (d.high & DESC_S)
        return selector_fault(e, FAULT_GP, selector, 0);
    return far_to_system(e, i, &d, call);
}

bool op_far_call(struct engine *e, const struct insn *i) { return far_transfer(e, i, true); }
bool op_far_jump(struct engine *e, const struct insn *i) { return far_transfer(e, i, false); }
