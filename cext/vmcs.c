/* Guest state in and out of the VMCS, and the exit record (manual: "VM Entries", "VM Exits"). */
#include "xen.h"

_Static_assert(VMCS_FIELD_COUNT <= 256, "struct vcpu holds 256 fields");
_Static_assert(VMCS_GUEST_TR_SELECTOR == VMCS_GUEST_ES_SELECTOR + TR && VMCS_GUEST_TR_LIMIT == VMCS_GUEST_ES_LIMIT + TR &&
               VMCS_GUEST_TR_AR_BYTES == VMCS_GUEST_ES_AR_BYTES + TR && VMCS_GUEST_TR_BASE == VMCS_GUEST_ES_BASE + TR,
               "segment fields are in register order");

uint32_t flags_to_access_rights(uint32_t flags) { return (flags >> 8 & 0xf0ff) | (flags & DESC_P ? 0 : AR_UNUSABLE); }

uint32_t access_rights_to_flags(uint32_t rights)
{
    return rights & AR_UNUSABLE ? (rights & 0xf07f) << 8 & ~(uint32_t)DESC_P : (rights & 0xf0ff) << 8;
}

/* For this paging mode translations may be cached from here on. */
static void note_left(struct engine *e)
{
    const struct core *c = e->core;
    const uint64_t left[4] = {c->cr[0], c->cr[3], c->cr[4], e->efer};
    memcpy(e->vcpu->left, left, sizeof left);
    e->pkru = e->vcpu->pkru;
    e->pkrs = *field(e, VMCS_GUEST_IA32_PKRS);
}

/* What translations depend on has changed since this vcpu exited. */
static bool paging_changed(const struct vcpu *v, uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    const uint64_t in_cr0 = CR0_PE | CR0_PG, in_efer = 1u << 8 | 1u << 10 | 1u << 11;
    const uint64_t in_cr4 = CR4_PAE | CR4_PSE | CR4_PGE | CR4_PCIDE | CR4_LA57;
    return ((v->left[0] ^ cr0) & in_cr0) || ((v->left[2] ^ cr4) & in_cr4) || ((v->left[3] ^ efer) & in_efer);
}

/* Rights change at once, whoever cached the translation: Unicorn keeps them in its TLB. */
static bool rights_changed(struct engine *e, uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    const uint64_t in_cr4 = CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PKS;
    return ((e->core->cr[0] ^ cr0) & CR0_WP) || ((e->core->cr[4] ^ cr4) & in_cr4) || ((e->efer ^ efer) & 1u << 11) ||
           (cr4 & (CR4_PKE | CR4_PKS) && (e->pkru != e->vcpu->pkru || e->pkrs != *field(e, VMCS_GUEST_IA32_PKRS)));
}

static void load_control(struct engine *e)
{
    struct core *c = e->core;
    struct vcpu *v = e->vcpu;
    uint64_t cr0 = *field(e, VMCS_GUEST_CR0), cr3 = *field(e, VMCS_GUEST_CR3), cr4 = *field(e, VMCS_GUEST_CR4);
    uint64_t efer = *field(e, VMCS_GUEST_IA32_EFER);
    bool rights = rights_changed(e, cr0, cr4, efer);
    c->cr[0] = cr0 | CR0_ET;
    c->cr[2] = v->cr2;
    c->cr[3] = cr3;
    c->cr[4] = cr4;
    e->efer = efer;
    mmu_select(e);
    select_apic_page(e);
    if (paging_changed(v, cr0, cr4, efer))
        paging_changed_by_entry(e);
    else if (v->left[1] != cr3)
        cr3_loaded(e, false);
    if (rights)
        micro_flush(e);
    note_left(e);
}

static void load_segment(struct engine *e, int seg)
{
    struct core_segment s = {.selector = (uint16_t)*field(e, VMCS_GUEST_ES_SELECTOR + seg), .base = *field(e, VMCS_GUEST_ES_BASE + seg),
                             .limit = (uint32_t)*field(e, VMCS_GUEST_ES_LIMIT + seg),
                             .flags = access_rights_to_flags((uint32_t)*field(e, VMCS_GUEST_ES_AR_BYTES + seg))};
    *(seg == LDTR ? &e->core->ldt : seg == TR ? &e->core->tr : &e->core->segs[seg]) = s;
}

