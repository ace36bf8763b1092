/* Tour 2.4: what ring 0 may do, done as on silicon: by the processor itself unless a VMCS control says exit. */
#include "xen.h"

static uint64_t gpr(struct engine *e, int number, int size)
{
    uint64_t v = e->core->regs[number];
    return size == 8 ? v : size == 4 ? (uint32_t)v : (uint16_t)v;
}

static void set_gpr(struct engine *e, int number, uint64_t value, int size)
{
    uint64_t *r = &e->core->regs[number];
    *r = size == 2 ? (*r & ~0xffffull) | (value & 0xffff) : size == 4 ? (uint32_t)value : value;
}

/* ---- control and debug registers ---- */

static bool mov_cr_exit(struct engine *e, const struct insn *i, int cr, bool from)
{
    uint64_t reg = (uint64_t)i->modrm_rm << 8;
    return instruction_exit(e, i, EXIT_CR_ACCESS, (uint64_t)cr | (from ? 1u << 4 : 0) | reg);
}

/* Bits that must not be set, or not together (manual: "Control Registers", MOV to CR). */
static bool cr0_is_valid(const struct engine *e, uint64_t v)
{
    if (v >> 32 || (v & CR0_PG && !(v & CR0_PE)) || (v & CR0_NW && !(v & CR0_CD)))
        return false;
    return !(in_long_mode(e) && !(v & CR0_PG) && in_64bit_code(e));
}

static bool mov_to_cr0(struct engine *e, const struct insn *i, uint64_t value)
{
    uint64_t mask = *field(e, VMCS_CR0_GUEST_HOST_MASK), shadow = *field(e, VMCS_CR0_READ_SHADOW);
    if ((value ^ shadow) & mask)   /* first, manual: "Relative Priority of Faults and VM Exits" */
        return mov_cr_exit(e, i, 0, false);
    uint64_t old = e->core->cr[0], new = (old & mask) | (value & ~mask) | CR0_ET;
    uint64_t fixed = e->caps.cr0_fixed0 & ~(exiting2(e, SECONDARY_UNRESTRICTED_GUEST) ? CR0_PE | CR0_PG : 0);
    if (!cr0_is_valid(e, value) || fixed & ~new)       /* bits that VMX operation fixes: "Changes to Instruction Behavior" */
        return raise_fault(e, 13, 0);
    e->core->cr[0] = new;
    cr0_changed(e, old);
    sync_mode(e);
    return done(e, i);
}

static bool is_cr3_target(struct engine *e, uint64_t value)
{
    for (uint64_t k = 0; k < *field(e, VMCS_CR3_TARGET_COUNT); k++)
        if (*field(e, VMCS_CR3_TARGET_VALUE0 + (int)k) == value)
            return true;
    return false;
}

static bool mov_to_cr3(struct engine *e, const struct insn *i, uint64_t value)
{
    if (exiting(e, PRIMARY_CR3_LOAD_EXITING) && !is_cr3_target(e, value))
        return mov_cr_exit(e, i, 3, false);
    bool keeps = e->core->cr[4] & CR4_PCIDE && value >> 63;        /* bit 63 is no part of the address then */
    if (e->core->cr[4] & CR4_PCIDE)
        value &= ~(1ull << 63);
    if (in_long_mode(e) && value & (e->mmu.beyond | 0xfff0000000000000ull))
        return raise_fault(e, 13, 0);
    bool pae = e->core->cr[0] & CR0_PG && e->core->cr[4] & CR4_PAE && !in_long_mode(e);
    if (pae && !load_pdptes(e, value))
        return false;
    e->core->cr[3] = in_long_mode(e) ? value : (uint32_t)value;
    cr3_loaded(e, keeps);
    return done(e, i);
}

/* Manual, MOV to CR4: what paging and long mode forbid. */
static bool cr4_is_valid(const struct engine *e, uint64_t v)
{
    uint64_t changed = e->core->cr[4] ^ v;
    if (in_long_mode(e) && (!(v & CR4_PAE) || changed & CR4_LA57))
        return false;
    return !(changed & v & CR4_PCIDE && (!in_long_mode(e) || e->core->cr[3] & 0xfff));
}

