/* In and out of a Xen PV guest's kernel: bounce frames, the iret hypercall, event upcalls, system calls of programs.
 *
 * xen/arch/x86/x86_64/entry.S, create_bounce_frame: the frame is SS, RSP, RFLAGS, CS with the old upcall mask in bits 39:32,
 * RIP, an error code where there is one, R11, RCX. IF in the flags that the guest sees is the inverse of its upcall mask.
 */
#include "descriptor.h"
#include "xen.h"

enum { INFO_PENDING, INFO_MASK, INFO_CR2 = 16 };   /* of struct vcpu_info */
enum { TRAP_DPL = 3, TRAP_MASKS = 4, VGCF_IN_SYSCALL = 1 << 8, VECTOR_BP = 3, VECTOR_OF = 4, VECTOR_NM = 7, VECTOR_PAGE = 14 };
#define FLAGS_SEEN 0x3f7fd7ull
enum {
    CODE_FLAGS = DESC_G | DESC_P | DESC_S | DESC_CODE | DESC_RW | DESC_A,
    DATA_FLAGS = DESC_G | DESC_B | DESC_P | DESC_S | DESC_RW | DESC_A,
};

void xen_breach(struct engine *e, enum xen_rule rule, uint64_t address, uint64_t value)
{
    struct xen *x = xen_of(e);
    x->breaches[x->counters.breaches++ % XEN_BREACHES] =
        (struct xen_breach){.rule = rule, .address = address, .value = value, .rip = e->core->rip, .cycles = cycles_now(e)};
}

bool xen_crash(struct engine *e, enum xen_crash reason, uint64_t address)
{
    xen_of(e)->crash = reason;
    xen_of(e)->crash_address = address;
    xen_breach(e, reason == XEN_CRASH_IRET_FRAME || reason == XEN_CRASH_NO_USER_ROOT ? XEN_RULE_FRAME : XEN_RULE_BOUNCE, address, reason);
    return raise_exit(e, EXIT_TRIPLE_FAULT, reason);
}

/* ---- modes ---- */

static void set_flat(struct engine *e, uint16_t cs, uint16_t ss, int cpl, bool wide)
{
    uint32_t dpl = (uint32_t)cpl << DESC_DPL_SHIFT;
    set_guest_cpl(e, cpl);
    set_segment(e, SS, ss, 0, 0xffffffff, DATA_FLAGS | dpl);
    set_segment(e, CS, cs, 0, 0xffffffff, CODE_FLAGS | dpl | (wide ? DESC_L : DESC_B));
}

/* Whatever selectors the kernel had: a hypercall comes back by SYSRET. */
void xen_show_flat(struct engine *e)
{
    const struct core *c = e->core;
    if (unlikely(c->segs[CS].selector != FLAT_CS64 || c->segs[SS].selector != FLAT_SS))
        set_flat(e, FLAT_CS64, FLAT_SS, 1, true);
}

static void toggle(struct engine *e)
{
    struct xen_vcpu *v = xen_current(e);
    uint64_t gs = e->core->segs[GS].base;
    xen_of(e)->counters.toggles++;
    v->kernel = !v->kernel;
    e->core->segs[GS].base = v->other_gs;
    v->other_gs = gs;
    e->core->cr[3] = v->kernel ? v->kernel_cr3 : v->user_cr3;
    xen_toggled(e);
}

static bool is_masked(const struct engine *e) { return vcpu_info(e, xen_current(e))[INFO_MASK]; }

static void set_mask(struct engine *e, bool masked)
{
    uint64_t at = xen_current(e)->info + INFO_MASK;
    e->ram[at] = masked;
    host_wrote(e, at, 1);
}

/* ---- frames ---- */

struct bounce { uint64_t rip; bool masks, has_error, failsafe; uint32_t error; };

static unsigned build(struct engine *e, const struct bounce *b, uint64_t *words)
{
    struct core *c = e->core;
    bool masked = is_masked(e), kernel = xen_current(e)->kernel;
    uint64_t cs = kernel ? c->segs[CS].selector & ~3u : c->segs[CS].selector | 3u;
    uint64_t flags = guest_rflags(e) & ~(uint64_t)(FL_IF | FL_IOPL);
    unsigned n = 0;
    for (int seg = 0; b->failsafe && seg < 4; seg++)
        words[n++] = c->segs[(const int[]){DS, ES, FS, GS}[seg]].selector;
    words[n++] = c->regs[RCX];
    words[n++] = c->regs[11];
    if (b->has_error)
        words[n++] = b->error;
    words[n++] = c->rip;
    words[n++] = cs | (uint64_t)masked << 32;
    words[n++] = flags | (masked ? 0 : FL_IF) | (xen_of(e)->assists >> 4 & 1 ? (uint64_t)xen_current(e)->iopl << 12 : 0);
    words[n++] = c->regs[RSP];
    words[n++] = c->segs[SS].selector;
    return n;
}

