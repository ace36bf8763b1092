/* Hypercalls of a Xen PV guest: SYSCALL from its kernel; number in RAX, arguments in RDI, RSI, RDX, R10, R8, R9.
 *
 * Those of the hot paths are done here. The others leave as VMCALL exits with the call in xen_vcpu.call; software answers
 * by xen_finish(), which goes on with the multicall that the call may have been a part of.
 */
#include "xen.h"

enum hypercall {
    SET_TRAP_TABLE, MMU_UPDATE, SET_GDT, STACK_SWITCH, SET_CALLBACKS, FPU_TASKSWITCH, SCHED_OP_COMPAT, PLATFORM_OP, SET_DEBUGREG,
    GET_DEBUGREG, UPDATE_DESCRIPTOR, MEMORY_OP = 12, MULTICALL, UPDATE_VA_MAPPING, XEN_VERSION = 17, VM_ASSIST = 21, IRET = 23,
    VCPU_OP, SET_SEGMENT_BASE, MMUEXT_OP, SCHED_OP = 29, CALLBACK_OP, HYPERCALLS = 64,
};
enum { VCPUOP_IS_UP = 3, VERSION_NUMBER = 0x40014, ENTRY_WORDS = 8 };
#define FOR_SOFTWARE (-0x7ffe)     /* no result yet */

int xen_read(struct engine *e, uint64_t linear, void *to, size_t n)
{
    if (!n || (!is_in_hole(linear, n) && linear + n > linear && mem_read(e, linear, to, n, RIGHTS_CURRENT)))
        return 0;
    e->pending.kind = PENDING_NONE;
    xen_breach(e, XEN_RULE_POINTER, linear, n);
    return -EFAULT;
}

int xen_write(struct engine *e, uint64_t linear, const void *from, size_t n)
{
    if (!is_in_hole(linear, n) && linear + n > linear && mem_write(e, linear, from, n, RIGHTS_CURRENT))
        return 0;
    e->pending.kind = PENDING_NONE;
    xen_breach(e, XEN_RULE_POINTER, linear, n);
    return -EFAULT;
}

/* ---- small ones ---- */

static int64_t set_trap_table(struct engine *e, uint64_t linear)
{
    struct xen_vcpu *v = xen_current(e);
    struct { uint8_t vector, flags; uint16_t cs; uint32_t pad; uint64_t address; } t;
    if (!linear)
        memset(v->traps, 0, sizeof v->traps);
    for (unsigned n = 0; linear && n < 4096; n++, linear += sizeof t) {
        if (xen_read(e, linear, &t, sizeof t))
            return -EFAULT;
        if (!t.address)
            break;
        v->traps[t.vector] = (struct xen_trap){.address = t.address, .cs = t.cs | 3, .flags = t.flags, .vector = t.vector};
    }
    return 0;
}

static int64_t stack_switch(struct engine *e, uint64_t ss, uint64_t sp)
{
    xen_current(e)->kernel_ss = (uint16_t)ss | 3;
    xen_current(e)->kernel_sp = sp;
    return 0;
}

static int64_t set_callbacks(struct engine *e, const uint64_t *a)
{
    struct xen_vcpu *v = xen_current(e);
    if (!fits_register(e, a[0]) || !fits_register(e, a[1]) || !fits_register(e, a[2]))
        return -EINVAL;
    v->callback[CALLBACK_EVENT] = a[0];
    v->callback[CALLBACK_FAILSAFE] = a[1];
    v->callback[CALLBACK_SYSCALL] = a[2];
    return 0;
}

static bool is_callback(uint64_t type) { return type < CALLBACKS && type != 3 && type != 6; }

static int64_t callback_op(struct engine *e, uint64_t command, uint64_t linear)
{
    struct xen_vcpu *v = xen_current(e);
    struct { uint16_t type, flags; uint32_t pad; uint64_t address; } c = {0};
    if (command > 1)
        return -ENOSYS;
    if (xen_read(e, linear, &c, command ? 2 : sizeof c))
        return -EFAULT;
    if (command && c.type == CALLBACK_NMI)
        v->callback[CALLBACK_NMI] = 0;
    if (command)                   /* unregister: NMI alone, as in Xen's PV code */
        return c.type == CALLBACK_NMI ? 0 : is_callback(c.type) ? -EINVAL : -ENOSYS;
    if (!is_callback(c.type))
        return -ENOSYS;
    if (!fits_register(e, c.address))
        return -EINVAL;
    v->callback[c.type] = c.address;
    v->callback_masks[c.type] = c.flags & 1;       /* CALLBACKF_mask_events */
    return 0;
}