static bool mov_to_cr4(struct engine *e, const struct insn *i, uint64_t value)
{
    uint64_t mask = *field(e, VMCS_CR4_GUEST_HOST_MASK), shadow = *field(e, VMCS_CR4_READ_SHADOW);
    if ((value ^ shadow) & mask)
        return mov_cr_exit(e, i, 4, false);
    uint64_t old = e->core->cr[4], now = (old & mask) | (value & ~mask);
    if (!cr4_is_valid(e, now) || e->caps.cr4_fixed0 & ~now || now & ~e->caps.cr4_fixed1)
        return raise_fault(e, 13, 0);
    bool pae = e->core->cr[0] & CR0_PG && now & CR4_PAE && !in_long_mode(e);
    if (pae && (old ^ now) & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP) && !load_pdptes(e, e->core->cr[3]))
        return false;
    e->core->cr[4] = now;
    cr4_changed(e, old);
    sync_mode(e);
    return done(e, i);
}

static bool mov_to_cr(struct engine *e, const struct insn *i)
{
    int cr = i->modrm_reg;
    uint64_t value = gpr(e, i->modrm_rm, in_64bit_code(e) ? 8 : 4);
    switch (cr) {
    case 0: return mov_to_cr0(e, i, value);
    case 2: e->core->cr[2] = e->vcpu->cr2 = value; return done(e, i);
    case 3: return mov_to_cr3(e, i, value);
    case 4: return mov_to_cr4(e, i, value);
    case 8:
        if (exiting(e, PRIMARY_CR8_LOAD_EXITING))
            return mov_cr_exit(e, i, 8, false);
        if (value >> 4)
            return raise_fault(e, 13, 0);
        return write_cr8(e, i, value);
    default: return raise_fault(e, 6, 0);
    }
}

static uint64_t shadowed(struct engine *e, int cr, int mask_field, int shadow_field)
{
    uint64_t mask = *field(e, mask_field);
    return (e->core->cr[cr] & ~mask) | (*field(e, shadow_field) & mask);
}

static bool mov_from_cr(struct engine *e, const struct insn *i)
{
    uint64_t value;
    switch (i->modrm_reg) {
    case 0: value = shadowed(e, 0, VMCS_CR0_GUEST_HOST_MASK, VMCS_CR0_READ_SHADOW); break;
    case 2: value = e->core->cr[2]; break;
    case 3:
        if (exiting(e, PRIMARY_CR3_STORE_EXITING))
            return mov_cr_exit(e, i, 3, true);
        value = e->core->cr[3];
        break;
    case 4: value = shadowed(e, 4, VMCS_CR4_GUEST_HOST_MASK, VMCS_CR4_READ_SHADOW); break;
    case 8:
        if (exiting(e, PRIMARY_CR8_STORE_EXITING))
            return mov_cr_exit(e, i, 8, true);
        value = read_cr8(e);
        break;
    default: return raise_fault(e, 6, 0);
    }
    set_gpr(e, i->modrm_rm, value, in_64bit_code(e) ? 8 : 4);
    return done(e, i);
}

static bool mov_dr(struct engine *e, const struct insn *i)
{
    bool from = i->opcode[1] == 0x21;
    int dr = i->modrm_reg, size = in_64bit_code(e) ? 8 : 4;
    uint64_t *dr7 = field(e, VMCS_GUEST_DR7);
    if (exiting(e, PRIMARY_MOV_DR_EXITING))
        return instruction_exit(e, i, EXIT_DR_ACCESS, (uint64_t)dr | (from ? 1u << 4 : 0) | (uint64_t)i->modrm_rm << 8);
    if (dr > 7 || ((dr == 4 || dr == 5) && e->core->cr[4] & CR4_DE))
        return raise_fault(e, 6, 0);
    if (*dr7 & 1 << 13) {          /* general detect */
        raise_fault(e, 1, 0);
        e->pending.dr6 = 1 << 13;
        return false;
    }
    dr = dr == 4 ? 6 : dr == 5 ? 7 : dr;
    uint64_t *reg = dr < 4 ? &e->vcpu->dr[dr] : dr == 6 ? &e->vcpu->dr6 : dr7;
    if (from) {
        set_gpr(e, i->modrm_rm, *reg, size);
        return done(e, i);
    }
    uint64_t value = gpr(e, i->modrm_rm, size);
    if (dr >= 6 && value >> 32)
        return raise_fault(e, 13, 0);
    *reg = dr == 6 ? (value & 0xe00f) | 0xffff0ff0 : dr == 7 ? (value & 0xffff2bff) | 0x400 : value;
    if (dr != 6)
        debug_changed(e);
    return done(e, i);
}

