/* Tour 2.12: the trap technique, classic trap-and-emulate: what ring 0 asks for is software's business.
 *
 * The guest's ring 0 runs in ring 1 with IOPL 0. So every privileged instruction raises #GP (some #UD), and CLI and STI
 * too: the interrupt flag that the guest sees is the hypervisor's. Instructions that would not trap although they show or
 * change what is not theirs (Popek and Goldberg's sensitive, unprivileged ones) are replaced when a block is translated:
 * those that ask the hypervisor by a trap like the others', segment loads and far transfers by code that does in place
 * what the guest's own ring would do. An exit is named by its operation; its reason and interruption information say what
 * the hardware saw. Operands are decoded as the VT-x exit of the same instruction shows them.
 */
#include "state.h"

enum { VECTOR_UD = 6, VECTOR_GP = 13 };
#define OPERATION_SHIFT 16         /* in pending.reason and, until it is published, in exit.reason */
#define INTERRUPTION (1ull << 31 | (uint64_t)EVENT_HARDWARE_EXCEPTION << 8)
#define HAS_ERROR (1ull << 11)

bool is_deprivileged(const struct engine *e) { return e->vcpu && e->vcpu->deprivileged; }
bool keeps_sensitive(const struct engine *e) { return e->vcpu && e->vcpu->deprivileged == 2; }

/* Registers and sizes, for software: see TrapOperands in vmm/exits/trapped. */
static uint64_t decoded_operands(const struct insn *i)
{
    return (uint64_t)(uint8_t)i->modrm_reg | (uint64_t)(uint8_t)i->modrm_rm << 4 | (uint64_t)i->operand_size << 8 |
           (uint64_t)i->is_memory << 12;
}

static bool trap(struct engine *e, const struct insn *i, uint32_t operation, uint64_t qualification)
{
    instruction_exit(e, i, EXIT_EXCEPTION_NMI | operation << OPERATION_SHIFT, qualification);
    e->pending.instruction_info = decoded_operands(i);
    e->pending.guest_linear = i->is_memory ? operand_address(e, i) : 0;
    return false;
}

static uint32_t operation_of(unsigned id)
{
    switch (id) {
    case X86_INS_CLI: return OPERATION_CLI;
    case X86_INS_STI: return OPERATION_STI;
    case X86_INS_PUSHF: case X86_INS_PUSHFD: case X86_INS_PUSHFQ: return OPERATION_PUSHF;
    case X86_INS_POPF: case X86_INS_POPFD: case X86_INS_POPFQ: return OPERATION_POPF;
    case X86_INS_IRET: case X86_INS_IRETD: case X86_INS_IRETQ: return OPERATION_IRET;
    case X86_INS_LGDT: return OPERATION_LGDT;
    case X86_INS_LIDT: return OPERATION_LIDT;
    case X86_INS_LLDT: return OPERATION_LLDT;
    case X86_INS_LTR: return OPERATION_LTR;
    case X86_INS_SGDT: return OPERATION_SGDT;
    case X86_INS_SIDT: return OPERATION_SIDT;
    case X86_INS_SLDT: return OPERATION_SLDT;
    case X86_INS_STR: return OPERATION_STR;
    case X86_INS_SMSW: return OPERATION_SMSW;
    case X86_INS_SWAPGS: return OPERATION_SWAPGS;
    case X86_INS_SYSCALL: return OPERATION_SYSCALL;
    case X86_INS_SYSRET: case X86_INS_SYSRETQ: return OPERATION_SYSRET;
    case X86_INS_SYSENTER: return OPERATION_SYSENTER;
    case X86_INS_SYSEXIT: case X86_INS_SYSEXITQ: return OPERATION_SYSEXIT;
    case X86_INS_CLAC: return OPERATION_CLAC;
    case X86_INS_STAC: return OPERATION_STAC;
    case X86_INS_HLT: return EXIT_HLT;
    case X86_INS_RDMSR: return EXIT_MSR_READ;
    case X86_INS_WRMSR: return EXIT_MSR_WRITE;
    case X86_INS_INVD: return EXIT_INVD;
    case X86_INS_WBINVD: return EXIT_WBINVD;
    default: return 0;
    }
}

/* ---- what traps by itself ---- */

