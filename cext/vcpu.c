/* What software asks about a virtual CPU that does not run. */
#include "state.h"

static void reset_segment(struct vcpu *v, int seg, uint16_t selector, uint64_t base, uint32_t limit, uint32_t rights)
{
    v->field[VMCS_GUEST_ES_SELECTOR + seg] = selector;
    v->field[VMCS_GUEST_ES_BASE + seg] = base;
    v->field[VMCS_GUEST_ES_LIMIT + seg] = limit;
    v->field[VMCS_GUEST_ES_AR_BYTES + seg] = rights;
}

void vcpu_reset(struct vcpu *v)
{
    struct ledger booked = v->ledger;  /* what was spent stays spent */
    memset(v, 0, sizeof *v);
    v->ledger = booked;
    for (int seg = ES; seg <= GS; seg++)
        reset_segment(v, seg, 0, 0, 0xffff, seg == CS ? 0x9b : 0x93);
    reset_segment(v, CS, 0xf000, 0xffff0000, 0xffff, 0x9b);
    reset_segment(v, LDTR, 0, 0, 0xffff, 0x82);
    reset_segment(v, TR, 0, 0, 0xffff, 0x8b);
    v->field[VMCS_GUEST_GDTR_LIMIT] = v->field[VMCS_GUEST_IDTR_LIMIT] = 0xffff;
    v->field[VMCS_GUEST_CR0] = 0x60000010;
    v->field[VMCS_GUEST_RIP] = 0xfff0;
    v->field[VMCS_GUEST_RFLAGS] = 2;
    v->field[VMCS_GUEST_DR7] = 0x400;
    v->field[VMCS_GUEST_IA32_PAT] = 0x0007040600070406;
    v->field[VMCS_LINK_POINTER] = v->region = ~0ull;
    v->dr6 = 0xffff0ff0;
}

void vcpu_skip(struct vcpu *v, uint64_t length)
{
    uint64_t *rip = &v->field[VMCS_GUEST_RIP], *flags = &v->field[VMCS_GUEST_RFLAGS], rights = v->field[VMCS_GUEST_CS_AR_BYTES];
    bool long_mode = v->field[VMCS_GUEST_IA32_EFER] >> 10 & 1, wide = long_mode && rights >> 13 & 1;
    uint64_t next = *rip + length;
    *rip = wide ? next : rights >> 14 & 1 ? (uint32_t)next : (uint16_t)next;
    *flags &= ~(1ull << 16);
    v->field[VMCS_GUEST_INTERRUPTIBILITY_INFO] &= ~(uint64_t)(INTERRUPTIBILITY_BLOCKING_BY_STI | INTERRUPTIBILITY_BLOCKING_BY_MOV_SS);
    if (*flags >> 8 & 1)
        v->field[VMCS_GUEST_PENDING_DBG_EXCEPTIONS] |= 1 << 14;
    v->retire++;
    v->permitted = 0;
}

void vcpu_skip_exit(struct vcpu *v) { vcpu_skip(v, v->field[VMCS_VM_EXIT_INSTRUCTION_LEN]); }

/* The model's own accesses, in the vcpu's mode. The core is loaded for them as for an entry. */
bool borrow(struct engine *e, struct vcpu *v)
{
    e->vcpu = v;
    return load_guest(e, v);
}

/* Where software keeps other control registers in the VMCS than the guest ran with (shadow paging), loading them drops
 * translations. Who only looks puts that back; Unicorn's TLB has lost some, which nobody can tell. */
bool glance_at(struct engine *e, struct vcpu *v, struct glance *g)
{
    g->mmu = e->mmu;
    memcpy(g->left, v->left, sizeof g->left);
    return borrow(e, v);
}

void glance_away(struct engine *e, struct vcpu *v, const struct glance *g)
{
    e->mmu = g->mmu;
    memcpy(v->left, g->left, sizeof g->left);
}

static int report(const struct engine *e, uint64_t fault[3])
{
    const struct pending *p = &e->pending;
    bool exception = p->kind == PENDING_EXCEPTION;
    fault[0] = exception ? p->vector : p->guest_physical;
    fault[1] = exception ? p->error : p->guest_linear;
    fault[2] = exception ? p->cr2 : 0;
    return exception ? 1 : 2;
}

