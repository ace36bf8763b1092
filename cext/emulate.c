/* Sensitive instructions under the code hook: flags, clocks, ports, and what they show. */
#include "defects.h"
#include "xen.h"

enum { FLAG_CF = 1, FLAG_TF = 1 << 8, FLAG_IF = 1 << 9, FLAG_IOPL = 3 << 12, FLAG_NT = 1 << 14, FLAG_RF = 1 << 16, FLAG_VM = 1 << 17,
       FLAG_AC = 1 << 18, FLAG_VIF = 1 << 19, FLAG_VIP = 1 << 20, FLAG_ID = 1 << 21 };

/* ---- PUSHF, POPF ---- */

static int flags_width(const struct engine *e, const struct insn *i)
{
    return in_64bit_code(e) && i->operand_size == 4 ? 8 : i->operand_size;
}

static uint64_t stack_linear(struct engine *e, uint64_t sp)
{
    int bits = stack_bits(e);
    if (bits == 64)
        return sp;
    uint64_t offset = bits == 32 ? (uint32_t)sp : (uint16_t)sp;
    return (offset + e->core->segs[SS].base) & 0xffffffff;
}

static void set_sp(struct engine *e, uint64_t sp)
{
    uint64_t *rsp = &e->core->regs[RSP];
    int bits = stack_bits(e);
    *rsp = bits == 64 ? sp : bits == 32 ? (uint32_t)sp : (*rsp & ~0xffffull) | (sp & 0xffff);
}

static bool v8086_traps(struct engine *e) { return in_v8086(e) && e->iopl < 3; }

bool op_pushf(struct engine *e, const struct insn *i)
{
    int width = flags_width(e, i);
    if (v8086_traps(e))
        return raise_fault(e, 13, 0);
    uint64_t flags = guest_rflags(e) & ~(uint64_t)(FLAG_RF | FLAG_VM), sp = e->core->regs[RSP] - (uint64_t)width;
    if (!mem_write(e, stack_linear(e, sp), &flags, (size_t)width, RIGHTS_CURRENT))
        return e->pending.vector == 13 && e->pending.kind == PENDING_EXCEPTION ? raise_fault(e, 12, 0) : false;
    set_sp(e, sp);
    return done(e, i);
}

/* Which bits POPF may change (manual: POPF, "Effect of POPF/POPFD/POPFQ on the EFLAGS Register"). */
static uint64_t popf_mask(struct engine *e, int width)
{
    uint64_t mask = 0xdd5 | FLAG_NT | FLAG_AC | FLAG_ID;
    if (e->cpl == 0)
        mask |= FLAG_IOPL;
    if (e->cpl <= e->iopl)
        mask |= FLAG_IF;
    return width == 2 ? mask & 0xffff : mask;
}

static bool popf(struct engine *e, const struct insn *i)
{
    int width = flags_width(e, i);
    uint64_t value = 0, sp = e->core->regs[RSP];
    if (v8086_traps(e))
        return raise_fault(e, 13, 0);
    if (!mem_read(e, stack_linear(e, sp), &value, (size_t)width, RIGHTS_CURRENT))
        return e->pending.vector == 13 && e->pending.kind == PENDING_EXCEPTION ? raise_fault(e, 12, 0) : false;
    uint64_t mask = popf_mask(e, width);
    set_sp(e, sp + (uint64_t)width);
    done(e, i);
    set_guest_rflags(e, (guest_rflags(e) & ~mask & ~(uint64_t)FLAG_RF) | (value & mask));
    return true;
}

/* ---- ports ---- */

/* Manual: "I/O Permission Bit Map": CPL > IOPL, and V8086 always, ask the TSS. */
static bool port_allowed(struct engine *e, uint32_t port, uint32_t size)
{
    if (is_xen(e))
        return xen_port_allowed(e, port, size);
    if (in_real_mode(e) || (!in_v8086(e) && e->cpl <= e->iopl))
        return true;
    struct core_segment tr = guest_segment(e, TR);
    uint16_t at = 0, bits = 0xffff;
    if ((tr.flags >> 8 & 0xd) != 9 || tr.limit < 103)      /* not a 32- or 64-bit TSS with room for the pointer */
        return raise_fault(e, 13, 0);
    if (!mem_read(e, tr.base + 102, &at, 2, RIGHTS_SYSTEM))
        return false;
    if ((uint64_t)at + port / 8 + 1 > tr.limit)
        return raise_fault(e, 13, 0);
    if (!mem_read(e, tr.base + at + port / 8, &bits, 2, RIGHTS_SYSTEM))
        return false;
    return (bits >> port % 8 & ((1u << size) - 1)) ? raise_fault(e, 13, 0) : true;
}

static uint32_t port_size(const struct insn *i) { return i->opcode[0] & 1 ? (i->operand_size == 2 ? 2 : 4) : 1; }

static void in_all_ones(struct engine *e, uint32_t size)
{
    uint64_t *rax = &e->core->regs[RAX];
    *rax = size == 4 ? 0xffffffff : *rax | ((1ull << size * 8) - 1);
}