/* Qualifications as of VT-x: "Exit Qualification for Control-Register Accesses", "for MOV DR". */
static bool trap_move(struct engine *e, const struct insn *i)
{
    const uint32_t existing = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 8;
    bool debug = i->opcode[1] & 1, from = !(i->opcode[1] & 2);
    uint64_t number = (uint64_t)i->modrm_reg, where = (uint64_t)from << 4 | (uint64_t)i->modrm_rm << 8;
    if (!debug && !(existing >> number & 1))
        return raise_fault(e, VECTOR_UD, 0);
    return trap(e, i, debug ? EXIT_DR_ACCESS : EXIT_CR_ACCESS, number | where);
}

/* Of ring 0, by an instruction that only ring 0 may execute. */
bool trap_ring0(struct engine *e, const struct insn *i)
{
    switch (i->id) {
    case X86_INS_MOV: return trap_move(e, i);
    case X86_INS_CLTS: return trap(e, i, EXIT_CR_ACCESS, 2u << 4);
    case X86_INS_LMSW:
        return trap(e, i, EXIT_CR_ACCESS, 3u << 4 | (i->is_memory ? 1u << 6 : (e->core->regs[i->modrm_rm] & 0xffff) << 16));
    case X86_INS_INVLPG: return trap(e, i, EXIT_INVLPG, operand_address(e, i));
    case X86_INS_SWAPGS: return in_64bit_code(e) ? trap(e, i, OPERATION_SWAPGS, 0) : raise_fault(e, VECTOR_UD, 0);
    default: return trap(e, i, operation_of(i->id), 0);
    }
}

/* CLI and STI where the guest's IOPL allows them; elsewhere their #GP is the guest's own. */
bool trap_interrupt_flag(struct engine *e, const struct insn *i, bool *known)
{
    *known = (i->id == X86_INS_CLI || i->id == X86_INS_STI) && !i->prefix_lock && (in_real_mode(e) || e->cpl <= e->iopl);
    return *known && trap(e, i, operation_of(i->id), 0);
}

/* ---- what has been replaced ---- */

static bool is_outside_protected_mode(struct engine *e) { return in_real_mode(e) || in_v8086(e); }
static bool is_kept_from_user(struct engine *e) { return e->core->cr[4] & CR4_UMIP && e->cpl; }

/* Ring 3 owns its flags but IF, unless it has been given IOPL 3. */
static bool touches_interrupt_flag(struct engine *e) { return e->cpl < 3 || e->iopl == 3; }

/* The hypervisor has seen the IRET here and lets the processor's own load what it returns to. */
static bool is_permitted(struct engine *e) { return e->vcpu->permitted && e->vcpu->permitted_rip == e->core->rip; }

static bool trap_store(struct engine *e, const struct insn *i)
{
    bool segment = i->id == X86_INS_SLDT || i->id == X86_INS_STR;
    if (segment && is_outside_protected_mode(e))
        return raise_fault(e, VECTOR_UD, 0);
    return is_kept_from_user(e) ? raise_fault(e, VECTOR_GP, 0) : trap(e, i, operation_of(i->id), 0);
}

static bool trap_syscall(struct engine *e, const struct insn *i)
{
    return has_syscall(e) && trap(e, i, OPERATION_SYSCALL, 0);
}

/* *known = false: nothing that concerns the hypervisor. */
bool trap_replaced(struct engine *e, const struct insn *i, bool *known)
{
    *known = true;
    switch (i->id) {
    case X86_INS_PUSHF: case X86_INS_PUSHFD: case X86_INS_PUSHFQ: case X86_INS_POPF: case X86_INS_POPFD: case X86_INS_POPFQ:
        *known = touches_interrupt_flag(e);
        break;
    case X86_INS_IRET: case X86_INS_IRETD: case X86_INS_IRETQ: *known = touches_interrupt_flag(e) && !is_permitted(e); break;
    case X86_INS_CLI: case X86_INS_STI: break;
    case X86_INS_SGDT: case X86_INS_SIDT: case X86_INS_SLDT: case X86_INS_STR: case X86_INS_SMSW: return trap_store(e, i);
    case X86_INS_SYSCALL: return trap_syscall(e, i);
    case X86_INS_SYSENTER: return has_sysenter(e) && trap(e, i, OPERATION_SYSENTER, 0);
    default: *known = false;
    }
    return *known && trap(e, i, operation_of(i->id), 0);
}