/* False: the domain has crashed. */
static bool bounce(struct engine *e, const struct bounce *b)
{
    uint64_t words[16];
    struct xen_vcpu *v = xen_current(e);
    unsigned n = build(e, b, words);
    bool from_kernel = v->kernel;
    if (!from_kernel)
        toggle(e);
    set_guest_cpl(e, 1);
    uint64_t sp = ((from_kernel ? e->core->regs[RSP] : v->kernel_sp) & ~0xfull) - 8 * n;
    if (is_in_hole(sp, 8 * n) || !mem_write(e, sp, words, 8 * n, RIGHTS_CURRENT)) {
        e->pending.kind = PENDING_NONE;
        return xen_crash(e, XEN_CRASH_BOUNCE_STACK, sp);
    }
    if (!b->rip)
        return xen_crash(e, XEN_CRASH_NO_HANDLER, e->core->rip);
    if (b->masks)
        set_mask(e, true);
    xen_of(e)->counters.bounces++;
    xen_enter_kernel(e, b->rip, sp);
    return true;
}

void xen_enter_kernel(struct engine *e, uint64_t rip, uint64_t rsp)
{
    uint64_t flags = guest_rflags(e) & ~(uint64_t)(FL_AC | FL_VM | FL_RF | FL_NT | FL_TF | FL_IOPL);
    set_flat(e, FLAT_CS64, FLAT_SS, 1, true);
    e->core->regs[RSP] = rsp;
    e->core->rip = rip;
    set_guest_rflags(e, flags | FL_IF);
    clear_event_shadow(e);
}

/* ---- exceptions and software interrupts ---- */

static bool is_software(const struct event *v) { return v->type == EVENT_SOFTWARE_INTERRUPT || v->type == EVENT_SOFTWARE_EXCEPTION; }

/* INT n by somebody whom the gate does not let in: #GP with the gate's number. INT3 and INTO go through Xen's own gates. */
static const struct event *check_gate(struct engine *e, const struct event *event, struct event *fault)
{
    const struct xen_trap *t = &xen_current(e)->traps[event->vector];
    bool open = (t->flags & TRAP_DPL) >= (xen_current(e)->kernel ? 1 : 3);
    if (event->type != EVENT_SOFTWARE_INTERRUPT || open || event->vector == VECTOR_BP || event->vector == VECTOR_OF)
        return event;
    *fault = (struct event){.type = EVENT_HARDWARE_EXCEPTION, .vector = 13, .has_error = true, .error = event->vector << 3 | 2u};
    return fault;
}

static void show_cause(struct engine *e, const struct event *v)
{
    uint64_t at = xen_current(e)->info + INFO_CR2;
    if (v->type == EVENT_HARDWARE_EXCEPTION && v->vector == VECTOR_PAGE) {
        e->vcpu->cr2 = e->core->cr[2] = v->cr2;
        memcpy(e->ram + at, &v->cr2, 8);
        host_wrote(e, at, 8);
    }
    if (v->vector == 1)
        e->vcpu->dr6 |= v->dr6;
    if (v->vector == VECTOR_NM)
        xen_task_switched(e, false);
}

bool xen_deliver(struct engine *e, const struct event *event)
{
    struct event fault;
    const struct event *v = check_gate(e, event, &fault);
    const struct xen_trap *t = &xen_current(e)->traps[v->vector];
    if (is_software(v))
        e->core->rip += v->instruction_length;
    if (v->type == EVENT_HARDWARE_EXCEPTION && v->vector == VECTOR_PAGE && xen_current(e)->kernel && xen_write_table(e, v->cr2))
        return true;
    show_cause(e, v);
    struct bounce b = {.rip = t->address, .masks = t->flags & TRAP_MASKS, .has_error = v->has_error, .error = v->error};
    return bounce(e, &b);
}

/* ---- events ---- */

bool xen_has_upcall(struct engine *e)
{
    const uint8_t *info = vcpu_info(e, xen_current(e));
    return info[INFO_PENDING] && !info[INFO_MASK];
}

bool xen_upcall(struct engine *e)
{
    struct bounce b = {.rip = xen_current(e)->callback[CALLBACK_EVENT], .masks = true};
    xen_of(e)->counters.upcalls++;
    return b.rip ? bounce(e, &b) : true;       /* not registered yet: it stays pending */
}

/* A long operation that was cut short goes on first: nothing may come between. */
void xen_at_entry(struct engine *e)
{
    const struct xen_vcpu *v = xen_current(e);
    if (v->progress || v->call.active || !v->callback[CALLBACK_EVENT] || !xen_has_upcall(e))
        return;
    if (!xen_upcall(e))
        resolve_pending(e, NULL);
}

/* ---- system calls ---- */

/* The program's segments are shown flat, whatever it had (as SYSRET will leave them). */
bool xen_user_syscall(struct engine *e, const struct insn *i, enum callback which)
{
    struct xen_vcpu *v = xen_current(e);
    struct bounce b = {.rip = v->callback[which], .masks = v->callback_masks[which]};
    bool wide = in_64bit_code(e);
    if (!b.rip)
        return raise_fault(e, FAULT_UD, 0);
    xen_of(e)->counters.user_syscalls++;
    done(e, i);
    e->core->regs[RCX] = e->core->rip;
    e->core->regs[11] = guest_rflags(e);
    set_flat(e, wide ? FLAT_CS64 : FLAT_CS32, FLAT_SS, 3, wide);
    if (!bounce(e, &b))
        return false;
    set_guest_rflags(e, guest_rflags(e) & ~RFLAGS_DF);
    return true;
}

