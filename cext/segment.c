/* Descriptors, and the loads of segment registers, LDTR and TR.
 *
 * Unicorn never loads a descriptor for ring 0 of the guest: the loads trap, and the checks below are the
 * manual's ("MOV", "LLDT", "LTR"), made with the privilege that the guest believes it has.
 */
#include "descriptor.h"

bool selector_fault(struct engine *e, int vector, uint16_t selector, uint32_t ext)
{
    return raise_fault(e, vector, (selector & 0xfffcu) | ext);
}

static bool is_protected(struct engine *e) { return !in_real_mode(e) && !in_v8086(e); }

/* Linear address of the descriptor; false: the selector lies beyond its table. */
static bool locate(struct engine *e, uint16_t selector, unsigned bytes, uint64_t *linear)
{
    struct core_segment table = selector & 4 ? guest_segment(e, LDTR) : core_of(e)->gdt;
    if ((selector & 4) && !(table.flags & DESC_P))
        return false;
    *linear = table.base + (selector & 0xfff8u);
    return (selector & 0xfff8u) + bytes - 1 <= table.limit;
}

enum lookup look_up(struct engine *e, uint16_t selector, struct descriptor *d)
{
    uint32_t words[2];
    *d = (struct descriptor){.selector = selector};
    if (!locate(e, selector, 8, &d->linear))
        return LOOKUP_NONE;
    if (!mem_read(e, d->linear, words, sizeof words, RIGHTS_SYSTEM))
        return LOOKUP_FAULT;
    d->low = words[0];
    d->high = words[1];
    return LOOKUP_FOUND;
}

bool read_descriptor(struct engine *e, uint16_t selector, int vector, uint32_t ext, struct descriptor *d)
{
    enum lookup found = look_up(e, selector, d);
    return found == LOOKUP_NONE ? selector_fault(e, vector, selector, ext) : found == LOOKUP_FOUND;
}

bool read_upper_half(struct engine *e, int vector, uint32_t ext, struct descriptor *d)
{
    uint64_t linear;
    uint32_t words[2];
    if (!locate(e, d->selector, 16, &linear))
        return selector_fault(e, vector, d->selector, ext);
    if (!mem_read(e, linear + 8, words, sizeof words, RIGHTS_SYSTEM))
        return false;
    if (words[1] & 0x1f00)         /* the second half must not look like a descriptor of its own */
        return selector_fault(e, vector, d->selector, ext);
    d->upper = words[0];
    return true;
}

bool mark_accessed(struct engine *e, const struct descriptor *d)
{
    if (d->high & DESC_A)
        return true;
    uint8_t type = (uint8_t)(d->high >> 8) | 1;
    return mem_write(e, d->linear + 5, &type, 1, RIGHTS_SYSTEM);
}

void set_from_descriptor(struct engine *e, int seg, uint16_t selector, const struct descriptor *d)
{
    uint32_t accessed = d->high & DESC_S ? DESC_A : 0;
    set_segment(e, seg, selector, base_of(d), limit_of(d), (d->high & 0x00f0ff00) | accessed);
}

void set_null(struct engine *e, int seg, uint16_t selector, int dpl)
{
    set_segment(e, seg, selector, 0, 0, (uint32_t)dpl << DESC_DPL_SHIFT);
}

void set_without_descriptor(struct engine *e, int seg, uint16_t selector)
{
    uint64_t base = (uint64_t)selector << 4;
    struct core_segment old = guest_segment(e, seg);
    uint32_t kind = seg == CS ? REAL_CODE : REAL_DATA;
    if (in_v8086(e))
        set_segment(e, seg, selector, base, 0xffff, V8086_SEGMENT);
    else if (!(old.flags & DESC_P))
        set_segment(e, seg, selector, base, 0xffff, kind);
    else                           /* "unreal" mode lives from what stays */
        set_segment(e, seg, selector, base, old.limit, kind | (old.flags & (DESC_G | DESC_B)));
}

static bool load_null(struct engine *e, int seg, uint16_t selector)
{
    int cpl = guest_cpl(e);
    if (seg == SS && !(in_64bit_code(e) && cpl < 3 && rpl_of(selector) == cpl))
        return raise_fault(e, FAULT_GP, 0);
    set_null(e, seg, selector, seg == SS ? cpl : 0);
    return true;
}

static bool check_stack_segment(struct engine *e, const struct descriptor *d)
{
    int cpl = guest_cpl(e);
    if (rpl_of(d->selector) != cpl || !is_writable(d->high) || dpl_of(d->high) != cpl)
        return selector_fault(e, FAULT_GP, d->selector, 0);
    return d->high & DESC_P || selector_fault(e, FAULT_SS, d->selector, 0);
}

static bool check_data_segment(struct engine *e, const struct descriptor *d)
{
    int dpl = dpl_of(d->high);
    bool too_weak = rpl_of(d->selector) > dpl || guest_cpl(e) > dpl;
    if (!is_readable(d->high) || (!is_conforming(d->high) && too_weak))
        return selector_fault(e, FAULT_GP, d->selector, 0);
    return d->high & DESC_P || selector_fault(e, FAULT_NP, d->selector, 0);
}