/* Without long mode, linear addresses have 32 bits. */
static uint64_t wrapped(const struct engine *e, uint64_t linear) { return in_long_mode(e) ? linear : (uint32_t)linear; }

static bool access_page(struct engine *e, uint64_t linear, uint8_t *buffer, uint64_t n, enum access access, bool user)
{
    uint64_t hpa;
    if (!is_canonical(e, linear))
        return raise_fault(e, 13, 0);
    e->mmu.aside = e->price.on;
    bool found = tlb_translate(e, linear, access, user, &hpa);
    e->mmu.aside = false;
    if (!found)
        return false;
    if (access == ACCESS_WRITE) {
        memcpy(e->ram + hpa, buffer, n);
        host_wrote(e, hpa, n);
    } else {
        memcpy(buffer, e->ram + hpa, n);
    }
    return true;
}

int vcpu_access(struct engine *e, struct vcpu *v, uint64_t linear, uint8_t *buffer, uint64_t size, int access, int user, uint64_t fault[3])
{
    if (!borrow(e, v))
        return report(e, fault);
    for (uint64_t done = 0; done < size;) {
        uint64_t part = 4096 - ((linear + done) & 0xfff);
        part = part < size - done ? part : size - done;
        if (!access_page(e, wrapped(e, linear + done), buffer + done, part, (enum access)access, user))
            return report(e, fault);
        done += part;
    }
    return 0;
}

int vcpu_translate(struct engine *e, struct vcpu *v, uint64_t linear, int access, int user, uint64_t *gpa, uint64_t fault[3])
{
    struct walk w = {0};
    struct glance before;
    bool found = glance_at(e, v, &before);
    if (found) {
        linear = wrapped(e, linear);
        found = is_canonical(e, linear) ? walk(e, linear, (enum access)access, user, WALK_LOOKS, &w) : raise_fault(e, 13, 0);
    }
    glance_away(e, v, &before);
    *gpa = w.gpa;
    return found ? 0 : report(e, fault);
}

/* XMM registers, by Unicorn's own register interface: their place in the core needs no probing. */
void vcpu_get_xmm(struct engine *e, struct vcpu *v, int index, uint8_t value[16])
{
    load_fpu(e, v);
    lib.uc_reg_read(e->uc, UC_X86_REG_XMM0 + index, value);
}

void vcpu_set_xmm(struct engine *e, struct vcpu *v, int index, const uint8_t value[16])
{
    load_fpu(e, v);
    lib.uc_reg_write(e->uc, UC_X86_REG_XMM0 + index, value);
}

static const int fpu_words[3] = {UC_X86_REG_FPCW, UC_X86_REG_FPSW, UC_X86_REG_FPTAG};

void vcpu_fxsave(struct engine *e, struct vcpu *v, uint8_t image[512])
{
    memset(image, 0, 512);
    load_fpu(e, v);
    for (int i = 0; i < 3; i++)
        lib.uc_reg_read(e->uc, fpu_words[i], image + 2 * i);
    lib.uc_reg_read(e->uc, UC_X86_REG_MXCSR, image + 24);
    for (int i = 0; i < 8; i++)
        lib.uc_reg_read(e->uc, UC_X86_REG_FP0 + i, image + 32 + 16 * i);
    for (int i = 0; i < 16; i++)
        lib.uc_reg_read(e->uc, UC_X86_REG_XMM0 + i, image + 160 + 16 * i);
}

void vcpu_fxrstor(struct engine *e, struct vcpu *v, const uint8_t image[512])
{
    load_fpu(e, v);
    for (int i = 0; i < 3; i++)
        lib.uc_reg_write(e->uc, fpu_words[i], image + 2 * i);
    lib.uc_reg_write(e->uc, UC_X86_REG_MXCSR, image + 24);
    for (int i = 0; i < 8; i++)
        lib.uc_reg_write(e->uc, UC_X86_REG_FP0 + i, image + 32 + 16 * i);
    for (int i = 0; i < 16; i++)
        lib.uc_reg_write(e->uc, UC_X86_REG_XMM0 + i, image + 160 + 16 * i);
}
