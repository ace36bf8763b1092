/* A Xen PV domain as a whole: made, started, saved, and asked by software.
 *
 * Machine memory: the guest's frames first, then Xen's own: machine-to-physical table, shared info, its page of each GDT,
 * grant table, and the page tables of the hypervisor's hole, which every L4 table of the guest has in slots 256 to 271.
 */
#include "xen.h"

#include <stdlib.h>

enum { PER_TABLE = 512, GRANT_FRAMES = 64 };
enum { READ_ONLY = 0x21 /* P A */, FOR_USER = 4, LINK = 0x27 /* P W U A */ };

static uint64_t tables_for(uint64_t entries) { return (entries + PER_TABLE - 1) / PER_TABLE; }

void xen_layout_of(uint64_t frames, uint32_t vcpus, struct xen_layout *l)
{
    uint64_t fixed = 2 + GRANT_FRAMES + 4 + tables_for((uint64_t)vcpus * XEN_TABLE_PAGES), m2p = tables_for(frames + fixed);
    m2p = tables_for(frames + fixed + m2p + tables_for(m2p) + 2);
    *l = (struct xen_layout){.shared_info = frames, .gdt_page = frames + 1, .grants = frames + 2, .grant_count = GRANT_FRAMES};
    l->m2p = l->grants + GRANT_FRAMES;
    l->end = l->m2p + m2p + tables_for(m2p) + 2 + tables_for((uint64_t)vcpus * XEN_TABLE_PAGES) + 2;
}

static void set(struct engine *e, uint64_t table, uint64_t index, uint64_t mfn, uint64_t flags)
{
    uint64_t entry = mfn << 12 | flags;
    memcpy(e->ram + (table << 12) + index * 8, &entry, 8);
    host_wrote(e, (table << 12) + index * 8, 8);
}

/* A part of the hole: `count` pages from `first`, mapped by L1 tables at *next; an L2 and an L3 table follow. */
static uint64_t map_part(struct engine *e, uint64_t linear, uint64_t first, uint64_t count, uint64_t flags, uint64_t *next)
{
    uint64_t l1 = *next, tables = tables_for(count), l2 = l1 + tables, l3 = l2 + 1;
    for (uint64_t k = 0; k < count && first; k++)
        set(e, l1, k, first + k, flags);
    for (uint64_t k = 0; k < tables; k++)
        set(e, l2, k, l1 + k, LINK);
    set(e, l3, 0, l2, LINK);
    xen_of(e)->hole_tables[(linear >> 39 & 511) - XEN_SLOT_FIRST] = l3 << 12 | LINK;
    *next = l3 + 1;
    return l1;
}

static void make_hole(struct engine *e)
{
    struct xen *x = xen_of(e);
    uint64_t pages = tables_for(x->machine_frames), next = x->m2p + pages;
    map_part(e, XEN_M2P_START, x->m2p, pages, READ_ONLY | FOR_USER | 1ull << 63, &next);
    x->windows = map_part(e, XEN_TABLES_START, 0, (uint64_t)x->vcpus * XEN_TABLE_PAGES, 0, &next);
    for (uint32_t k = 0; k < x->vcpus; k++)
        set(e, x->windows, k * XEN_TABLE_PAGES + XEN_RESERVED_GDT_PAGE, x->gdt_page, READ_ONLY | 1ull << 63);
}

/* The selectors of arch-x86/xen-x86_64.h: 0xe019 and 0xe021 for 32 bits, 0xe02b data, 0xe033 64-bit code; DPL 3. */
static void make_gdt_page(struct engine *e)
{
    static const uint64_t flat[] = {[3] = 0x00cffb000000ffffull, [4] = 0x00cffb000000ffffull, [5] = 0x00cff3000000ffffull,
                                    [6] = 0x00affb000000ffffull};
    memcpy(e->ram + (xen_of(e)->gdt_page << 12), flat, sizeof flat);
}

static void make_shared_info(struct engine *e)
{
    uint8_t *shared = e->ram + (xen_of(e)->shared_info << 12);
    memset(shared + 2560, 0xff, 512);      /* evtchn_mask: all */
    for (uint32_t k = 0; k < XEN_VCPUS; k++)
        shared[k * 64 + 1] = 1;            /* evtchn_upcall_mask */
}