/* Sensitive and unprivileged: replaced when translated. The engine hooks more, for its own reasons. */
bool is_replaced(unsigned id)
{
    switch (id) {
    case X86_INS_PUSHF: case X86_INS_PUSHFD: case X86_INS_PUSHFQ: case X86_INS_POPF: case X86_INS_POPFD: case X86_INS_POPFQ:
    case X86_INS_IRET: case X86_INS_IRETD: case X86_INS_IRETQ:
    case X86_INS_SGDT: case X86_INS_SIDT: case X86_INS_SLDT: case X86_INS_STR: case X86_INS_SMSW:
    case X86_INS_CPUID: case X86_INS_RDRAND: case X86_INS_RDSEED:
    case X86_INS_LCALL: case X86_INS_LJMP: case X86_INS_RETF: case X86_INS_RETFQ: case X86_INS_CALL: case X86_INS_JMP:
    case X86_INS_LAR: case X86_INS_LSL: case X86_INS_VERR: case X86_INS_VERW: case X86_INS_ARPL:
    case X86_INS_MOV: case X86_INS_POP: case X86_INS_LDS: case X86_INS_LES: case X86_INS_LFS: case X86_INS_LGS: case X86_INS_LSS:
        return true;
    default: return false;
    }
}

void count_replaced(struct engine *e, const struct insn *i)
{
    e->counters.patched += is_deprivileged(e) && is_replaced(i->id) && !is_permitted(e);
}

/* ---- what the hypervisor is told ---- */

/* Instructions whose VT-x exit is unconditional, or asked for by a control that the technique sets. */
static bool is_operation(uint64_t reason)
{
    switch (reason) {
    case EXIT_CPUID: case EXIT_HLT: case EXIT_INVD: case EXIT_INVLPG: case EXIT_RDPMC: case EXIT_RDTSC: case EXIT_VMCALL:
    case EXIT_VMCLEAR: case EXIT_VMLAUNCH: case EXIT_VMPTRLD: case EXIT_VMPTRST: case EXIT_VMREAD: case EXIT_VMRESUME:
    case EXIT_VMWRITE: case EXIT_VMOFF: case EXIT_VMON: case EXIT_CR_ACCESS: case EXIT_DR_ACCESS: case EXIT_IO_INSTRUCTION:
    case EXIT_MSR_READ: case EXIT_MSR_WRITE: case EXIT_MWAIT_INSTRUCTION: case EXIT_MONITOR_INSTRUCTION:
    case EXIT_PAUSE_INSTRUCTION: case EXIT_INVEPT: case EXIT_RDTSCP: case EXIT_INVVPID: case EXIT_WBINVD: case EXIT_RDRAND:
    case EXIT_INVPCID: case EXIT_RDSEED: return true;
    default: return false;
    }
}

/* In ring 1 these are not forbidden but unknown, or there is nobody in root mode to call. */
static bool raises_ud(uint32_t operation)
{
    switch (operation) {
    case OPERATION_CLAC: case OPERATION_STAC: case EXIT_VMCALL: case EXIT_VMCLEAR: case EXIT_VMLAUNCH: case EXIT_VMPTRLD:
    case EXIT_VMPTRST: case EXIT_VMREAD: case EXIT_VMRESUME: case EXIT_VMWRITE: case EXIT_VMOFF: case EXIT_VMON: case EXIT_INVEPT:
    case EXIT_INVVPID: case EXIT_MWAIT_INSTRUCTION: case EXIT_MONITOR_INSTRUCTION: return true;
    default: return false;
    }
}

static void show_as_exception(struct engine *e, uint32_t operation)
{
    e->exit.operation = operation;
    e->exit.reason = EXIT_EXCEPTION_NMI;
    e->exit.interruption_info = INTERRUPTION | (raises_ud(operation) ? VECTOR_UD : VECTOR_GP | HAS_ERROR);
}

/* An exit by an instruction is to be shown: by its operation, and as the exception that ring 1 raised. */
void name_operation(struct engine *e)
{
    uint64_t reason = e->exit.reason, type = e->exit.interruption_info >> 8 & 7;
    if (reason >> 31)              /* the entry failed */
        return;
    if (reason >> OPERATION_SHIFT)
        show_as_exception(e, (uint32_t)(reason >> OPERATION_SHIFT));
    else if (is_operation(reason))
        show_as_exception(e, (uint32_t)reason);
    else if (reason == EXIT_EXCEPTION_NMI && type == EVENT_SOFTWARE_INTERRUPT)
        e->exit.operation = OPERATION_INT;
}