/* RIP, RSP and the flags of the caller are not known: Xen shows zero, and a CS of no segment. */
bool xen_sysenter(struct engine *e, const struct insn *i)
{
    struct xen_vcpu *v = xen_current(e);
    struct bounce b = {.rip = v->callback[CALLBACK_SYSENTER], .masks = v->callback_masks[CALLBACK_SYSENTER]};
    (void)i;
    if (v->kernel || !b.rip)
        return raise_fault(e, FAULT_GP, 0);
    set_flat(e, FLAT_CS32, FLAT_SS, 3, false);
    e->core->segs[CS].selector = 3;
    e->core->rip = e->core->regs[RSP] = 0;
    return bounce(e, &b);
}

/* ---- iret ---- */

struct iret_frame { uint64_t rax, r11, rcx, flags, rip, cs, rflags, rsp, ss; };

static bool find_segment(struct engine *e, uint64_t selector, struct descriptor *d)
{
    bool found = look_up(e, (uint16_t)selector, d) == LOOKUP_FOUND && d->high & DESC_P && dpl_of(d->high) == 3;
    e->pending.kind = PENDING_NONE;
    return found;
}

/* What the IRET of the hypervisor could not load; behind SYSCALL it is a SYSRET, which loads no SS. */
static bool is_loadable(struct engine *e, const struct iret_frame *f, bool *wide)
{
    struct descriptor d;
    *wide = true;
    if ((f->cs & 0xfffc) != (FLAT_CS64 & 0xfffc)) {
        if (!find_segment(e, f->cs, &d) || !is_code(d.high))
            return false;
        *wide = d.high & DESC_L;
    }
    bool flat = (f->ss & 0xfffc) == (FLAT_SS & 0xfffc) || f->flags & VGCF_IN_SYSCALL;
    if (!flat && !(find_segment(e, f->ss, &d) && is_writable(d.high)))
        return false;
    return *wide ? is_canonical(e, f->rip) : !(f->rip >> 32);
}

/* Flags that a frame may not set: Xen clears them. */
static void check_flags(struct engine *e, const struct iret_frame *f)
{
    uint64_t iopl = f->rflags >> 12 & 3, granted = xen_of(e)->assists >> 4 & 1 ? 3 : xen_current(e)->iopl;
    if (f->rflags & FL_VM || iopl > granted)
        xen_breach(e, XEN_RULE_FRAME, e->core->regs[RSP] + offsetof(struct iret_frame, rflags), f->rflags);
}

static bool failsafe(struct engine *e)
{
    struct bounce b = {.rip = xen_current(e)->callback[CALLBACK_FAILSAFE], .masks = xen_current(e)->callback_masks[CALLBACK_FAILSAFE],
                       .failsafe = true};
    xen_breach(e, XEN_RULE_FRAME, e->core->rip, e->core->segs[CS].selector);
    return b.rip ? bounce(e, &b) : xen_crash(e, XEN_CRASH_NO_CALLBACK, e->core->rip);
}

bool xen_hypercall_iret(struct engine *e)
{
    struct xen_vcpu *v = xen_current(e);
    struct core *c = e->core;
    struct iret_frame f;
    bool wide, user;
    xen_of(e)->counters.calls[23]++;
    if (xen_read(e, c->regs[RSP], &f, sizeof f))
        return xen_crash(e, XEN_CRASH_IRET_FRAME, c->regs[RSP]);
    user = (f.cs & 3) == 3;
    if (user && !v->user_cr3)
        return xen_crash(e, XEN_CRASH_NO_USER_ROOT, f.rip);
    check_flags(e, &f);
    if (xen_of(e)->assists >> 4 & 1)
        v->iopl = f.rflags >> 12 & 3;
    bool loadable = is_loadable(e, &f, &wide);
    if (user)
        toggle(e);
    set_flat(e, (uint16_t)f.cs | 3, (uint16_t)f.ss | 3, user ? 3 : 1, wide);
    c->regs[RAX] = f.rax;
    c->regs[11] = f.flags & VGCF_IN_SYSCALL ? f.rflags : f.r11;
    c->regs[RCX] = f.flags & VGCF_IN_SYSCALL ? f.rip : f.rcx;
    c->regs[RSP] = f.rsp;
    c->rip = f.rip;
    set_guest_rflags(e, (f.rflags & FLAGS_SEEN & ~(uint64_t)(FL_IOPL | FL_VM)) | FL_IF | 2);
    clear_event_shadow(e);
    set_mask(e, !(f.rflags & FL_IF));
    if (!loadable)
        return failsafe(e);
    return xen_has_upcall(e) ? xen_upcall(e) : true;
}