static bool lmsw(struct engine *e, const struct insn *i)
{
    uint16_t source;
    if (!i->is_memory)
        source = (uint16_t)e->core->regs[i->modrm_rm];
    else if (!mem_read(e, operand_address(e, i), &source, 2, RIGHTS_CURRENT))
        return false;
    uint64_t mask = *field(e, VMCS_CR0_GUEST_HOST_MASK), shadow = *field(e, VMCS_CR0_READ_SHADOW);
    uint64_t value = (source & 0xf) | (shadowed(e, 0, VMCS_CR0_GUEST_HOST_MASK, VMCS_CR0_READ_SHADOW) & CR0_PE);   /* PE is not cleared */
    if ((value ^ shadow) & mask & 0xf) {
        instruction_exit(e, i, EXIT_CR_ACCESS, 3u << 4 | (i->is_memory ? 1u << 6 : 0) | (uint64_t)source << 16);
        e->pending.guest_linear = i->is_memory ? operand_address(e, i) : 0;
        return false;
    }
    uint64_t own = ~mask & 0xe;
    e->core->cr[0] = (e->core->cr[0] & ~own) | (value & own);
    sync_mode(e);
    return done(e, i);
}

static bool clts(struct engine *e, const struct insn *i)
{
    uint64_t mask = *field(e, VMCS_CR0_GUEST_HOST_MASK), shadow = *field(e, VMCS_CR0_READ_SHADOW);
    if (mask & shadow & CR0_TS)
        return instruction_exit(e, i, EXIT_CR_ACCESS, 2u << 4);
    if (!(mask & CR0_TS))
        e->core->cr[0] &= ~(uint64_t)CR0_TS;
    sync_mode(e);
    return done(e, i);
}

/* ---- model-specific registers ---- */

uint64_t *plain_msr(struct engine *e, uint32_t msr)
{
    struct vcpu *v = e->vcpu;
    switch (msr) {
    case MSR_FS_BASE: return &e->core->segs[FS].base;
    case MSR_GS_BASE: return &e->core->segs[GS].base;
    case MSR_KERNEL_GS_BASE: return &v->kernel_gs_base;
    case MSR_STAR: return &v->star;
    case MSR_LSTAR: return &v->lstar;
    case MSR_CSTAR: return &v->cstar;
    case MSR_SYSCALL_MASK: return &v->fmask;
    case MSR_IA32_SYSENTER_CS: return field(e, VMCS_GUEST_SYSENTER_CS);
    case MSR_IA32_SYSENTER_ESP: return field(e, VMCS_GUEST_SYSENTER_ESP);
    case MSR_IA32_SYSENTER_EIP: return field(e, VMCS_GUEST_SYSENTER_EIP);
    case MSR_TSC_AUX: return &v->tsc_aux;
    case MSR_IA32_PKRS: return field(e, VMCS_GUEST_IA32_PKRS);
    default: return NULL;
    }
}

static bool holds_address(uint32_t msr)
{
    return msr == MSR_FS_BASE || msr == MSR_GS_BASE || msr == MSR_KERNEL_GS_BASE || msr == MSR_LSTAR || msr == MSR_CSTAR ||
           msr == MSR_IA32_SYSENTER_ESP || msr == MSR_IA32_SYSENTER_EIP;
}

bool write_plain_msr(struct engine *e, uint32_t msr, uint64_t value)
{
    uint64_t *reg = plain_msr(e, msr);
    bool upper_reserved = msr == MSR_SYSCALL_MASK || msr == MSR_TSC_AUX || msr == MSR_IA32_PKRS;
    if (!reg || (holds_address(msr) && !fits_register(e, value)) || (upper_reserved && value >> 32))
        return false;
    *reg = msr == MSR_IA32_SYSENTER_CS ? (uint32_t)value : value;
    if (msr == MSR_IA32_PKRS)
        keys_changed(e);
    return true;
}

