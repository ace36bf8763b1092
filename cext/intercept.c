/* Does this exit? The execution controls and bitmaps of the current VMCS, nothing else. */
#include "state.h"

bool exiting(struct engine *e, uint64_t control) { return *field(e, VMCS_CPU_BASED_VM_EXEC_CONTROL) & control; }

bool exiting2(struct engine *e, uint64_t control)
{
    return exiting(e, PRIMARY_ACTIVATE_SECONDARY_CONTROLS) && *field(e, VMCS_SECONDARY_VM_EXEC_CONTROL) & control;
}

bool instruction_exit(struct engine *e, const struct insn *i, uint32_t reason, uint64_t qualification)
{
    raise_exit(e, reason, qualification);
    e->pending.instruction_length = i->length;
    return false;
}

/* Manual: "VM-Exit Instruction-Information Field as Used for LIDT, LGDT, SIDT, or SGDT" and for LLDT, LTR, SLDT, STR. */
static uint64_t table_instruction_info(const struct insn *i)
{
    uint64_t identity = (uint64_t)(i->modrm >> 3 & 3) << 28, size = (uint64_t)(i->address_size / 4) << 7;
    if (!i->is_memory)
        return identity | size | 1 << 10 | (uint64_t)i->modrm_rm << 3;
    uint64_t scale = i->scale == 8 ? 3 : i->scale == 4 ? 2 : i->scale == 2;
    uint64_t index = i->index >= 0 ? (uint64_t)i->index << 18 | scale : 1 << 22;
    uint64_t base = i->base >= 0 ? (uint64_t)i->base << 23 : 1 << 27;
    return identity | size | index | base | (uint64_t)i->seg << 15;
}

/* The qualification is the displacement; relative to RIP, the address. */
bool table_exit(struct engine *e, const struct insn *i, uint32_t reason)
{
    bool relative = i->is_memory && i->base == -2;
    instruction_exit(e, i, reason, relative ? effective_address(e, i) : i->is_memory ? (uint64_t)i->disp : 0);
    e->pending.instruction_info = table_instruction_info(i);
    return false;
}

bool done(struct engine *e, const struct insn *i)
{
    advance_rip(e, i);
    return true;
}

/* Manual: "MSR-Bitmap Address": a 4 KiB page, read low, read high, write low, write high. */
bool msr_exits(struct engine *e, uint32_t msr, bool writes)
{
    if (!exiting(e, PRIMARY_USE_MSR_BITMAPS))
        return true;
    uint32_t half = msr >> 31, index = msr & 0x7fffffff;
    uint64_t page = *field(e, VMCS_MSR_BITMAP);
    if ((half ? index - 0x40000000 : index) > 0x1fff || page > e->ram_size - 4096)
        return true;
    index &= 0x1fff;
    return e->ram[page + (writes ? 2048 : 0) + half * 1024 + index / 8] >> index % 8 & 1;
}

bool port_exits(struct engine *e, uint32_t port, uint32_t size)
{
    if (!exiting(e, PRIMARY_USE_IO_BITMAPS))
        return exiting(e, PRIMARY_UNCOND_IO_EXITING);
    for (uint32_t p = port; p < port + size; p++) {
        uint64_t page = *field(e, p < 0x8000 ? VMCS_IO_BITMAP_A : VMCS_IO_BITMAP_B);
        if (p > 0xffff || page > e->ram_size - 4096 || e->ram[page + (p & 0x7fff) / 8] >> p % 8 & 1)
            return true;
    }
    return false;
}
