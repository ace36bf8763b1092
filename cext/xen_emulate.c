/* What Xen emulates for the kernel of a PV guest, which runs in a ring where it may not (xen/arch/x86/pv/emul-priv-op.c). */
#include "descriptor.h"
#include "xen.h"

enum { PREFIX = 5, CPUID_BYTES = 2 };
#define CR0_SEEN (CR0_TS)          /* all of CR0 that the guest may change */
#define CR4_OWN (CR4_TSD | CR4_DE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_PAE | CR4_PGE)

void xen_task_switched(struct engine *e, bool set)
{
    e->core->cr[0] = (e->core->cr[0] & ~(uint64_t)CR0_TS) | (set ? CR0_TS : 0);
    sync_mode(e);
}

static bool general_protection(struct engine *e) { return raise_fault(e, FAULT_GP, 0); }

static bool has_iopl(struct engine *e)
{
    const struct xen_vcpu *v = xen_current(e);
    bool architectural = xen_of(e)->assists >> 4 & 1;      /* VMASST_TYPE_architectural_iopl: the kernel is in ring 0 */
    return v->iopl >= (!v->kernel ? 3u : architectural ? 0u : 1u);
}

/* Of the kernel's memory, whoever runs. */
static bool peek_kernel(const struct engine *e, uint64_t linear, uint8_t *byte)
{
    uint64_t at, entry;
    if (!xen_find_l1e((struct engine *)e, linear, &at))
        return false;
    memcpy(&entry, e->ram + at, 8);
    at = (entry & ADDRESS_MASK) | (linear & 0xfff);
    if (!(entry & 1) || at >= e->ram_size)
        return false;
    *byte = e->ram[at];
    return true;
}

/* PHYSDEVOP_set_iobitmap: a bit that is clear lets in (xen/arch/x86/pv/emul-priv-op.c, guest_io_okay). */
static bool bitmap_allows(const struct engine *e, uint32_t port, uint32_t size)
{
    const struct xen_vcpu *v = xen_current(e);
    uint8_t byte;
    for (uint32_t n = port; n < port + size; n++)
        if (n >= v->io_ports || !peek_kernel(e, v->io_bitmap + n / 8, &byte) || byte >> n % 8 & 1)
            return false;
    return true;
}

/* A domU owns no port: one that it may touch reads all ones. */
bool xen_port_allowed(struct engine *e, uint32_t port, uint32_t size)
{
    return has_iopl(e) || bitmap_allows(e, port, size) || general_protection(e);
}

/* ---- control and debug registers ---- */

static bool read_cr(struct engine *e, int number, uint64_t *value)
{
    const struct xen_vcpu *v = xen_current(e);
    switch (number) {
    case 0: *value = e->core->cr[0]; return true;
    case 2: memcpy(value, vcpu_info(e, v) + 16, 8); return true;
    case 3: *value = v->kernel_cr3; return true;
    case 4: *value = v->cr4; return true;
    default: return general_protection(e);
    }
}

static bool write_cr(struct engine *e, int number, uint64_t value)
{
    struct xen_vcpu *v = xen_current(e);
    switch (number) {
    case 0:
        if ((value ^ e->core->cr[0]) & ~(uint64_t)CR0_SEEN)
            return general_protection(e);
        xen_task_switched(e, value & CR0_TS);
        return true;
    case 2:
        memcpy(e->ram + v->info + 16, &value, 8);
        host_wrote(e, v->info + 16, 8);
        return true;
    case 4:
        if (value & ~(uint64_t)CR4_OWN || !(value & CR4_PAE))
            return general_protection(e);
        v->cr4 = value;
        e->core->cr[4] = (e->core->cr[4] & ~(uint64_t)(CR4_TSD | CR4_DE)) | (value & (CR4_TSD | CR4_DE));
        return true;
    default: return general_protection(e);     /* a root is loaded by mmuext_op */
    }
}

/* One that is on, while CR4.DE says that there are none. */
bool xen_has_port_breakpoint(struct engine *e, uint64_t dr7)
{
    for (unsigned n = 0; !(xen_current(e)->cr4 & CR4_DE) && n < 4; n++)
        if (dr7 >> 2 * n & 3 && (dr7 >> (16 + 4 * n) & 3) == 2)
            return true;
    return false;
}

