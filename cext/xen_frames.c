/* Page frames of a Xen PV guest: what each may be used as, and by how many references.
 *
 * Xen's "direct paging" (xen/arch/x86/mm.c says why it is safe): the types exclude each other, so that a page table is
 * never mapped writable. A table is validated when it gets its type, with all that it refers to; from then on each change
 * is. Every reference is counted: by entries, pins, roots, descriptor tables, registered areas.
 */
#include "xen.h"

enum { PTE_P = 1, PTE_W = 2, PTE_FLAGS_AD = 0x60, PTE_PS = 0x80 };
#define PTE_ALLOWED 0xbff0000000000e67ull          /* P RW U A D, AVAIL 9-11, 52-61, NX */
#define PTE_ALLOWED_L1 (PTE_ALLOWED | 0x100)       /* G as well */
#define FRAME_OF(entry) (((entry) & ADDRESS_MASK) >> 12)

static int validate(struct engine *e, uint64_t mfn, enum frame_type type);
static void devalidate(struct engine *e, uint64_t mfn, enum frame_type type);

int xen_get(struct engine *e, uint64_t mfn)
{
    if (!is_owned(xen_of(e), mfn))
        return -EINVAL;
    xen_of(e)->frame[mfn].refs++;
    return 0;
}

void xen_put(struct engine *e, uint64_t mfn)
{
    struct page_frame *f = &xen_of(e)->frame[mfn];
    if (!--f->refs && f->flags & FRAME_RELEASED)
        f->flags = 0;              /* nobody has it any more: it can be claimed again */
}

static bool is_table(enum frame_type type) { return type >= FRAME_L1 && type <= FRAME_L4; }

/* Nothing that the processor has cached may outlive the old use of a frame. */
static void leave_type(struct engine *e, struct page_frame *f, enum frame_type type)
{
    if (is_table(f->type))
        xen_forget_structures(e, f);
    if (type != FRAME_WRITABLE)
        xen_forget_translations(e, f);
    f->flags &= (uint8_t)~FRAME_HIGH;
}

static int take_type(struct engine *e, uint64_t mfn, enum frame_type type)
{
    struct page_frame *f = &xen_of(e)->frame[mfn];
    if (f->types) {
        if (f->type != type)
            return -EINVAL;
        f->types++;
        return 0;
    }
    if (f->type != type)
        leave_type(e, f, type);
    f->type = (uint8_t)type;
    f->types = 1;
    int failed = type == FRAME_WRITABLE ? 0 : validate(e, mfn, type);
    if (failed) {
        f->types = 0;
        xen_breach(e, type == FRAME_SEGMENTS ? XEN_RULE_SEGMENTS : XEN_RULE_PIN, mfn << 12, type);
    }
    return failed;
}

int xen_get_type(struct engine *e, uint64_t mfn, enum frame_type type)
{
    int failed = xen_get(e, mfn);
    if (failed || !(failed = take_type(e, mfn, type)))
        return failed;
    xen_put(e, mfn);
    return failed;
}

void xen_put_type(struct engine *e, uint64_t mfn)
{
    struct xen *x = xen_of(e);
    struct page_frame *f = &x->frame[mfn];
    if (!--f->types && is_table(f->type)) {
        devalidate(e, mfn, f->type);
        f->epoch = x->epoch;
    }
    xen_put(e, mfn);
}

/* ---- what entries refer to ---- */

static int get_shared(struct engine *e, uint64_t entry)
{
    const struct page_frame *f = frame_of(xen_of(e), FRAME_OF(entry));
    if (f && f->flags & FRAME_SHARED)
        return 0;
    return f ? -EBUSY : FRAME_OF(entry) == ADDRESS_MASK >> 12 /* INVALID_MFN */ ? -EINVAL : -EPERM;
}

static int get_from_l1e(struct engine *e, uint64_t entry)
{
    uint64_t mfn = FRAME_OF(entry);
    if (!(entry & PTE_P))
        return 0;
    if (entry & ~(PTE_ALLOWED_L1 | ADDRESS_MASK))
        return -EINVAL;
    if (unlikely(!is_owned(xen_of(e), mfn)))
        return get_shared(e, entry);
    xen_of(e)->frame[mfn].refs++;
    if (!(entry & PTE_W) || !take_type(e, mfn, FRAME_WRITABLE))
        return 0;
    xen_put(e, mfn);
    return -EBUSY;
}

/* By the frame's number alone: it may have been given back since. */
static void put_from_l1e(struct engine *e, uint64_t entry)
{
    uint64_t mfn = FRAME_OF(entry);
    if (!(entry & PTE_P) || mfn >= xen_of(e)->frames)
        return;
    if (entry & PTE_W)
        xen_put_type(e, mfn);
    else
        xen_put(e, mfn);
}

static int get_from_table(struct engine *e, uint64_t entry, enum frame_type type)
{
    if (!(entry & PTE_P))
        return 0;
    if (entry & ~(PTE_ALLOWED | ADDRESS_MASK))
        return -EINVAL;
    return xen_get_type(e, FRAME_OF(entry), type - 1);
}

static void put_from_table(struct engine *e, uint64_t entry)
{
    if (entry & PTE_P)
        xen_put_type(e, FRAME_OF(entry));
}

static int get_from_entry(struct engine *e, uint64_t entry, enum frame_type type)
{
    return type == FRAME_L1 ? get_from_l1e(e, entry) : get_from_table(e, entry, type);
}

