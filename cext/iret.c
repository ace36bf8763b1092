/* IRET in every mode (manual, "IRET/IRETD/IRETQ"). */
#include "descriptor.h"

#define FLAGS_16 0x7fd5ull         /* what a 16-bit image holds */
#define FLAGS_32 (FLAGS_16 | FL_RF | FL_AC | FL_ID)

static void set_masked_flags(struct engine *e, uint64_t popped, uint64_t mask)
{
    uint64_t kept = guest_rflags(e) & ~(mask | FL_RF);
    set_guest_rflags(e, kept | (popped & mask));
}

/* Manual: with VME and IOPL < 3 a 16-bit IRET moves IF to and from VIF, and leaves IOPL alone. */
static bool v8086_flags(struct engine *e, uint64_t popped, unsigned unit)
{
    uint64_t flags = guest_rflags(e), mask = (unit == 2 ? FLAGS_16 : FLAGS_32) & ~(uint64_t)FL_IOPL;
    if ((flags & FL_IOPL) == FL_IOPL) {
        set_masked_flags(e, popped, mask);
        return true;
    }
    if ((popped & FL_TF) || ((popped & FL_IF) && (flags & FL_VIP)))
        return raise_fault(e, FAULT_GP, 0);
    popped |= popped & FL_IF ? FL_VIF : 0;
    set_masked_flags(e, popped, (mask & ~(uint64_t)FL_IF) | FL_VIF);
    return true;
}

static bool iret_without_descriptor(struct engine *e, unsigned unit)
{
    uint64_t slots[3];
    struct stack s = current_stack(e);
    if (!stack_read(e, &s, 0, slots, 3, unit))
        return false;
    if (slots[0] > guest_segment(e, CS).limit)
        return raise_fault(e, FAULT_GP, 0);
    if (!in_v8086(e))
        set_masked_flags(e, slots[2], unit == 2 ? FLAGS_16 : FLAGS_32);
    else if (!v8086_flags(e, slots[2], unit))
        return false;
    set_without_descriptor(e, CS, (uint16_t)slots[1]);
    core_of(e)->rip = slots[0];
    core_of(e)->regs[RSP] = moved_sp(&s, 3 * unit);
    return true;
}

static bool iret_in_v8086(struct engine *e, unsigned unit)
{
    bool trusted = (guest_rflags(e) & FL_IOPL) == FL_IOPL;
    bool extended = (core_of(e)->cr[4] & CR4_VME) && unit == 2;
    return trusted || extended ? iret_without_descriptor(e, unit) : raise_fault(e, FAULT_GP, 0);
}

/* The frame: EIP CS EFLAGS ESP SS ES DS FS GS. */
static bool iret_to_v8086(struct engine *e, const struct stack *s)
{
    uint64_t slots[9];
    if (!stack_read(e, s, 0, slots, 9, 4))
        return false;
    if (slots[0] > 0xffff)
        return raise_fault(e, FAULT_GP, 0);
    set_guest_cpl(e, 3);
    set_guest_rflags(e, slots[2] & 0x3f7fd7);
    core_of(e)->regs[RSP] = slots[3];
    core_of(e)->rip = slots[0];
    static const int order[] = {SS, ES, DS, FS, GS};
    for (int k = 0; k < 5; k++)
        set_without_descriptor(e, order[k], (uint16_t)slots[4 + k]);
    set_without_descriptor(e, CS, (uint16_t)slots[1]);
    return true;
}

static uint64_t flags_allowed(struct engine *e, unsigned unit)
{
    int cpl = guest_cpl(e), iopl = (int)(guest_rflags(e) >> 12 & 3);
    uint64_t mask = unit == 2 ? FLAGS_16 : FLAGS_32;
    mask &= ~(uint64_t)(FL_IOPL | FL_IF);
    if (cpl <= iopl)
        mask |= FL_IF;
    if (cpl == 0)
        mask |= FL_IOPL | (unit > 2 ? FL_VIF | FL_VIP : 0);
    return mask;
}

static bool iret_by_frame(struct engine *e, const struct stack *s, const uint64_t *slots, unsigned unit)
{
    struct far_return r = {.rip = slots[0]};
    uint64_t outer[2];
    if (!check_return_code(e, (uint16_t)slots[1], &r))
        return false;
    r.outer = in_64bit_code(e) || r.cpl > guest_cpl(e);
    if (r.outer) {
        if (!stack_read(e, s, 3 * unit, outer, 2, unit) || !check_return_stack(e, (uint16_t)outer[1], &r))
            return false;
        r.rsp = outer[0];
    }
    if (!check_target_offset(e, &r.cs, r.rip, 0) || !mark_return(e, &r))
        return false;
    set_masked_flags(e, slots[2], flags_allowed(e, unit));
    do_return(e, &r, moved_sp(s, 3 * unit), 0);
    return true;
}

static bool iret_to_task(struct engine *e, const struct insn *i)
{
    struct task_switch t = {.source = TASK_BY_IRET, .vector = FAULT_TS, .length = i->length};
    struct core_segment tr = guest_segment(e, TR);
    if (in_long_mode(e))
        return raise_fault(e, FAULT_GP, 0);
    return mem_read(e, tr.base, &t.selector, sizeof t.selector, RIGHTS_SYSTEM) && switch_task(e, &t);
}

static bool iret_protected(struct engine *e, const struct insn *i)
{
    uint64_t slots[3];
    unsigned unit = i->operand_size;
    struct stack s = current_stack(e);
    if (guest_rflags(e) & FL_NT)
        return iret_to_task(e, i);
    if (!stack_read(e, &s, 0, slots, 3, unit))
        return false;
    bool to_v8086 = unit == 4 && (slots[2] & FL_VM) && guest_cpl(e) == 0 && !in_long_mode(e);
    return to_v8086 ? iret_to_v8086(e, &s) : iret_by_frame(e, &s, slots, unit);
}

bool op_iret(struct engine *e, const struct insn *i)
{
    unsigned unit = i->operand_size;
    set_nmi_blocking(e, false);    /* manual, "Handling Multiple NMIs": also when the IRET then faults */
    bool done = in_real_mode(e) ? iret_without_descriptor(e, unit)
              : in_v8086(e) ? iret_in_v8086(e, unit) : iret_protected(e, i);
    if (done)
        clear_event_shadow(e);
    return done;
}