static bool move_debug(struct engine *e, const struct insn *i, bool writes)
{
    struct vcpu *v = e->vcpu;
    int number = i->modrm_reg == 4 ? 6 : i->modrm_reg == 5 ? 7 : i->modrm_reg;
    uint64_t *own = number < 4 ? &v->dr[number] : number == 6 ? &v->dr6 : number == 7 ? field(e, VMCS_GUEST_DR7) : NULL;
    uint64_t *reg = &e->core->regs[i->modrm_rm];
    if (!own)
        return raise_fault(e, FAULT_UD, 0);
    if (!writes) {
        *reg = *own;
        return done(e, i);
    }
    if ((number < 4 && (!fits_register(e, *reg) || is_in_hole(*reg, 8))) || (number >= 6 && *reg >> 32) ||
        (number == 7 && xen_has_port_breakpoint(e, *reg)))
        return general_protection(e);
    *own = number == 6 ? (*reg & 0xe00f) | 0xffff0ff0 : number == 7 ? (*reg & 0xffff03ff) | 0x400 : *reg;
    debug_changed(e);
    return done(e, i);
}

static bool move(struct engine *e, const struct insn *i)
{
    bool writes = i->opcode[1] & 2;
    if (i->opcode[1] & 1)
        return move_debug(e, i, writes);
    uint64_t *reg = &e->core->regs[i->modrm_rm];
    return (writes ? write_cr(e, i->modrm_reg, *reg) : read_cr(e, i->modrm_reg, reg)) && done(e, i);
}

static bool access_msr(struct engine *e, const struct insn *i)
{
    uint64_t *r = e->core->regs, value = (uint32_t)r[RAX] | r[RDX] << 32;
    uint32_t msr = (uint32_t)r[RCX];
    bool writes = i->id == X86_INS_WRMSR;
    uint64_t *own = msr == MSR_FS_BASE ? &e->core->segs[FS].base : msr == MSR_GS_BASE ? &e->core->segs[GS].base :
                    msr == MSR_KERNEL_GS_BASE ? &xen_current(e)->other_gs : NULL;
    if (!own)
        return instruction_exit(e, i, writes ? EXIT_MSR_WRITE : EXIT_MSR_READ, 0);
    if (writes && !fits_register(e, value))
        return general_protection(e);
    if (writes) {
        *own = value;
    } else {
        r[RAX] = (uint32_t)*own;
        r[RDX] = *own >> 32;
    }
    return done(e, i);
}

static bool is_move_of_register(const struct insn *i)
{
    return i->id == X86_INS_MOV && i->opcode[0] == 0x0f && (i->opcode[1] & 0xfc) == 0x20;
}

/* UD2, "xen", CPUID: the guest wants to be answered by Xen, on every processor. */
static bool is_forced_cpuid(struct engine *e)
{
    static const uint8_t sequence[] = {0x0f, 0x0b, 'x', 'e', 'n', 0x0f, 0xa2};
    uint8_t code[sizeof sequence];
    return peek_code(e, e->core->rip, code, sizeof code) == sizeof code && !memcmp(code, sequence, sizeof code);
}

/* *known = false: the exception is the guest's own. */
bool xen_privileged(struct engine *e, const struct insn *i, bool *known)
{
    *known = true;
    if (i->id == X86_INS_UD2 && in_64bit_code(e) && is_forced_cpuid(e)) {
        e->core->rip += PREFIX;
        raise_exit(e, EXIT_CPUID, 0);
        e->pending.instruction_length = CPUID_BYTES;
        return false;
    }
    xen_of(e)->counters.emulated++;
    if ((i->id == X86_INS_CLI || i->id == X86_INS_STI) && !i->prefix_lock && has_iopl(e))
        return done(e, i);         /* the flag that counts is the mask in memory */
    if (xen_current(e)->kernel && !i->prefix_lock) {
        if (is_move_of_register(i))
            return move(e, i);
        switch (i->id) {
        case X86_INS_CLTS: xen_task_switched(e, false); return done(e, i);
        case X86_INS_RDMSR: case X86_INS_WRMSR: return access_msr(e, i);
        case X86_INS_INVLPG: xen_flush_page(e, operand_address(e, i)); return done(e, i);
        case X86_INS_INVD: case X86_INS_WBINVD: return done(e, i);
        default: break;
        }
    }
    xen_of(e)->counters.emulated--;
    return *known = false;
}

/* ---- what runs natively in ring 3, and would drop to CPL 3 here ---- */

