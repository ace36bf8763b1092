/* The hypercalls that change page tables: mmu_update, update_va_mapping, mmuext_op. */
#include "xen.h"

enum { UPDATE_NORMAL, UPDATE_MACHPHYS, UPDATE_PRESERVE_AD, UPDATE_NO_TRANSLATE };
enum { UPDATES_READ = 64 };
enum mmuext {
    PIN_L1, PIN_L2, PIN_L3, PIN_L4, UNPIN, NEW_BASEPTR, TLB_FLUSH_LOCAL, INVLPG_LOCAL, TLB_FLUSH_MULTI, INVLPG_MULTI,
    TLB_FLUSH_ALL, INVLPG_ALL, FLUSH_CACHE, SET_LDT, NEW_USER_BASEPTR = 15, CLEAR_PAGE, COPY_PAGE, FLUSH_CACHE_GLOBAL,
    MARK_SUPER, UNMARK_SUPER,
};
enum { UVMF_NONE, UVMF_TLB_FLUSH, UVMF_INVLPG };

bool xen_is_self(uint64_t domid) { return domid == DOMID_SELF || domid == XEN_DOMID; }

/* How many were done: written where the guest wants it; no error if it cannot be. */
static void tell_done(struct engine *e, uint64_t linear, uint64_t done)
{
    uint32_t count = (uint32_t)done;
    if (linear)
        xen_write(e, linear, &count, sizeof count);
}

/* ---- mmu_update ---- */

static int update_machphys(struct engine *e, uint64_t mfn, uint64_t pfn)
{
    struct xen *x = xen_of(e);
    if (!is_owned(x, mfn))
        return -EINVAL;
    memcpy(e->ram + (x->m2p << 12) + mfn * 8, &pfn, 8);
    host_wrote(e, (x->m2p << 12) + mfn * 8, 8);
    return 0;
}

static int update_one(struct engine *e, uint64_t pointer, uint64_t value)
{
    switch (pointer & 7) {
    case UPDATE_NORMAL: case UPDATE_NO_TRANSLATE: return xen_change_entry(e, pointer & ~7ull, value, false);
    case UPDATE_PRESERVE_AD: return xen_change_entry(e, pointer & ~7ull, value, true);
    case UPDATE_MACHPHYS: return update_machphys(e, pointer >> 12, value);
    default: return -ENOSYS;
    }
}

/* Several requests at a time where all of them can be read, else one by one up to the fault. */
static unsigned read_some(struct engine *e, uint64_t linear, uint64_t left, void *to, size_t size)
{
    uint64_t n = left < UPDATES_READ ? left : UPDATES_READ;
    if (n > 1 && !xen_read(e, linear, to, n * size))
        return (unsigned)n;
    return !xen_read(e, linear, to, size);
}

int64_t xen_mmu_update(struct engine *e, const uint64_t *a)
{
    struct xen_vcpu *v = xen_current(e);
    uint64_t request[UPDATES_READ][2], count = (uint32_t)a[1], i = v->progress;
    int rc = 0;
    v->progress = 0;
    if ((a[3] >> 16 & 0xffff && (a[3] >> 16 & 0xffff) != XEN_DOMID + 1) || !xen_is_self(a[3] & 0xffff))
        return -ESRCH;
    for (uint64_t end = i + xen_of(e)->most_at_once; i < count && !rc;) {
        unsigned n = read_some(e, a[0] + 16 * i, (end < count ? end : count) - i, request, 16);
        rc = n ? 0 : -EFAULT;
        for (unsigned k = 0; k < n && !rc; k++)
            if (!(rc = update_one(e, request[k][0], request[k][1])))
                i++;
        if (!rc && i >= end && i < count) {
            v->progress = i;
            return XEN_AGAIN;
        }
    }
    tell_done(e, a[2], i);
    return rc;
}

/* ---- update_va_mapping ---- */

