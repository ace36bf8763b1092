/* What a guest may do about its EPT by itself: VMFUNC's EPTP switching, and violations that it is told of as #VE.
 *
 * Manual: "VM Functions", "EPTP Switching", "Convertible EPT Violations", "Virtualization-Exception Information".
 */
#include "state.h"

enum { VM_FUNCTIONS = 64, EPTP_SWITCHING = 0, EPTP_LIST_ENTRIES = 512, VECTOR_VE = 20 };

/* As the checks of a VM entry have it ("VM-Execution Control Fields"). */
static bool eptp_is_valid(const struct engine *e, uint64_t eptp)
{
    uint64_t type = eptp & 7, length = eptp >> 3 & 7;
    return (type == 0 || type == 6) && (length == 3 || length == 4) && !(eptp & (0xf80 | e->mmu.beyond | 0xfff0000000000000ull));
}

static bool switch_eptp(struct engine *e, const struct insn *i, uint32_t index)
{
    uint64_t at = *field(e, VMCS_EPTP_LIST_ADDRESS) + index * 8ull, eptp = 0;
    if (index >= EPTP_LIST_ENTRIES || at + 8 > e->ram_size)
        return instruction_exit(e, i, EXIT_VMFUNC, 0);
    memcpy(&eptp, e->ram + at, 8);
    if (!eptp_is_valid(e, eptp))
        return instruction_exit(e, i, EXIT_VMFUNC, 0);
    *field(e, VMCS_EPT_POINTER) = eptp;
    if (exiting2(e, SECONDARY_EPT_VIOLATION_VE))
        *field(e, VMCS_EPTP_INDEX) = index;
    mmu_select(e);                 /* nothing is invalidated: what is cached belongs to its root */
    return done(e, i);
}

bool op_vmfunc(struct engine *e, const struct insn *i)
{
    uint32_t function = (uint32_t)e->core->regs[RAX];
    if (!exiting2(e, SECONDARY_ENABLE_VM_FUNCTIONS) || function >= VM_FUNCTIONS)
        return raise_fault(e, 6, 0);
    if (function != EPTP_SWITCHING || !(*field(e, VMCS_VM_FUNCTION_CONTROL) >> function & 1))
        return instruction_exit(e, i, EXIT_VMFUNC, 0);
    return switch_eptp(e, i, (uint32_t)e->core->regs[RCX]);
}

struct ve_information { uint32_t reason, busy; uint64_t qualification, linear, physical; uint16_t eptp_index; };

/* An EPT violation that no event's delivery met becomes #VE, unless its entry or the guest is not ready for it. */
bool becomes_ve(struct engine *e)
{
    const struct pending *p = &e->pending;
    struct ve_information told = {.reason = EXIT_EPT_VIOLATION, .busy = ~0u, .qualification = p->qualification, .linear = p->guest_linear,
                                  .physical = p->guest_physical, .eptp_index = (uint16_t)*field(e, VMCS_EPTP_INDEX)};
    uint64_t at = *field(e, VMCS_VE_INFORMATION_ADDRESS);
    uint32_t busy;
    if (p->reason != EXIT_EPT_VIOLATION || p->suppresses_ve || !exiting2(e, SECONDARY_EPT_VIOLATION_VE) || in_real_mode(e))
        return false;
    if (at + 4096 > e->ram_size)
        return false;
    memcpy(&busy, e->ram + at + 4, 4);
    if (busy)
        return false;
    memcpy(e->ram + at, &told, offsetof(struct ve_information, eptp_index) + 2);
    return !raise_fault(e, VECTOR_VE, 0);
}