static void load_tables(struct engine *e)
{
    e->core->gdt.base = *field(e, VMCS_GUEST_GDTR_BASE);
    e->core->gdt.limit = (uint16_t)*field(e, VMCS_GUEST_GDTR_LIMIT);
    e->core->idt.base = *field(e, VMCS_GUEST_IDTR_BASE);
    e->core->idt.limit = (uint16_t)*field(e, VMCS_GUEST_IDTR_LIMIT);
}

/* Another vcpu's x87 and SSE registers stand in the core until this one's are needed: at entry. */
void load_fpu(struct engine *e, struct vcpu *v)
{
    size_t n = (size_t)(layout.fpu_end - layout.fpu);
    if (e->loaded == v)
        return;
    engine_sync(e, e->loaded);
    memcpy(e->env + layout.fpu, v->fpu_bytes == n ? v->fpu : e->fpu_reset, n);
    e->loaded = v;
}

/* What no entry may pass to the core, whatever the VMCS says; the whole of the manual's checks stand above this. */
static bool state_can_run(struct engine *e)
{
    uint64_t cr0 = *field(e, VMCS_GUEST_CR0), cr4 = *field(e, VMCS_GUEST_CR4), efer = *field(e, VMCS_GUEST_IA32_EFER);
    bool lma = efer >> 10 & 1, pg = cr0 >> 31 & 1;
    if ((pg && !(cr0 & CR0_PE)) || (lma && !(pg && cr4 & CR4_PAE)) || *field(e, VMCS_GUEST_ACTIVITY_STATE) > ACTIVITY_HLT)
        return false;
    bool wide = lma && *field(e, VMCS_GUEST_CS_AR_BYTES) >> 13 & 1;
    return !(lma && *field(e, VMCS_GUEST_RFLAGS) >> 17 & 1) && (wide || !(*field(e, VMCS_GUEST_RIP) >> 32));
}

bool load_guest(struct engine *e, struct vcpu *v)
{
    struct core *c = e->core;
    uint64_t interruptibility = *field(e, VMCS_GUEST_INTERRUPTIBILITY_INFO), flags = *field(e, VMCS_GUEST_RFLAGS);
    if (!state_can_run(e))
        return false;
    load_fpu(e, v);
    memcpy(c->regs, v->gpr, sizeof v->gpr);
    c->regs[RSP] = *field(e, VMCS_GUEST_RSP);
    c->rip = *field(e, VMCS_GUEST_RIP);
    load_control(e);
    for (int seg = ES; seg <= TR; seg++)
        load_segment(e, seg);
    if (in_64bit_code(e))
        c->segs[CS].base = 0;      /* the processor ignores it there, TCG does not */
    load_tables(e);
    e->cs_dpl = c->segs[CS].flags >> DESC_DPL_SHIFT & 3;
    e->cpl = !(c->cr[0] & CR0_PE) ? 0 : flags >> 17 & 1 ? 3 : (int)(c->segs[SS].flags >> DESC_DPL_SHIFT & 3);
    e->shadow_is_mov_ss = interruptibility & INTERRUPTIBILITY_BLOCKING_BY_MOV_SS;
    e->mov_ss_at = e->retired;
    e->nmi_blocked = interruptibility & INTERRUPTIBILITY_BLOCKING_BY_NMI;
    bool shadow = interruptibility & (INTERRUPTIBILITY_BLOCKING_BY_MOV_SS | INTERRUPTIBILITY_BLOCKING_BY_STI);
    c->hflags = (c->hflags & ~(uint32_t)HF_INHIBIT_IRQ) | (shadow ? HF_INHIBIT_IRQ : 0);
    forget_steps(e);
    e->mtf = exiting(e, PRIMARY_MONITOR_TRAP_FLAG);
    e->stepping = goes_slowly(e);
    debug_changed(e);
    set_guest_rflags(e, flags);
    sync_mode(e);
    return true;
}