/* Software carries the access out; the trap of an I/O breakpoint is pending when it comes back. */
static bool port_exit(struct engine *e, const struct insn *i, uint64_t qualification)
{
    if (e->debug.hits)
        *field(e, VMCS_GUEST_PENDING_DBG_EXCEPTIONS) |= debug_take_hits(e) | PENDING_ENABLED_BREAKPOINT;
    return instruction_exit(e, i, EXIT_IO_INSTRUCTION, qualification);
}

static bool port_access(struct engine *e, const struct insn *i)
{
    uint8_t op = i->opcode[0];
    bool in = !(op & 2), immediate = op < 0xe8;
    uint32_t size = port_size(i), port = immediate ? (uint8_t)i->immediate : (uint16_t)e->core->regs[RDX];
    if (!is_deprivileged(e) && !port_allowed(e, port, size))
        return false;
    if (unlikely(e->debug.io))
        debug_note_port(e, port, size);
    if (port_exits(e, port, size))
        return port_exit(e, i, (size - 1) | (in ? 8 : 0) | (immediate ? 1 << 6 : 0) | (uint64_t)port << 16);
    if (in)
        in_all_ones(e, size);      /* nothing is wired to the machine's own ports */
    return done(e, i);
}

static bool port_string(struct engine *e, const struct insn *i)
{
    bool in = !(i->opcode[0] & 2);
    uint32_t size = port_size(i), port = (uint16_t)e->core->regs[RDX];
    int seg = in ? ES : i->is_memory ? i->seg : DS;
    uint64_t offset = e->core->regs[in ? RDI : RSI];
    offset = i->address_size == 8 ? offset : i->address_size == 4 ? (uint32_t)offset : (uint16_t)offset;
    if (!is_deprivileged(e) && !port_allowed(e, port, size))
        return false;
    if (unlikely(e->debug.io))
        debug_note_port(e, port, size);
    uint64_t rep = i->prefix_rep ? 1 << 5 : 0;
    port_exit(e, i, (size - 1) | (in ? 8 : 0) | 1 << 4 | rep | (uint64_t)port << 16);
    e->pending.guest_linear = offset + (in_64bit_code(e) && seg < FS ? 0 : e->core->segs[seg].base);
    e->pending.instruction_info = (uint64_t)(i->address_size / 4) << 7 | (uint64_t)seg << 15;
    return false;
}

/* ---- what shows the machine: SGDT, SIDT, SLDT, STR, SMSW ---- */

/* CR4.UMIP keeps them from programs; the fault comes before an exit (manual: "Relative Priority of Faults and VM Exits"). */
static bool is_kept_from_user(struct engine *e) { return e->core->cr[4] & CR4_UMIP && e->cpl; }

static bool store_table(struct engine *e, const struct insn *i, const struct core_segment *table)
{
    if (is_kept_from_user(e))
        return raise_fault(e, 13, 0);
    uint8_t image[10];
    uint16_t limit = (uint16_t)table->limit;
    if (exiting2(e, SECONDARY_DESCRIPTOR_TABLE_EXITING))
        return table_exit(e, i, EXIT_GDTR_IDTR);
    memcpy(image, &limit, 2);
    memcpy(image + 2, &table->base, 8);
    return mem_write(e, operand_address(e, i), image, in_64bit_code(e) ? 10 : 6, RIGHTS_CURRENT) && done(e, i);
}

static bool store_word(struct engine *e, const struct insn *i, uint64_t value)
{
    if (i->is_memory)
        return mem_write(e, operand_address(e, i), &value, 2, RIGHTS_CURRENT) && done(e, i);
    uint64_t *reg = &e->core->regs[i->modrm_rm];
    *reg = i->operand_size == 2 ? (*reg & ~0xffffull) | (value & 0xffff) : i->operand_size == 4 ? (uint32_t)value : value;
    return done(e, i);
}

static bool store_system_segment(struct engine *e, const struct insn *i)
{
    if (in_real_mode(e) || in_v8086(e))
        return raise_fault(e, 6, 0);
    if (is_kept_from_user(e))
        return raise_fault(e, 13, 0);
    if (exiting2(e, SECONDARY_DESCRIPTOR_TABLE_EXITING))
        return table_exit(e, i, EXIT_LDTR_TR);
    return store_word(e, i, (i->id == X86_INS_SLDT ? e->core->ldt : e->core->tr).selector);
}

static bool smsw(struct engine *e, const struct insn *i)
{
    uint64_t mask = *field(e, VMCS_CR0_GUEST_HOST_MASK);
    if (is_kept_from_user(e))
        return raise_fault(e, 13, 0);
    return store_word(e, i, (e->core->cr[0] & ~mask) | (*field(e, VMCS_CR0_READ_SHADOW) & mask));
}

static bool write_base(struct engine *e, const struct insn *i)
{
    if (!in_64bit_code(e) || !(e->core->cr[4] & CR4_FSGSBASE))
        return raise_fault(e, 6, 0);
    uint64_t value = i->operand_size == 8 ? e->core->regs[i->modrm_rm] : (uint32_t)e->core->regs[i->modrm_rm];
    if (!fits_register(e, value))
        return raise_fault(e, 13, 0);
    e->core->segs[i->id == X86_INS_WRFSBASE ? FS : GS].base = value;
    return done(e, i);
}

