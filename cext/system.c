/* SYSCALL, SYSRET, SYSENTER, SYSEXIT as Intel's processors do them: CS and SS are made up, not read. AMD's know SYSCALL in
 * compatibility mode too, by CSTAR, and in long mode no SYSENTER. (Without long mode AMD's know SYSCALL as well: not here.) */
#include "descriptor.h"
#include "state.h"

enum {
    FLAT_CODE = DESC_G | DESC_P | DESC_S | DESC_CODE | DESC_RW | DESC_A,
    FLAT_DATA = DESC_G | DESC_B | DESC_P | DESC_S | DESC_RW | DESC_A,
};

/* CS and, 8 above its selector in every case, SS: flat segments of privilege `cpl`. */
static void enter_flat(struct engine *e, uint16_t cs, uint16_t ss, int cpl, bool long_code)
{
    uint32_t dpl = (uint32_t)cpl << DESC_DPL_SHIFT;
    set_guest_cpl(e, cpl);
    set_segment(e, SS, with_rpl(ss, cpl), 0, 0xffffffff, FLAT_DATA | dpl);
    set_segment(e, CS, with_rpl(cs, cpl), 0, 0xffffffff, FLAT_CODE | dpl | (long_code ? DESC_L : DESC_B));
}

static bool has_sysret(struct engine *e)
{
    return (in_64bit_code(e) && (e->efer & EFER_SCE)) || raise_fault(e, FAULT_UD, 0);
}

bool has_syscall(struct engine *e)
{
    bool knows = in_64bit_code(e) || (e->is_amd && in_long_mode(e));
    return (knows && (e->efer & EFER_SCE)) || raise_fault(e, FAULT_UD, 0);
}

bool has_sysenter(struct engine *e) { return !(e->is_amd && in_long_mode(e)) || raise_fault(e, FAULT_UD, 0); }

bool op_syscall(struct engine *e, const struct insn *i)
{
    if (!has_syscall(e))
        return false;
    struct core *c = core_of(e);
    const struct vcpu *v = vcpu_of(e);
    uint64_t flags = guest_rflags(e) & ~(uint64_t)FL_RF;
    uint16_t cs = (uint16_t)(v->star >> 32) & 0xfffc;
    c->regs[RCX] = c->rip + i->length;
    c->regs[11] = flags;
    c->rip = in_64bit_code(e) ? v->lstar : v->cstar;
    set_guest_rflags(e, flags & ~v->fmask);
    enter_flat(e, cs, (uint16_t)(cs + 8), 0, true);
    clear_event_shadow(e);
    return true;
}

bool op_sysret(struct engine *e, const struct insn *i)
{
    const uint64_t restored = 0x3c7fd7;    /* all but RF and VM */
    struct core *c = core_of(e);
    bool wide = i->operand_size == 8;
    if (!has_sysret(e))
        return false;
    if (guest_cpl(e) != 0 || (wide && !is_canonical(e, c->regs[RCX])))
        return raise_fault(e, FAULT_GP, 0);
    uint16_t base = (uint16_t)(vcpu_of(e)->star >> 48);
    c->rip = wide ? c->regs[RCX] : (uint32_t)c->regs[RCX];
    set_guest_rflags(e, c->regs[11] & restored);
    enter_flat(e, (uint16_t)(base + (wide ? 16 : 0)), (uint16_t)(base + 8), 3, wide);
    clear_event_shadow(e);
    return true;
}

static uint16_t sysenter_cs(struct engine *e) { return (uint16_t)vmcs_read(e, VMCS_GUEST_SYSENTER_CS) & 0xfffc; }

bool op_sysenter(struct engine *e, const struct insn *i)
{
    (void)i;
    if (!has_sysenter(e))
        return false;
    uint16_t cs = sysenter_cs(e);
    uint64_t wrap = in_long_mode(e) ? ~0ull : 0xffffffff;
    if (in_real_mode(e) || cs == 0)
        return raise_fault(e, FAULT_GP, 0);
    core_of(e)->regs[RSP] = vmcs_read(e, VMCS_GUEST_SYSENTER_ESP) & wrap;
    core_of(e)->rip = vmcs_read(e, VMCS_GUEST_SYSENTER_EIP) & wrap;
    set_guest_rflags(e, guest_rflags(e) & ~(uint64_t)(FL_VM | FL_IF | FL_RF));
    enter_flat(e, cs, (uint16_t)(cs + 8), 0, in_long_mode(e));
    clear_event_shadow(e);
    return true;
}

bool op_sysexit(struct engine *e, const struct insn *i)
{
    struct core *c = core_of(e);
    uint16_t cs = sysenter_cs(e);
    bool wide = i->operand_size == 8;
    if (!has_sysenter(e))
        return false;
    if (in_real_mode(e) || cs == 0 || guest_cpl(e) != 0)
        return raise_fault(e, FAULT_GP, 0);
    if (wide && !(is_canonical(e, c->regs[RCX]) && is_canonical(e, c->regs[RDX])))
        return raise_fault(e, FAULT_GP, 0);
    c->regs[RSP] = wide ? c->regs[RCX] : (uint32_t)c->regs[RCX];
    c->rip = wide ? c->regs[RDX] : (uint32_t)c->regs[RDX];
    set_guest_rflags(e, guest_rflags(e) & ~(uint64_t)FL_RF);
    cs = (uint16_t)(cs + (wide ? 32 : 16));
    enter_flat(e, cs, (uint16_t)(cs + 8), 3, wide);
    clear_event_shadow(e);
    return true;
}