bool load_segment_register(struct engine *e, int seg, uint16_t selector)
{
    struct descriptor d;
    if (!is_protected(e)) {
        set_without_descriptor(e, seg, selector);
        return true;
    }
    if (is_null(selector))
        return load_null(e, seg, selector);
    if (!read_descriptor(e, selector, FAULT_GP, 0, &d))
        return false;
    if (!(seg == SS ? check_stack_segment(e, &d) : check_data_segment(e, &d)) || !mark_accessed(e, &d))
        return false;
    set_from_descriptor(e, seg, selector, &d);
    return true;
}

static bool may_load_system_segment(struct engine *e)
{
    if (!is_protected(e))
        return raise_fault(e, FAULT_UD, 0);
    return guest_cpl(e) == 0 || raise_fault(e, FAULT_GP, 0);
}

/* The LDT or TSS descriptor behind `selector`, whose type must be one of the two. */
static bool read_system(struct engine *e, uint16_t selector, unsigned type, unsigned other, struct descriptor *d)
{
    if (selector & 4)
        return selector_fault(e, FAULT_GP, selector, 0);
    if (!read_descriptor(e, selector, FAULT_GP, 0, d))
        return false;
    unsigned found = system_type(d->high);
    if ((d->high & DESC_S) || (found != type && found != other))
        return selector_fault(e, FAULT_GP, selector, 0);
    if (!(d->high & DESC_P))
        return selector_fault(e, FAULT_NP, selector, 0);
    if (!in_long_mode(e))
        return true;
    if (!read_upper_half(e, FAULT_GP, 0, d))
        return false;
    return fits_register(e, base_of(d)) || selector_fault(e, FAULT_GP, selector, 0);
}

bool load_ldtr(struct engine *e, uint16_t selector)
{
    struct descriptor d;
    if (!may_load_system_segment(e))
        return false;
    if (is_null(selector)) {
        set_null(e, LDTR, selector, 0);
        return true;
    }
    if (!read_system(e, selector, SYS_LDT, SYS_LDT, &d))
        return false;
    set_from_descriptor(e, LDTR, selector, &d);
    return true;
}

bool load_tr(struct engine *e, uint16_t selector)
{
    struct descriptor d;
    if (!may_load_system_segment(e))
        return false;
    if (is_null(selector))
        return raise_fault(e, FAULT_GP, 0);
    if (!read_system(e, selector, SYS_TSS32, in_long_mode(e) ? SYS_TSS32 : SYS_TSS16, &d))
        return false;
    d.high |= TSS_BUSY << 8;
    uint8_t type = (uint8_t)(d.high >> 8);
    if (!mem_write(e, d.linear + 5, &type, 1, RIGHTS_SYSTEM))
        return false;
    set_from_descriptor(e, TR, selector, &d);
    return true;
}

static bool move_sreg(struct engine *e, const struct insn *i)
{
    uint16_t selector;
    int seg = i->modrm >> 3 & 7;
    if (seg == CS || seg > GS)
        return raise_fault(e, FAULT_UD, 0);
    if (!operand_selector(e, i, &selector) || !load_segment_register(e, seg, selector))
        return false;
    advance_rip(e, i);
    if (seg == SS)
        block_events_for_one_instruction(e, true);
    return true;
}

static bool pop_sreg(struct engine *e, const struct insn *i, int seg)
{
    uint64_t value;
    unsigned unit = i->bits == 64 && i->operand_size != 2 ? 8 : i->operand_size;
    if (i->bits == 64 && seg < FS)
        return raise_fault(e, FAULT_UD, 0);
    struct stack s = current_stack(e);
    if (!stack_read(e, &s, 0, &value, 1, unit) || !load_segment_register(e, seg, (uint16_t)value))
        return false;
    core_of(e)->regs[RSP] = moved_sp(&s, unit);
    advance_rip(e, i);
    if (seg == SS)
        block_events_for_one_instruction(e, true);
    return true;
}

static bool load_far_pointer(struct engine *e, const struct insn *i, int seg)
{
    uint64_t offset = 0;
    uint16_t selector;
    if (!i->is_memory || (i->bits == 64 && seg < FS && seg != SS))
        return raise_fault(e, FAULT_UD, 0);
    if (!operand_read(e, i, 0, &offset, i->operand_size) || !operand_read(e, i, i->operand_size, &selector, 2))
        return false;
    if (!load_segment_register(e, seg, selector))
        return false;
    write_gpr(e, i->modrm_reg, i->operand_size, offset);
    advance_rip(e, i);
    return true;
}

static bool two_byte_move(struct engine *e, const struct insn *i)
{
    switch (i->opcode[1]) {
    case 0xa1: return pop_sreg(e, i, FS);
    case 0xa9: return pop_sreg(e, i, GS);
    case 0xb2: return load_far_pointer(e, i, SS);
    case 0xb4: return load_far_pointer(e, i, FS);
    case 0xb5: return load_far_pointer(e, i, GS);
    default: return raise_fault(e, FAULT_UD, 0);
    }
}

bool op_move_to_segment(struct engine *e, const struct insn *i)
{
    switch (i->opcode[0]) {
    case 0x8e: return move_sreg(e, i);
    case 0x07: return pop_sreg(e, i, ES);
    case 0x17: return pop_sreg(e, i, SS);
    case 0x1f: return pop_sreg(e, i, DS);
    case 0xc4: return load_far_pointer(e, i, ES);
    case 0xc5: return load_far_pointer(e, i, DS);
    case 0x0f: return two_byte_move(e, i);
    default: return raise_fault(e, FAULT_UD, 0);
    }
}