/* A code segment that ring 3 may load: flat Xen's, or the guest's, which all have DPL 3. */
static bool load_code(struct engine *e, uint16_t selector)
{
    struct descriptor d;
    if ((selector & 3) != 3)
        return selector_fault(e, FAULT_GP, selector, 0);
    if (!read_descriptor(e, selector, FAULT_GP, 0, &d))
        return false;
    if (!is_code(d.high) || dpl_of(d.high) != 3 || !(d.high & DESC_P) || !(d.high & DESC_L))
        return selector_fault(e, FAULT_GP, selector, 0);
    set_segment(e, CS, selector, 0, 0xffffffff, (d.high & ~(3u << DESC_DPL_SHIFT)) | 1u << DESC_DPL_SHIFT);
    return true;
}

static bool native_iret(struct engine *e, const struct insn *i)
{
    uint64_t f[5], flags = guest_rflags(e);
    const uint64_t restored = 0x3c7fd7 & ~(uint64_t)(FL_IF | FL_IOPL);
    if (i->operand_size != 8)
        return general_protection(e);
    if (!mem_read(e, e->core->regs[RSP], f, sizeof f, RIGHTS_CURRENT))
        return false;
    if (!is_canonical(e, f[0]))
        return general_protection(e);
    if (!load_code(e, (uint16_t)f[1]))
        return false;
    e->core->segs[SS].selector = (uint16_t)f[4] | 3;
    e->core->rip = f[0];
    e->core->regs[RSP] = f[3];
    set_guest_rflags(e, (flags & ~restored) | (f[2] & restored));
    clear_event_shadow(e);
    return true;
}

static bool far_return(struct engine *e, const struct insn *i)
{
    uint64_t f[2] = {0}, *sp = &e->core->regs[RSP];
    unsigned unit = i->operand_size == 8 ? 8 : 4;
    uint8_t raw[16];
    if (!mem_read(e, *sp, raw, 2 * unit, RIGHTS_CURRENT))
        return false;
    memcpy(&f[0], raw, unit);
    memcpy(&f[1], raw + unit, unit);
    if (!is_canonical(e, f[0]))
        return general_protection(e);
    if (!load_code(e, (uint16_t)f[1]))
        return false;
    *sp += 2 * unit + (i->opcode[0] == 0xca ? (uint16_t)i->immediate : 0);
    e->core->rip = f[0];
    clear_event_shadow(e);
    return true;
}

static bool is_load_of_ss(const struct insn *i) { return i->opcode[0] == 0x8e && (i->modrm >> 3 & 7) == SS; }

/* MOV SS: ring 3's checks, which are that the segment has DPL 3 like all of the guest's. */
static bool load_ss(struct engine *e, const struct insn *i)
{
    uint16_t selector;
    struct descriptor d;
    if (!operand_selector(e, i, &selector))
        return false;
    if (is_null(selector) || (selector & 3) != 3)
        return selector_fault(e, FAULT_GP, selector, 0);
    if (!read_descriptor(e, selector, FAULT_GP, 0, &d))
        return false;
    if (!is_writable(d.high) || dpl_of(d.high) != 3 || !(d.high & DESC_P))
        return selector_fault(e, FAULT_GP, selector, 0);
    e->core->segs[SS].selector = selector;
    done(e, i);
    block_events_for_one_instruction(e, true);
    return true;
}

/* Instructions under the code hook. *known = false: as on any processor. */
bool xen_sensitive(struct engine *e, const struct insn *i, bool *known)
{
    bool kernel = xen_current(e)->kernel;
    *known = true;
    switch (i->id) {
    case X86_INS_SYSCALL: return xen_syscall(e, i);
    case X86_INS_SYSENTER: return xen_sysenter(e, i);
    case X86_INS_INSB: case X86_INS_INSW: case X86_INS_INSD: case X86_INS_OUTSB: case X86_INS_OUTSW: case X86_INS_OUTSD:
        return general_protection(e);
    case X86_INS_IRET: case X86_INS_IRETD: case X86_INS_IRETQ: if (kernel) return native_iret(e, i); break;
    case X86_INS_RETF: case X86_INS_RETFQ: if (kernel) return far_return(e, i); break;
    case X86_INS_LCALL: case X86_INS_LJMP: if (kernel) return general_protection(e); break;
    case X86_INS_CALL: case X86_INS_JMP: if (kernel) return general_protection(e); break;      /* far: others are not hooked */
    case X86_INS_LSS: if (kernel) return general_protection(e); break;
    case X86_INS_MOV: if (kernel && is_load_of_ss(i)) return load_ss(e, i); break;
    default: break;
    }
    return *known = false;
}