static int64_t set_segment_base(struct engine *e, uint64_t which, uint64_t base)
{
    struct core *c = e->core;
    if (which < 3 && !fits_register(e, base))
        return -EINVAL;
    switch (which) {
    case 0: c->segs[FS].base = base; return 0;
    case 1: xen_current(e)->other_gs = base; return 0;
    case 2: c->segs[GS].base = base; return 0;
    case 3: break;
    default: return -EINVAL;
    }
    uint64_t kernel = c->segs[GS].base;        /* SEGBASE_GS_USER_SEL: the program's base comes from the descriptor */
    uint16_t selector = (uint16_t)base;
    if (!load_segment_register(e, GS, selector)) {
        load_segment_register(e, GS, 0);
        e->pending.kind = PENDING_NONE;
    }
    xen_current(e)->other_gs = c->segs[GS].base;
    c->segs[GS].base = kernel;
    return 0;
}

static int64_t debug_register(struct engine *e, uint64_t number, uint64_t value, bool writes)
{
    struct vcpu *v = e->vcpu;
    uint64_t *reg = number < 4 ? &v->dr[number] : number == 6 ? &v->dr6 : number == 7 ? field(e, VMCS_GUEST_DR7) : NULL;
    if (!reg)
        return -EINVAL;
    if (!writes)
        return (int64_t)*reg;
    if (number < 4 && (!fits_register(e, value) || is_in_hole(value, 8)))
        return -EPERM;
    if (number >= 6 && (value >> 32 || (number == 7 && xen_has_port_breakpoint(e, value))))
        return -EPERM;
    *reg = number == 6 ? (value & 0xe00f) | 0xffff0ff0 : number == 7 ? (value & 0xffff03ff) | 0x400 : value;
    if (number != 6)
        debug_changed(e);
    return 0;
}

static int64_t vm_assist(struct engine *e, uint64_t command, uint64_t type)
{
    const uint64_t known = 1ull << 0 | 1ull << 1 | 1ull << 2 | 1ull << 4 | 1ull << 5 | 1ull << 32;
    if (type >= 64 || !(known >> type & 1))
        return -EINVAL;
    if (command > 1)
        return -ENOSYS;
    uint64_t *assists = &xen_of(e)->assists;
    *assists = command ? *assists & ~(1ull << type) : *assists | 1ull << type;
    return 0;
}

/* ---- the dispatcher ---- */

static int64_t call(struct engine *e, uint64_t number, const uint64_t *a)
{
    struct xen *x = xen_of(e);
    x->counters.calls[number < HYPERCALLS ? number : HYPERCALLS - 1]++;
    switch (number) {
    case SET_TRAP_TABLE: return set_trap_table(e, a[0]);
    case MMU_UPDATE: return xen_mmu_update(e, a);
    case SET_GDT: return xen_set_gdt(e, a);
    case STACK_SWITCH: return stack_switch(e, a[0], a[1]);
    case SET_CALLBACKS: return set_callbacks(e, a);
    case FPU_TASKSWITCH: xen_task_switched(e, a[0] != 0); return 0;
    case SET_DEBUGREG: return debug_register(e, a[0], a[1], true);
    case GET_DEBUGREG: return debug_register(e, a[0], 0, false);
    case UPDATE_DESCRIPTOR: return xen_update_descriptor(e, a);
    case UPDATE_VA_MAPPING: return xen_update_va_mapping(e, a);
    case VM_ASSIST: return vm_assist(e, a[0], a[1]);
    case SET_SEGMENT_BASE: return set_segment_base(e, (uint32_t)a[0], a[1]);
    case MMUEXT_OP: return xen_mmuext_op(e, a);
    case CALLBACK_OP: return callback_op(e, (uint32_t)a[0], a[1]);
    case XEN_VERSION: return (uint32_t)a[0] ? FOR_SOFTWARE : VERSION_NUMBER;
    case VCPU_OP: return (uint32_t)a[0] != VCPUOP_IS_UP ? FOR_SOFTWARE : a[1] < x->vcpus ? x->vcpu[a[1]].up : -ENOENT;
    case MULTICALL: return -EINVAL;        /* within a multicall */
    default: return FOR_SOFTWARE;
    }
}

static bool leave(struct engine *e, uint64_t number, const uint64_t *a, uint64_t active)
{
    struct xen_call *c = &xen_current(e)->call;
    c->number = number;
    memcpy(c->arg, a, sizeof c->arg);
    c->active = active;
    return false;
}

/* ---- multicall: entries of op, result, six arguments ---- */

enum progress { OVER, LEFT, AGAIN, GONE, CRASHED };