static void put_from_entry(struct engine *e, uint64_t entry, enum frame_type type)
{
    if (type == FRAME_L1)
        put_from_l1e(e, entry);
    else
        put_from_table(e, entry);
}

/* Whether an entry is looked at without what is below it: that is validated entry by entry. */
static bool is_flat(const struct xen *x, uint64_t entry, enum frame_type type)
{
    const struct page_frame *f = frame_of(x, FRAME_OF(entry));
    return type == FRAME_L1 || !(entry & PTE_P) || !f || f->types;
}

/* As often as is asked for, to measure what it costs: what is taken beforehand is given back. */
static int again_from_entry(struct engine *e, uint64_t entry, enum frame_type type)
{
    uint64_t times = xen_of(e)->validates;
    for (uint64_t k = 1; unlikely(k < times) && is_flat(xen_of(e), entry, type); k++)
        if (!get_from_entry(e, entry, type))
            put_from_entry(e, entry, type);
    return get_from_entry(e, entry, type);
}

static bool is_slot_of_xen(enum frame_type type, uint64_t index)
{
    return type == FRAME_L4 && index >= XEN_SLOT_FIRST && index <= XEN_SLOT_LAST;
}

static void fill_slots_of_xen(struct engine *e, uint64_t mfn)
{
    memcpy(table_at(e, mfn) + XEN_SLOT_FIRST, xen_of(e)->hole_tables, sizeof xen_of(e)->hole_tables);
    host_wrote(e, mfn << 12, 4096);
}

static int validate_segments(struct engine *e, uint64_t mfn)
{
    uint64_t *descriptor = table_at(e, mfn);
    for (int k = 0; k < 512; k++)
        if (!xen_fix_descriptor(&descriptor[k]))
            return -EINVAL;
    host_wrote(e, mfn << 12, 4096);
    return 0;
}

static int validate(struct engine *e, uint64_t mfn, enum frame_type type)
{
    uint64_t *entry = table_at(e, mfn);
    int failed = 0, k = 0;
    if (type == FRAME_SEGMENTS)
        return validate_segments(e, mfn);
    xen_of(e)->counters.validated++;
    for (; k < 512; k++)
        if (!is_slot_of_xen(type, (uint64_t)k) && (failed = again_from_entry(e, entry[k], type)))
            break;
    while (failed && k--)
        if (!is_slot_of_xen(type, (uint64_t)k))
            put_from_entry(e, entry[k], type);
    if (!failed && type == FRAME_L4)
        fill_slots_of_xen(e, mfn);
    return failed;
}

static void devalidate(struct engine *e, uint64_t mfn, enum frame_type type)
{
    const uint64_t *entry = table_at(e, mfn);
    xen_of(e)->counters.devalidated++;
    for (uint64_t k = 0; k < 512; k++)
        if (!is_slot_of_xen(type, k))
            put_from_entry(e, entry[k], type);
}

/* ---- one entry is changed ---- */

static void store(struct engine *e, uint64_t address, uint64_t entry)
{
    host_wrote(e, address, 8);
    memcpy(e->ram + address, &entry, 8);
}

static int refuse(struct engine *e, uint64_t address, uint64_t entry, int why)
{
    xen_of(e)->counters.refused_updates++;
    xen_breach(e, XEN_RULE_ENTRY, address, entry);
    return why;
}

static int change_table(struct engine *e, struct page_frame *f, uint64_t address, uint64_t old, uint64_t entry)
{
    const uint64_t same = ADDRESS_MASK | PTE_P | (f->type == FRAME_L1 ? PTE_W : PTE_PS);
    uint64_t allowed = f->type == FRAME_L1 ? PTE_ALLOWED_L1 : PTE_ALLOWED;
    if (is_slot_of_xen(f->type, address >> 3 & 511))
        return -EINVAL;
    bool alike = !((old ^ entry) & same), valid = !(entry & PTE_P) || !(entry & ~(allowed | ADDRESS_MASK));
    int failed = !alike ? again_from_entry(e, entry, f->type) : valid ? 0 : -EINVAL;
    if (failed)
        return failed;
    store(e, address, entry);
    if (!alike)
        put_from_entry(e, old, f->type);
    xen_of(e)->kernel_changed |= f->flags & FRAME_HIGH && old & PTE_P && (old ^ entry) & ~(uint64_t)PTE_FLAGS_AD;
    return 0;
}

/* A store to a frame that is no table takes its type as writable for that long. */
static int change_plain(struct engine *e, uint64_t address, uint64_t entry)
{
    int failed = xen_get_type(e, address >> 12, FRAME_WRITABLE);
    if (failed)
        return failed;
    store(e, address, entry);
    xen_put_type(e, address >> 12);
    return 0;
}

/* MMU_NORMAL_PT_UPDATE, and with `keeps_flags` MMU_PT_UPDATE_PRESERVE_AD. `address`: machine, aligned. */
int xen_change_entry(struct engine *e, uint64_t address, uint64_t entry, bool keeps_flags)
{
    struct xen *x = xen_of(e);
    uint64_t mfn = address >> 12, old;
    if (!is_owned(x, mfn))
        return refuse(e, address, entry, -EINVAL);
    struct page_frame *f = &x->frame[mfn];
    bool table = f->types && is_table(f->type);
    x->counters.updates[f->types ? f->type : FRAME_NONE]++;
    memcpy(&old, e->ram + address, 8);
    if (keeps_flags)
        entry |= old & PTE_FLAGS_AD;
    int failed = table ? change_table(e, f, address, old, entry) : change_plain(e, address, entry);
    return failed ? refuse(e, address, entry, failed) : 0;
}