static uint64_t entry_of(const struct engine *e, uint64_t table, uint64_t linear, int shift, uint64_t *address)
{
    uint64_t entry;
    *address = (table & ADDRESS_MASK) + (linear >> shift & 511) * 8;
    memcpy(&entry, e->ram + *address, 8);
    return entry;
}

bool xen_find_l1e(struct engine *e, uint64_t linear, uint64_t *address)
{
    uint64_t entry = xen_current(e)->kernel_cr3;
    if (is_in_hole(linear, 1) || !is_canonical(e, linear))
        return false;
    for (int shift = 39; shift > 12; shift -= 9) {
        entry = entry_of(e, entry, linear, shift, address);
        if (!(entry & 1) || entry & 0x80 || (entry & ADDRESS_MASK) >= e->ram_size)
            return false;
    }
    entry_of(e, entry, linear, 12, address);
    return true;
}

int64_t xen_update_va_mapping(struct engine *e, const uint64_t *a)
{
    uint64_t address;
    const struct page_frame *f;
    if (!xen_find_l1e(e, a[0], &address) || !(f = frame_of(xen_of(e), address >> 12)) || f->type != FRAME_L1)
        return -EINVAL;
    int rc = xen_change_entry(e, address, a[1], false);
    if (rc)
        return rc;
    bool local = !(a[2] & ~3ull);  /* else UVMF_ALL or a mask of vcpus: all */
    if ((a[2] & 3) == UVMF_TLB_FLUSH)
        (local ? xen_flush : xen_flush_all)(e);
    else if ((a[2] & 3) == UVMF_INVLPG)
        xen_flush_page(e, a[0]);
    return 0;
}

/* ---- software's changes: grants that are mapped ---- */

int64_t xen_l1_entry(struct engine *e, struct vcpu *vcpu, uint64_t linear)
{
    uint64_t address;
    if (!borrow(e, vcpu) || !xen_find_l1e(e, linear, &address))
        return -EINVAL;
    const struct page_frame *f = frame_of(xen_of(e), address >> 12);
    return f && f->types && f->type == FRAME_L1 ? (int64_t)address : -EINVAL;
}

int xen_set_l1_entry(struct engine *e, struct vcpu *vcpu, uint64_t address, uint64_t entry)
{
    const struct page_frame *f = is_owned(xen_of(e), address >> 12) ? &xen_of(e)->frame[address >> 12] : NULL;
    if (address & 7 || !f || !f->types || f->type != FRAME_L1 || !borrow(e, vcpu))
        return -EINVAL;
    int rc = xen_change_entry(e, address, entry, false);
    xen_flush_all(e);
    return rc;
}

/* ---- mmuext_op ---- */

struct extended { uint64_t command, one, two; };

static int pin(struct engine *e, uint64_t mfn, enum frame_type type)
{
    int rc = xen_get_type(e, mfn, type);
    if (rc) {
        xen_breach(e, XEN_RULE_PIN, mfn << 12, type);
        return rc;
    }
    struct page_frame *f = &xen_of(e)->frame[mfn];
    if (f->flags & FRAME_PINNED) {
        xen_put_type(e, mfn);
        xen_breach(e, XEN_RULE_PIN, mfn << 12, type);
        return -EINVAL;
    }
    f->flags |= FRAME_PINNED;
    return 0;
}

static int unpin(struct engine *e, uint64_t mfn)
{
    if (!is_owned(xen_of(e), mfn) || !(xen_of(e)->frame[mfn].flags & FRAME_PINNED)) {
        xen_breach(e, XEN_RULE_UNPIN, mfn << 12, 0);
        return -EINVAL;
    }
    xen_of(e)->frame[mfn].flags &= (uint8_t)~FRAME_PINNED;
    xen_put_type(e, mfn);
    return 0;
}