int xen_create(struct engine *e, uint64_t frames, uint32_t vcpus)
{
    struct xen_layout l;
    xen_layout_of(frames, vcpus, &l);
    struct xen *x = calloc(1, sizeof *x);
    if (!x || vcpus > XEN_VCPUS || l.end << 12 > e->ram_size || !(x->frame = calloc(l.end, sizeof *x->frame))) {
        free(x);
        return -1;
    }
    x->frames = frames;
    x->machine_frames = l.end;
    x->m2p = l.m2p, x->shared_info = l.shared_info, x->gdt_page = l.gdt_page, x->grants = l.grants, x->grant_count = l.grant_count;
    x->vcpus = vcpus;
    x->validates = 1;
    x->most_at_once = XEN_CUT_SHORT;
    e->xen = x;
    xen_reset(e);
    return 0;
}

void xen_destroy(struct engine *e)
{
    if (e->xen)
        free(e->xen->frame);
    free(e->xen);
    e->xen = NULL;
}

void xen_reset(struct engine *e)
{
    struct xen *x = xen_of(e);
    memset(x->frame, 0, x->machine_frames * sizeof *x->frame);
    memset(x->vcpu, 0, sizeof x->vcpu);
    memset(e->ram + (x->frames << 12), 0, (x->machine_frames - x->frames) << 12);
    for (uint64_t k = 0; k < x->frames; k++)
        x->frame[k].flags = FRAME_OWNED;
    x->frame[x->shared_info].flags = FRAME_SHARED;
    for (uint64_t k = 0; k < x->grant_count; k++)
        x->frame[x->grants + k].flags = FRAME_SHARED;
    for (uint64_t k = 0; k < x->machine_frames; k++)
        xen_set_m2p(e, k, XEN_INVALID_M2P);
    for (uint32_t k = 0; k < x->vcpus; k++) {
        x->vcpu[k].info = (x->shared_info << 12) + 64 * k;
        x->low_token[k] = ++x->last_token;
    }
    x->assists = x->crash = 0;
    x->epoch = 1;
    make_hole(e);
    make_gdt_page(e);
    make_shared_info(e);
    host_wrote(e, x->frames << 12, (x->machine_frames - x->frames) << 12);
}

/* ---- starting processors ---- */

void xen_attach(struct vcpu *v, uint32_t number) { v->xen = number + 1; }

static bool prepare(struct engine *e, struct vcpu *v, uint64_t root)
{
    v->field[VMCS_GUEST_CR0] = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    v->field[VMCS_GUEST_CR3] = root;
    v->field[VMCS_GUEST_CR4] = CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    v->field[VMCS_GUEST_IA32_EFER] = 1 | 1 << 8 | 1 << 10 | 1 << 11;
    v->field[VMCS_GUEST_CS_AR_BYTES] = 0xa0bb;
    v->field[VMCS_GUEST_SS_AR_BYTES] = 0xc0b3;
    v->field[VMCS_GUEST_RIP] = 0;
    if (!borrow(e, v))
        return false;
    for (int seg = ES; seg <= GS; seg++)
        if (seg != CS && seg != SS)
            set_segment(e, seg, 0, 0, 0, 0);
    xen_current(e)->cr4 = CR4_PAE;
    xen_current(e)->kernel = true;
    xen_load_tables(e);
    return true;
}

int xen_start(struct engine *e, struct vcpu *v, uint64_t root, uint64_t entry, uint64_t stack, uint64_t start_info)
{
    int rc = xen_get_type(e, root, FRAME_L4);
    if (rc || (rc = xen_get_type(e, root, FRAME_L4)))
        return rc;
    xen_of(e)->frame[root].flags |= FRAME_PINNED;
    struct xen_vcpu *own = &xen_of(e)->vcpu[v->xen - 1];
    own->kernel_cr3 = root << 12;
    own->kernel_ss = FLAT_SS;
    own->up = true;
    if (!prepare(e, v, root << 12))
        return -EINVAL;
    xen_enter_kernel(e, entry, stack);
    e->core->regs[RSI] = start_info;
    save_guest(e);
    return 0;
}

/* struct vcpu_guest_context (arch-x86/xen.h), by 8-byte words from its byte 512, behind the FPU's image. */
enum {
    CONTEXT_REGS = 65, CONTEXT_TRAPS = 90, CONTEXT_LDT = 602, CONTEXT_GDT = 604, CONTEXT_GDT_ENTRIES = 620, CONTEXT_KERNEL_SS, CONTEXT_KERNEL_SP,
    CONTEXT_CR, CONTEXT_DR = 631, CONTEXT_CALLBACKS = 639, CONTEXT_ASSIST = 642, CONTEXT_BASES, CONTEXT_WORDS = 646,
};
enum { REGS_RIP = 16, REGS_CS, REGS_FLAGS, REGS_SP, REGS_SS };