/* Manual: RDPKRU, WRPKRU. ECX must be 0; WRPKRU wants EDX 0 too. */
static bool op_pkru(struct engine *e, const struct insn *i)
{
    uint64_t *r = e->core->regs;
    bool writes = i->id == X86_INS_WRPKRU;
    if (!(e->core->cr[4] & CR4_PKE))
        return raise_fault(e, 6, 0);
    if ((uint32_t)r[RCX] || (writes && (uint32_t)r[RDX]))
        return raise_fault(e, 13, 0);
    if (writes) {
        e->vcpu->pkru = (uint32_t)r[RAX];
        keys_changed(e);
    } else {
        r[RAX] = e->vcpu->pkru;
        r[RDX] = 0;
    }
    return done(e, i);
}

/* Manual, exit qualification of EPT violations and page-modification log-full events: "NMI unblocking due to IRET". */
static bool iret(struct engine *e, const struct insn *i)
{
    bool blocked = e->nmi_blocked, done = op_iret(e, i);
    struct pending *p = &e->pending;
    if (!done && blocked && p->kind == PENDING_EXIT && (p->reason == EXIT_EPT_VIOLATION || p->reason == EXIT_PML_FULL))
        p->qualification |= 1 << 12;
    e->vcpu->permitted &= !done;
    return done;
}

static bool icebp(struct engine *e, const struct insn *i)
{
    struct event ev = {.type = EVENT_PRIVILEGED_SOFTWARE_EXCEPTION, .vector = 1, .instruction_length = i->length};
    raise_event(e, ev);
    return true;
}

static bool do_far(struct engine *e, const struct insn *i)
{
    if (i->opcode[0] == 0x9a || (i->opcode[0] == 0xff && (i->modrm >> 3 & 7) == 3))
        return op_far_call(e, i);
    if (i->opcode[0] == 0xea || (i->opcode[0] == 0xff && (i->modrm >> 3 & 7) == 5))
        return op_far_jump(e, i);
    return op_far_return(e, i);
}

bool do_sensitive(struct engine *e, const struct insn *i)
{
    bool known = false, handled, carried_out = do_defect(e, i, &handled);
    if (handled)
        return carried_out;
    if (has_fragile_flags(i->id, i->opcode, i->modrm))
        return op_fragile_flags(e, i);
    if (i->prefix_lock || i->useless_vex)
        return raise_fault(e, 6, 0);
    count_replaced(e, i);
    if (is_deprivileged(e) && (trap_replaced(e, i, &known), known))
        return false;
    if (is_xen(e) && (carried_out = xen_sensitive(e, i, &known), known))
        return carried_out;
    switch (i->id) {
    case X86_INS_PUSHF: case X86_INS_PUSHFD: case X86_INS_PUSHFQ: return op_pushf(e, i);
    case X86_INS_POPF: case X86_INS_POPFD: case X86_INS_POPFQ: return popf(e, i);
    case X86_INS_IRET: case X86_INS_IRETD: case X86_INS_IRETQ: return iret(e, i);
    case X86_INS_CPUID: return instruction_exit(e, i, EXIT_CPUID, 0);
    case X86_INS_RDTSC: case X86_INS_RDTSCP: return op_rdtsc(e, i);
    case X86_INS_RDRAND: case X86_INS_RDSEED: return op_random(e, i);
    case X86_INS_PAUSE: return op_pause(e, i);
    case X86_INS_IN: case X86_INS_OUT: return port_access(e, i);
    case X86_INS_INSB: case X86_INS_INSW: case X86_INS_INSD:
    case X86_INS_OUTSB: case X86_INS_OUTSW: case X86_INS_OUTSD: return port_string(e, i);
    case X86_INS_SYSCALL: return op_syscall(e, i);
    case X86_INS_SYSENTER: return op_sysenter(e, i);
    case X86_INS_INT1: return icebp(e, i);
    case X86_INS_SGDT: return store_table(e, i, &e->core->gdt);
    case X86_INS_SIDT: return store_table(e, i, &e->core->idt);
    case X86_INS_SLDT: case X86_INS_STR: return store_system_segment(e, i);
    case X86_INS_SMSW: return smsw(e, i);
    case X86_INS_WRFSBASE: case X86_INS_WRGSBASE: return write_base(e, i);
    case X86_INS_RDPKRU: case X86_INS_WRPKRU: return op_pkru(e, i);
    case X86_INS_LCALL: case X86_INS_LJMP: case X86_INS_RETF: case X86_INS_RETFQ: case X86_INS_CALL: case X86_INS_JMP:
        return do_far(e, i);
    case X86_INS_LAR: case X86_INS_LSL: case X86_INS_VERR: case X86_INS_VERW: case X86_INS_ARPL: return op_lar_lsl_verr_verw(e, i);
    default: return op_move_to_segment(e, i);
    }
}