static int load_root(struct engine *e, uint64_t mfn, bool user)
{
    struct xen_vcpu *v = xen_current(e);
    uint64_t *root = user ? &v->user_cr3 : &v->kernel_cr3, old = *root;
    if (mfn == old >> 12) {        /* the kernel's is loaded anew, the program's left alone */
        if (!user)
            xen_root_loaded(e, old, old);
        return 0;
    }
    int rc = mfn || !user ? xen_get_type(e, mfn, FRAME_L4) : 0;
    if (rc) {
        xen_breach(e, XEN_RULE_ROOT, mfn << 12, user);
        return rc;
    }
    *root = mfn << 12;
    if (!user)
        e->core->cr[3] = mfn << 12;
    if (user)
        xen_user_root_loaded(e);
    else
        xen_root_loaded(e, old, *root);
    if (old)
        xen_put_type(e, old >> 12);
    return 0;
}

static int fill_page(struct engine *e, uint64_t mfn, const uint64_t *source)
{
    if ((source && !is_owned(xen_of(e), *source)) || xen_get_type(e, mfn, FRAME_WRITABLE))
        return -EINVAL;
    if (source)
        memmove(table_at(e, mfn), table_at(e, *source), 4096);
    else
        memset(table_at(e, mfn), 0, 4096);
    host_wrote(e, mfn << 12, 4096);
    xen_put_type(e, mfn);
    return 0;
}

static int flush_several(struct engine *e, const struct extended *op)
{
    uint64_t mask;
    bool masked = op->command == TLB_FLUSH_MULTI || op->command == INVLPG_MULTI;
    if (masked && xen_read(e, op->two, &mask, (xen_of(e)->vcpus + 7) / 8))
        return -EINVAL;
    if (op->command == TLB_FLUSH_MULTI || op->command == TLB_FLUSH_ALL)
        xen_flush_all(e);
    else
        xen_flush_page(e, op->one);
    return 0;
}

static int64_t extended(struct engine *e, const struct extended *op)
{
    switch (op->command) {
    case PIN_L1: case PIN_L2: case PIN_L3: case PIN_L4: return pin(e, op->one, (enum frame_type)(FRAME_L1 + op->command));
    case UNPIN: return unpin(e, op->one);
    case NEW_BASEPTR: return load_root(e, op->one, false);
    case NEW_USER_BASEPTR: return load_root(e, op->one, true);
    case TLB_FLUSH_LOCAL: xen_flush(e); return 0;
    case INVLPG_LOCAL: xen_flush_page(e, op->one); return 0;
    case TLB_FLUSH_MULTI: case INVLPG_MULTI: case TLB_FLUSH_ALL: case INVLPG_ALL: return flush_several(e, op);
    case FLUSH_CACHE: case FLUSH_CACHE_GLOBAL: return -EACCES;
    case SET_LDT: return xen_set_ldt(e, op->one, (uint32_t)op->two);
    case CLEAR_PAGE: return fill_page(e, op->one, NULL);
    case COPY_PAGE: return fill_page(e, op->one, &op->two);
    case MARK_SUPER: case UNMARK_SUPER: return -EOPNOTSUPP;
    default: return -ENOSYS;
    }
}

int64_t xen_mmuext_op(struct engine *e, const uint64_t *a)
{
    struct xen_vcpu *v = xen_current(e);
    uint64_t count = (uint32_t)a[1], i = v->progress;
    int64_t rc = 0;
    v->progress = 0;
    if (!xen_is_self(a[3] & 0xffff))
        return -ESRCH;
    for (uint64_t end = i + (xen_of(e)->most_at_once + 15) / 16; i < count && !rc;) {
        struct extended op;
        if (xen_read(e, a[0] + 24 * i, &op, sizeof op)) {
            rc = -EFAULT;
            break;
        }
        op.command = (uint32_t)op.command;
        xen_of(e)->counters.extended[op.command < 24 ? op.command : 23]++;
        if (!(rc = extended(e, &op)))
            i++;
        if (!rc && i >= end && i < count) {
            v->progress = i;
            return XEN_AGAIN;
        }
    }
    tell_done(e, a[2], i);
    return rc;
}