static void load_registers(struct engine *e, const uint64_t *w)
{
    static const int order[15] = {15, 14, 13, 12, RBP, RBX, 11, 10, 9, 8, RAX, RCX, RDX, RSI, RDI};
    for (int k = 0; k < 15; k++)
        e->core->regs[order[k]] = w[CONTEXT_REGS + k];
    xen_enter_kernel(e, w[CONTEXT_REGS + REGS_RIP], w[CONTEXT_REGS + REGS_SP]);
    e->core->segs[FS].base = w[CONTEXT_BASES];
    e->core->segs[GS].base = w[CONTEXT_BASES + 1];
    xen_current(e)->other_gs = w[CONTEXT_BASES + 2];
    xen_current(e)->iopl = w[CONTEXT_REGS + REGS_FLAGS] >> 12 & 3;
}

static void load_traps(struct xen_vcpu *own, const uint64_t *w)
{
    for (unsigned k = 0; k < 256; k++) {
        uint64_t head = w[CONTEXT_TRAPS + 2 * k];
        own->traps[k] = (struct xen_trap){.vector = (uint8_t)k, .flags = (uint8_t)(head >> 8), .cs = (uint16_t)(head >> 16),
                                          .address = w[CONTEXT_TRAPS + 2 * k + 1]};
    }
}

/* What arch_set_info_guest() asks of a 64-bit context (xen/arch/x86/domain.c). */
static bool is_sound(const struct engine *e, const uint64_t *w)
{
    bool canonical = is_canonical(e, w[CONTEXT_REGS + REGS_RIP]) && is_canonical(e, w[CONTEXT_REGS + REGS_SP]) &&
                     is_canonical(e, w[CONTEXT_KERNEL_SP]) && (!(uint32_t)w[CONTEXT_LDT + 1] || is_canonical(e, w[CONTEXT_LDT]));
    for (int k = 0; k < 3; k++)
        canonical = canonical && is_canonical(e, w[CONTEXT_CALLBACKS + k]) && is_canonical(e, w[CONTEXT_BASES + k]);
    for (int k = 0; k < 256; k++)
        canonical = canonical && is_canonical(e, w[CONTEXT_TRAPS + 2 * k + 1]);
    return canonical && (uint32_t)w[CONTEXT_GDT_ENTRIES] <= XEN_GUEST_GDT_ENTRIES;
}

static void drop_roots(struct engine *e, struct xen_vcpu *own)
{
    if (own->user_cr3)
        xen_put_type(e, own->user_cr3 >> 12);
    xen_put_type(e, own->kernel_cr3 >> 12);
    own->kernel_cr3 = own->user_cr3 = 0;
}

static int load_roots(struct engine *e, struct xen_vcpu *own, uint64_t root, uint64_t user)
{
    if (xen_get_type(e, root, FRAME_L4))
        return -EINVAL;
    if (user && xen_get_type(e, user, FRAME_L4)) {
        xen_put_type(e, root);
        return -EINVAL;
    }
    own->kernel_cr3 = root << 12;
    own->user_cr3 = user << 12;
    return 0;
}

/* All of it or nothing: a context that is refused holds no frame. */
int xen_vcpu_context(struct engine *e, struct vcpu *v, const uint8_t *context)
{
    uint64_t w[CONTEXT_WORDS];
    struct xen_vcpu *own = &xen_of(e)->vcpu[v->xen - 1];
    memcpy(w + 64, context + 512, sizeof w - 512);
    if (!is_sound(e, w) || load_roots(e, own, w[CONTEXT_CR + 3] >> 12, w[CONTEXT_CR + 1] >> 12))
        return -EINVAL;
    bool done = prepare(e, v, own->kernel_cr3) && !xen_load_gdt(e, w + CONTEXT_GDT, (uint32_t)w[CONTEXT_GDT_ENTRIES]);
    if (done && xen_set_ldt(e, w[CONTEXT_LDT], (uint32_t)w[CONTEXT_LDT + 1])) {
        xen_load_gdt(e, NULL, 0);
        done = false;
    }
    if (!done) {
        drop_roots(e, own);
        return -EINVAL;
    }
    own->kernel_ss = (uint16_t)w[CONTEXT_KERNEL_SS] | 3;
    own->kernel_sp = w[CONTEXT_KERNEL_SP];
    memcpy(own->callback, w + CONTEXT_CALLBACKS, 24);
    load_traps(own, w);
    load_registers(e, w);
    save_guest(e);
    return 0;
}

void xen_set_up(struct engine *e, uint32_t vcpu, int up) { xen_of(e)->vcpu[vcpu].up = up; }
