/* Instructions that belong to VMX itself, and MONITOR and MWAIT: in a guest they exit (manual: "Instructions That Cause VM
 * Exits Unconditionally"). TCG knows none of them, so they come as #UD. */
#include "state.h"

struct vmx_instruction { uint16_t id, reason; bool takes_memory, reg2; };
static const struct vmx_instruction vmx_instructions[] = {
    {X86_INS_VMCLEAR, EXIT_VMCLEAR, true, false}, {X86_INS_VMPTRLD, EXIT_VMPTRLD, true, false},
    {X86_INS_VMPTRST, EXIT_VMPTRST, true, false}, {X86_INS_VMXON, EXIT_VMON, true, false},
    {X86_INS_INVEPT, EXIT_INVEPT, true, true}, {X86_INS_INVVPID, EXIT_INVVPID, true, true},
    {X86_INS_VMREAD, EXIT_VMREAD, false, true}, {X86_INS_VMWRITE, EXIT_VMWRITE, false, true},
    {X86_INS_VMLAUNCH, EXIT_VMLAUNCH, false, false}, {X86_INS_VMRESUME, EXIT_VMRESUME, false, false},
    {X86_INS_VMXOFF, EXIT_VMOFF, false, false},
};

static bool vmx_exit(struct engine *e, const struct insn *i, const struct vmx_instruction *x)
{
    bool compatibility = in_long_mode(e) && !in_64bit_code(e);
    if (in_real_mode(e) || in_v8086(e) || compatibility || (x->takes_memory && !i->is_memory))
        return raise_fault(e, 6, 0);
    if (!x->takes_memory && !x->reg2)
        return instruction_exit(e, i, x->reason, 0);
    table_exit(e, i, x->reason);
    e->pending.instruction_info = (e->pending.instruction_info & 0xfffffff) | (x->reg2 ? (uint64_t)i->modrm_reg << 28 : 0);
    return false;
}

static bool monitor(struct engine *e, const struct insn *i)
{
    bool waits = i->id == X86_INS_MWAIT;
    if (e->cpl)
        return raise_fault(e, 6, 0);
    if (exiting(e, waits ? PRIMARY_MWAIT_EXITING : PRIMARY_MONITOR_EXITING))
        return instruction_exit(e, i, waits ? EXIT_MWAIT_INSTRUCTION : EXIT_MONITOR_INSTRUCTION, 0);
    return done(e, i);             /* no monitor is ever armed: MWAIT goes on at once */
}

bool do_vmx(struct engine *e, const struct insn *i, bool *known)
{
    *known = true;
    if (i->id == X86_INS_MONITOR || i->id == X86_INS_MWAIT)
        return monitor(e, i);
    for (size_t k = 0; k < sizeof vmx_instructions / sizeof *vmx_instructions; k++)
        if (vmx_instructions[k].id == i->id)
            return vmx_exit(e, i, &vmx_instructions[k]);
    *known = false;
    return false;
}