/* Of all events, INT n and INT3 behind MOV SS leave what it holds back pending (manual: "Delivery of Pending Debug Exceptions
 * after VM Entry"). */
static uint64_t held_beyond(const struct engine *e, uint64_t info, uint64_t pending)
{
    uint64_t type = info >> 8 & 7;
    bool software = type == EVENT_SOFTWARE_INTERRUPT || type == EVENT_SOFTWARE_EXCEPTION;
    return info >> 31 & 1 && software && in_mov_ss_shadow(e) ? pending & PENDING_BREAKPOINTS : 0;
}

static void raise_debug(struct engine *e, uint64_t cause)
{
    raise_event(e, (struct event){.type = EVENT_HARDWARE_EXCEPTION, .vector = 1, .dr6 = cause});
}

/* The event that software asked to inject, else a pending debug trap: single step, breakpoints. */
void inject_at_entry(struct engine *e)
{
    uint64_t info = *field(e, VMCS_VM_ENTRY_INTR_INFO_FIELD), *pending = field(e, VMCS_GUEST_PENDING_DBG_EXCEPTIONS);
    if (is_xen(e) && !(info >> 31 & 1)) {
        xen_at_entry(e);
        return;
    }
    uint64_t held = held_beyond(e, info, *pending);
    if (events_blocked(e)) {       /* held back for one instruction; what TF causes comes by itself */
        if (*pending & PENDING_BREAKPOINTS)
            hold_back(e, *pending & PENDING_BREAKPOINTS);
        *pending = 0;
    }
    if (info >> 31 & 1) {
        struct event ev = {.type = (enum event_type)(info >> 8 & 7), .vector = (uint8_t)info, .has_error = info >> 11 & 1,
                           .error = (uint32_t)*field(e, VMCS_VM_ENTRY_EXCEPTION_ERROR_CODE), .cr2 = e->vcpu->cr2,
                           .instruction_length = (uint32_t)*field(e, VMCS_VM_ENTRY_INSTRUCTION_LEN)};
        *field(e, VMCS_VM_ENTRY_INTR_INFO_FIELD) = info & ~(1ull << 31);
        *pending = 0;              /* (manual: "Delivery of Pending Debug Exceptions after VM Entry") */
        *field(e, VMCS_GUEST_ACTIVITY_STATE) = ACTIVITY_ACTIVE;
        charge_injection(e);
        if (ev.type == (enum event_type)INTR_TYPE_OTHER)
            monitor_trap(e, 0);
        else
            inject(e, ev);
        if (unlikely(held) && !e->exit_ready)
            raise_debug(e, held);
        e->price.injects = false;
    } else if (*pending & (PENDING_BREAKPOINTS | PENDING_BS)) {
        uint64_t cause = *pending & (PENDING_BREAKPOINTS | PENDING_BS);
        *pending = 0;
        raise_debug(e, cause);
    }
}

static void save_segment(struct engine *e, int seg)
{
    struct core_segment s = guest_segment(e, seg);
    *field(e, VMCS_GUEST_ES_SELECTOR + seg) = s.selector;
    *field(e, VMCS_GUEST_ES_BASE + seg) = s.base;
    *field(e, VMCS_GUEST_ES_LIMIT + seg) = s.limit;
    *field(e, VMCS_GUEST_ES_AR_BYTES + seg) = flags_to_access_rights(s.flags);
}

/* In a shadow, the debug traps that it holds back. */
static void save_pending(struct engine *e)
{
    uint64_t hits = e->debug.hits & PENDING_BREAKPOINTS;
    if (events_blocked(e))
        *field(e, VMCS_GUEST_PENDING_DBG_EXCEPTIONS) = hits | (hits ? PENDING_ENABLED_BREAKPOINT : 0) | (e->guest_tf ? PENDING_BS : 0);
}