/* An iret within ends the list, and its result is what it put into RAX (xen/common/multicall.c, mc_exit). */
static enum progress go_home(struct engine *e, uint64_t at, int64_t *result)
{
    xen_of(e)->counters.multicall_entries++;
    if (!xen_hypercall_iret(e))
        return CRASHED;
    *result = (int64_t)e->core->regs[RAX];
    xen_write(e, at + 8, result, 8);   /* if it can be */
    return GONE;
}

/* `running`: the guest does, so that an iret can be carried out; else its SYSCALL is executed again for it. */
static enum progress go_on(struct engine *e, int64_t *result, bool running)
{
    struct xen_call *c = &xen_current(e)->call;
    uint64_t entry[ENTRY_WORDS];
    *result = 0;
    for (uint64_t done = 0; c->index < c->count; c->index++, done++) {
        uint64_t at = c->list + c->index * sizeof entry;
        if (done == xen_of(e)->most_at_once)
            return AGAIN;
        if (xen_read(e, at, entry, sizeof entry)) {
            *result = -EFAULT;
            return OVER;
        }
        if (entry[0] == IRET)
            return running ? go_home(e, at, result) : AGAIN;
        int64_t rc = call(e, entry[0], entry + 2);
        if (rc == XEN_AGAIN)
            return AGAIN;
        if (rc == FOR_SOFTWARE) {
            leave(e, entry[0], entry + 2, 2);
            return LEFT;
        }
        xen_of(e)->counters.multicall_entries++;
        if (xen_write(e, at + 8, &rc, 8)) {
            *result = -EFAULT;
            return OVER;
        }
    }
    return OVER;
}

static enum progress multicall(struct engine *e, const uint64_t *a, int64_t *result)
{
    struct xen_call *c = &xen_current(e)->call;
    if (c->active != 3) {          /* not cut short before */
        xen_of(e)->counters.calls[MULTICALL]++;
        c->list = a[0];
        c->index = 0;
        c->count = (uint32_t)a[1];
    }
    enum progress p = go_on(e, result, true);
    c->active = p == AGAIN ? 3 : p == LEFT ? 2 : 0;
    return p;
}

static enum progress single(struct engine *e, uint64_t number, const uint64_t *a, int64_t *result)
{
    *result = call(e, number, a);
    if (*result == XEN_AGAIN)
        return AGAIN;
    if (*result != FOR_SOFTWARE)
        return OVER;
    leave(e, number, a, 1);
    return LEFT;
}

static bool finished(struct engine *e, const struct insn *i, int64_t result)
{
    e->core->regs[RAX] = (uint64_t)result;
    xen_show_flat(e);
    done(e, i);
    if (xen_has_upcall(e))
        return xen_upcall(e);
    return true;
}

bool xen_syscall(struct engine *e, const struct insn *i)
{
    uint64_t *r = e->core->regs;
    const uint64_t a[6] = {r[RDI], r[RSI], r[RDX], r[10], r[8], r[9]}, number = r[RAX];
    int64_t result = 0;
    if (!xen_current(e)->kernel)
        return xen_user_syscall(e, i, in_64bit_code(e) ? CALLBACK_SYSCALL : CALLBACK_SYSCALL32);
    xen_of(e)->counters.traps++;
    if (number == IRET)
        return xen_hypercall_iret(e);
    r[RCX] = e->core->rip + i->length;
    r[11] = guest_rflags(e);
    switch (number == MULTICALL ? multicall(e, a, &result) : single(e, number, a, &result)) {
    case OVER: return finished(e, i, result);
    case AGAIN: case GONE: return true;        /* RIP stays, or is the frame's */
    case CRASHED: return false;
    case LEFT:
        xen_show_flat(e);
        return instruction_exit(e, i, EXIT_VMCALL, xen_current(e)->call.number);
    }
    return true;
}

/* Software has the result. RIP moves with the exit's skip; what is behind in a multicall is done first. */
int xen_finish(struct engine *e, struct vcpu *vcpu, int64_t result)
{
    if (!vcpu->xen || !borrow(e, vcpu))
        return 0;
    struct xen_call *c = &xen_current(e)->call;
    bool several = c->active == 2;
    c->active = 0;
    if (several) {
        xen_of(e)->counters.multicall_entries++;
        int64_t entry = result;
        result = xen_write(e, c->list + c->index++ * ENTRY_WORDS * 8 + 8, &entry, 8);
        enum progress p = result ? OVER : go_on(e, &result, false);
        c->active = p == AGAIN ? 3 : p == LEFT ? 2 : 0;
        if (p != OVER) {
            save_guest(e);
            return p == LEFT ? 1 : 2;
        }
    }
    e->core->regs[RAX] = (uint64_t)result;
    save_guest(e);
    return 0;
}