static bool access_virtual_x2apic(struct engine *e, const struct insn *i, uint32_t msr, bool writes, uint64_t value)
{
    if (writes)
        return write_virtual_x2apic(e, i, msr, value);
    value = read_virtual_x2apic(e, msr);
    e->core->regs[RAX] = (uint32_t)value;
    e->core->regs[RDX] = value >> 32;
    return done(e, i);
}

static bool access_msr(struct engine *e, const struct insn *i)
{
    uint32_t msr = (uint32_t)e->core->regs[RCX];
    bool writes = i->opcode[1] == 0x30;
    uint64_t value = (uint32_t)e->core->regs[RAX] | e->core->regs[RDX] << 32, *reg = plain_msr(e, msr);
    if (is_virtual_x2apic(e, msr, writes) && !msr_exits(e, msr, writes))
        return access_virtual_x2apic(e, i, msr, writes, value);
    if (!reg || msr_exits(e, msr, writes))
        return instruction_exit(e, i, writes ? EXIT_MSR_WRITE : EXIT_MSR_READ, 0);
    if (!writes) {
        e->core->regs[RAX] = (uint32_t)*reg;
        e->core->regs[RDX] = *reg >> 32;
        return done(e, i);
    }
    return write_plain_msr(e, msr, value) ? done(e, i) : raise_fault(e, 13, 0);
}

/* ---- descriptor-table registers and the rest ---- */

static bool load_table(struct engine *e, const struct insn *i, struct core_segment *table)
{
    bool wide = in_64bit_code(e);
    uint8_t image[10] = {0};
    uint64_t base = 0;
    uint16_t limit;
    if (exiting2(e, SECONDARY_DESCRIPTOR_TABLE_EXITING))
        return table_exit(e, i, EXIT_GDTR_IDTR);
    if (!mem_read(e, operand_address(e, i), image, wide ? 10 : 6, RIGHTS_CURRENT))
        return false;
    memcpy(&limit, image, 2);
    memcpy(&base, image + 2, wide ? 8 : 4);
    if (wide && !fits_register(e, base))
        return raise_fault(e, 13, 0);
    table->base = !wide && i->operand_size == 2 ? base & 0xffffff : base;
    table->limit = limit;
    return done(e, i);
}

static bool load_system_segment(struct engine *e, const struct insn *i)
{
    uint16_t selector;
    if (exiting2(e, SECONDARY_DESCRIPTOR_TABLE_EXITING))
        return table_exit(e, i, EXIT_LDTR_TR);
    if (!i->is_memory)
        selector = (uint16_t)e->core->regs[i->modrm_rm];
    else if (!mem_read(e, operand_address(e, i), &selector, 2, RIGHTS_CURRENT))
        return false;
    bool ok = i->id == X86_INS_LLDT ? load_ldtr(e, selector) : load_tr(e, selector);
    return ok && done(e, i);
}

static bool swapgs(struct engine *e, const struct insn *i)
{
    uint64_t base = e->core->segs[GS].base;
    e->core->segs[GS].base = e->vcpu->kernel_gs_base;
    e->vcpu->kernel_gs_base = base;
    return done(e, i);
}

static bool invlpg(struct engine *e, const struct insn *i)
{
    uint64_t linear = operand_address(e, i);
    if (exiting(e, PRIMARY_INVLPG_EXITING))
        return instruction_exit(e, i, EXIT_INVLPG, linear);
    if (fits_register(e, linear))
        invalidate_page(e, linear);
    return done(e, i);
}

static bool set_ac(struct engine *e, const struct insn *i)
{
    uint64_t ac = 1ull << 18;
    e->core->eflags = i->id == X86_INS_STAC ? e->core->eflags | ac : e->core->eflags & ~ac;
    return done(e, i);
}

static bool rdpmc(struct engine *e, const struct insn *i)
{
    if (exiting(e, PRIMARY_RDPMC_EXITING))
        return instruction_exit(e, i, EXIT_RDPMC, 0);
    return raise_fault(e, 13, 0);  /* no counters are offered */
}