void save_guest(struct engine *e)
{
    struct core *c = e->core;
    struct vcpu *v = e->vcpu;
    memcpy(v->gpr, c->regs, sizeof v->gpr);
    v->cr2 = c->cr[2];
    *field(e, VMCS_GUEST_RSP) = c->regs[RSP];
    *field(e, VMCS_GUEST_RIP) = in_64bit_code(e) ? c->rip : (uint32_t)c->rip;
    *field(e, VMCS_GUEST_RFLAGS) = guest_rflags(e);
    *field(e, VMCS_GUEST_CR0) = c->cr[0];
    *field(e, VMCS_GUEST_CR3) = c->cr[3];
    *field(e, VMCS_GUEST_CR4) = c->cr[4];
    *field(e, VMCS_GUEST_IA32_EFER) = e->efer;
    note_left(e);
    for (int seg = ES; seg <= TR; seg++)
        save_segment(e, seg);
    *field(e, VMCS_GUEST_GDTR_BASE) = c->gdt.base;
    *field(e, VMCS_GUEST_GDTR_LIMIT) = c->gdt.limit;
    *field(e, VMCS_GUEST_IDTR_BASE) = c->idt.base;
    *field(e, VMCS_GUEST_IDTR_LIMIT) = c->idt.limit;
    uint64_t shadow = !events_blocked(e) ? 0 : in_mov_ss_shadow(e) ? INTERRUPTIBILITY_BLOCKING_BY_MOV_SS : INTERRUPTIBILITY_BLOCKING_BY_STI;
    save_pending(e);
    *field(e, VMCS_GUEST_INTERRUPTIBILITY_INFO) = shadow | (e->nmi_blocked ? INTERRUPTIBILITY_BLOCKING_BY_NMI : 0);
}

void fill_exit(struct engine *e, uint32_t reason, uint64_t qualification, uint32_t length)
{
    e->exit = (struct exit_record){.reason = reason, .qualification = qualification, .instruction_length = length,
                                   .rip = e->core->rip, .instructions = e->retired, .cycles = cycles_now(e)};
    e->exit_ready = true;
}

/* Architectural exits are counted and remembered; the engine's own stops are not exits. */
static void remember_exit(struct engine *e)
{
    uint32_t reason = (uint32_t)e->exit.reason & 0xffff;
    if (reason >= REASONS)
        return;
    e->exit.sequence = ++e->counters.exits;
    e->by_reason[reason]++;
    e->ledger.exits[exit_code(&e->exit) & 0xffff]++;
    e->vcpu->ledger.exits[exit_code(&e->exit) & 0xffff]++;
    e->history[e->exit.sequence % HISTORY] = e->exit;
}

/* Where the hypervisor shadows page tables (EPT is off), one tells it of a device too. */
static bool is_page_fault(const struct engine *e)
{
    const uint64_t hardware = 1ull << 31 | (uint64_t)EVENT_HARDWARE_EXCEPTION << 8 | 14;
    return !e->mmu.eptp && e->exit.reason == EXIT_EXCEPTION_NMI && (e->exit.interruption_info & ~0x800ull) == hardware;
}

/* MOV between a register or an immediate and memory that lies in one page; AH to BH are left to software. */
static bool is_plain_move(struct engine *e, const struct insn *i, unsigned size)
{
    uint64_t linear = is_page_fault(e) ? e->exit.qualification : e->exit.guest_linear;
    uint8_t op = i->opcode[0];
    bool moves = (i->id == X86_INS_MOV || i->id == X86_INS_MOVABS) && ((op >= 0x88 && op <= 0x8b) || (op >= 0xa0 && op <= 0xa3) || op == 0xc6 || op == 0xc7);
    bool high_byte = size == 1 && op < 0xa0 && !i->rex && i->modrm_reg >= 4;
    bool whole = (linear & 0xfff) + size <= 4096 && operand_address(e, i) == linear;
    return moves && i->is_memory && !i->prefix_rep && !i->prefix_lock && !high_byte && whole;
}

