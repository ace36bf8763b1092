/* LAR, LSL, VERR, VERW and ARPL: a selector looked at, ZF the answer. */
#include "descriptor.h"

static void set_zf(struct engine *e, bool zf)
{
    set_guest_rflags(e, (guest_rflags(e) & ~(uint64_t)FL_ZF) | (zf ? FL_ZF : 0));
}

/* Manual, "LAR" and "LSL", the tables of segment and gate types. */
static bool type_is_visible(struct engine *e, unsigned type, bool access_rights)
{
    const unsigned segments = 1u << SYS_LDT | 1u << SYS_TSS32 | 1u << SYS_TSS32_BUSY;
    unsigned visible = segments | (access_rights ? 1u << SYS_CALL32 : 0);
    if (!in_long_mode(e)) {
        visible |= 1u << SYS_TSS16 | 1u << SYS_TSS16_BUSY;
        visible |= access_rights ? 1u << SYS_CALL16 | 1u << SYS_TASK_GATE : 0;
    }
    return visible >> type & 1;
}

static bool is_reachable(struct engine *e, const struct descriptor *d)
{
    int dpl = dpl_of(d->high);
    return is_conforming(d->high) || (guest_cpl(e) <= dpl && rpl_of(d->selector) <= dpl);
}

static bool is_visible(struct engine *e, const struct insn *i, const struct descriptor *d)
{
    bool segment = d->high & DESC_S;
    if (!is_reachable(e, d))
        return false;
    if (i->opcode[1] == 0x02)
        return segment || type_is_visible(e, system_type(d->high), true);
    if (i->opcode[1] == 0x03)
        return segment || type_is_visible(e, system_type(d->high), false);
    return (i->modrm >> 3 & 7) == 4 ? is_readable(d->high) : is_writable(d->high);
}

static bool arpl(struct engine *e, const struct insn *i)
{
    uint16_t to;
    int rpl = (int)core_of(e)->regs[i->modrm_reg] & 3;
    if (!operand_selector(e, i, &to))
        return false;
    bool raised = rpl_of(to) < rpl;
    if (raised) {
        to = with_rpl(to, rpl);
        if (i->is_memory && !operand_write(e, i, &to, 2))
            return false;
        if (!i->is_memory)
            write_gpr(e, i->modrm_rm, 2, to);
    }
    set_zf(e, raised);
    advance_rip(e, i);
    return true;
}

static bool inspect(struct engine *e, const struct insn *i)
{
    uint16_t selector;
    struct descriptor d;
    if (!operand_selector(e, i, &selector))
        return false;
    enum lookup found = is_null(selector) ? LOOKUP_NONE : look_up(e, selector, &d);
    if (found == LOOKUP_FAULT)
        return false;
    bool visible = found == LOOKUP_FOUND && is_visible(e, i, &d);
    if (visible && i->opcode[1] == 0x02)
        write_gpr(e, i->modrm_reg, i->operand_size, d.high & 0x00f0ff00);
    if (visible && i->opcode[1] == 0x03)
        write_gpr(e, i->modrm_reg, i->operand_size, limit_of(&d));
    set_zf(e, visible);
    advance_rip(e, i);
    return true;
}

bool op_lar_lsl_verr_verw(struct engine *e, const struct insn *i)
{
    if (in_real_mode(e) || in_v8086(e))
        return raise_fault(e, FAULT_UD, 0);
    return i->opcode[0] == 0x63 ? arpl(e, i) : inspect(e, i);
}