/* Privileged at CPL 0 only; `known` says whether the instruction is ours at all. */
static bool do_ring0(struct engine *e, const struct insn *i, bool *known)
{
    switch (i->id) {
    case X86_INS_HLT: return exiting(e, PRIMARY_HLT_EXITING) ? instruction_exit(e, i, EXIT_HLT, 0) : (halt_guest(e), done(e, i));
    case X86_INS_MOV:
        if (i->opcode[0] != 0x0f || (i->opcode[1] & 0xfc) != 0x20)
            break;
        return i->opcode[1] == 0x22 ? mov_to_cr(e, i) : i->opcode[1] == 0x20 ? mov_from_cr(e, i) : mov_dr(e, i);
    case X86_INS_CLTS: return clts(e, i);
    case X86_INS_LMSW: return lmsw(e, i);
    case X86_INS_RDMSR: case X86_INS_WRMSR: return access_msr(e, i);
    case X86_INS_LGDT: return load_table(e, i, &e->core->gdt);
    case X86_INS_LIDT: return load_table(e, i, &e->core->idt);
    case X86_INS_LLDT: case X86_INS_LTR: return load_system_segment(e, i);
    case X86_INS_SWAPGS: return swapgs(e, i);
    case X86_INS_INVLPG: return invlpg(e, i);
    case X86_INS_INVD: return instruction_exit(e, i, EXIT_INVD, 0);
    case X86_INS_WBINVD: return exiting2(e, SECONDARY_WBINVD_EXITING) ? instruction_exit(e, i, EXIT_WBINVD, 0) : done(e, i);
    case X86_INS_SYSRET: case X86_INS_SYSRETQ: return op_sysret(e, i);
    case X86_INS_SYSEXIT: case X86_INS_SYSEXITQ: return op_sysexit(e, i);
    case X86_INS_RDPMC: return rdpmc(e, i);
    default: break;
    }
    *known = false;
    return false;
}

static bool is_ring0(const struct insn *i)
{
    switch (i->id) {
    case X86_INS_HLT: case X86_INS_CLTS: case X86_INS_LMSW: case X86_INS_RDMSR: case X86_INS_WRMSR: case X86_INS_LGDT:
    case X86_INS_LIDT: case X86_INS_LLDT: case X86_INS_LTR: case X86_INS_SWAPGS: case X86_INS_INVLPG: case X86_INS_INVD:
    case X86_INS_WBINVD: case X86_INS_SYSRET: case X86_INS_SYSRETQ: case X86_INS_SYSEXIT: case X86_INS_SYSEXITQ: return true;
    case X86_INS_MOV: return i->opcode[0] == 0x0f && (i->opcode[1] & 0xfc) == 0x20;
    default: return false;
    }
}

bool do_privileged(struct engine *e, const struct insn *i, bool *known)
{
    if (is_xen(e))
        return xen_privileged(e, i, known);
    *known = true;
    switch (i->id) {
    case X86_INS_VMCALL: case X86_INS_VMMCALL: return instruction_exit(e, i, EXIT_VMCALL, 0);  /* software sees which by the bytes */
    case X86_INS_VMFUNC: return op_vmfunc(e, i);
    case X86_INS_INVPCID: return i->prefix_lock ? raise_fault(e, 6, 0) : op_invpcid(e, i);
    case X86_INS_STAC: case X86_INS_CLAC: return e->cpl ? raise_fault(e, 6, 0) : is_deprivileged(e) ? trap_ring0(e, i) : set_ac(e, i);
    case X86_INS_SYSRET: case X86_INS_SYSRETQ: if (!in_64bit_code(e) || !(e->efer & 1)) return raise_fault(e, 6, 0); break;
    case X86_INS_SWAPGS: if (!in_64bit_code(e)) return raise_fault(e, 6, 0); break;
    case X86_INS_LLDT: case X86_INS_LTR: if (in_real_mode(e) || in_v8086(e)) return raise_fault(e, 6, 0); break;
    case X86_INS_XSETBV: return raise_fault(e, 6, 0);      /* before any check of CPL: CR4.OSXSAVE cannot be set */
    case X86_INS_RDPMC: if (e->cpl && !(e->core->cr[4] & CR4_PCE)) return raise_fault(e, 13, 0); return rdpmc(e, i);
    case X86_INS_CLI: case X86_INS_STI: return is_deprivileged(e) ? trap_interrupt_flag(e, i, known) : (*known = false);
    default: break;
    }
    if (is_ring0(i) && !i->prefix_lock)
        return e->cpl ? raise_fault(e, 13, 0) : is_deprivileged(e) ? trap_ring0(e, i) : do_ring0(e, i, known);
    return do_vmx(e, i, known);
}