/* Is it a load or a store by the instruction at RIP that exited? Its linear address is known then. */
static bool is_data_access(const struct engine *e)
{
    const uint64_t translation = 1 << 8, fetch = 1 << 2, type = e->exit.qualification >> 12 & 15;
    if (is_page_fault(e))
        return !(e->exit.interruption_error & 1 << 4);
    return e->exit.reason == EXIT_APIC_ACCESS ? type < 2 : (e->exit.qualification & (translation | fetch)) == translation;
}

static void assist_move(struct engine *e)
{
    struct vcpu *v = e->vcpu;
    const struct insn *i = is_data_access(e) ? decode_at_rip(e) : NULL;
    if (!i || e->exit.idt_vectoring_info)
        return;
    uint8_t op = i->opcode[0];
    unsigned size = op & 1 ? i->operand_size : 1;
    if (!is_plain_move(e, i, size))
        return;
    uint64_t mask = size == 8 ? ~0ull : (1ull << size * 8) - 1;
    v->mov_size = size;
    v->mov_writes = op != 0x8a && op != 0x8b && op != 0xa0 && op != 0xa1;
    v->mov_register = op >= 0xa0 ? RAX : (uint64_t)i->modrm_reg;
    v->mov_value = (op >= 0xc6 ? i->immediate : e->core->regs[v->mov_register]) & mask;
    e->exit.instruction_length = i->length;
}

/* Software will carry out the instruction at RIP: hand it over. */
static void show_code(struct engine *e)
{
    struct vcpu *v = e->vcpu;
    uint64_t linear;
    v->mov_size = 0;
    bool for_memory = e->exit.reason == EXIT_EPT_VIOLATION || e->exit.reason == EXIT_APIC_ACCESS || is_page_fault(e);
    if (for_memory)
        assist_move(e);
    v->code_size = (uint64_t)code_bits(e);
    v->cpl = (uint64_t)e->cpl;
    v->code_bytes = 0;
    bool for_port = e->exit.reason == EXIT_IO_INSTRUCTION || e->exit.operation == EXIT_IO_INSTRUCTION;
    if (!for_memory && !for_port)
        return;
    linear_rip(e, &linear);
    v->code_bytes = peek_code(e, linear, v->code, 15);
}

/* The exit-information fields of the VMCS show what the record shows. */
void publish_exit(struct engine *e)
{
    const struct exit_record *x = &e->exit;
    ledger_settle(e);
    if (is_deprivileged(e))
        name_operation(e);
    charge_exit(e);
    ledger_check(e);
    e->exit.instructions = e->retired;
    e->exit.cycles = cycles_now(e);
    if (x->reason >> 31)           /* no guest instruction ran, and the core holds something else */
        e->vcpu->mov_size = e->vcpu->code_bytes = 0;
    else
        e->exit.rip = e->core->rip;
    if (x->reason == STOP_DEADLINE || x->reason == STOP_INTERRUPTED || (x->reason >= STOP_TARGET && x->reason <= STOP_WATCHPOINT))
        return;                    /* no exit: what the last one said stays */
    remember_exit(e);
    note_exit(e);
    if (!(x->reason >> 31))
        show_code(e);
    *field(e, VMCS_VM_EXIT_REASON) = x->reason;
    *field(e, VMCS_EXIT_QUALIFICATION) = x->qualification;
    *field(e, VMCS_VM_EXIT_INSTRUCTION_LEN) = x->instruction_length;
    *field(e, VMCS_GUEST_LINEAR_ADDRESS) = x->guest_linear;
    *field(e, VMCS_GUEST_PHYSICAL_ADDRESS) = x->guest_physical;
    *field(e, VMCS_VM_EXIT_INTR_INFO) = x->interruption_info;
    *field(e, VMCS_VM_EXIT_INTR_ERROR_CODE) = x->interruption_error;
    *field(e, VMCS_IDT_VECTORING_INFO_FIELD) = x->idt_vectoring_info;
    *field(e, VMCS_IDT_VECTORING_ERROR_CODE) = x->idt_vectoring_error;
    *field(e, VMCS_VMX_INSTRUCTION_INFO) = x->instruction_info;
}
