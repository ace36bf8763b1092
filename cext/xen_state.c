/* What software reads and sets of a Xen PV domain; its state for snapshots; the audit. */
#include "xen.h"

#include <stdlib.h>

struct xen_counters *xen_counters_of(struct engine *e) { return &xen_of(e)->counters; }
struct xen_call *xen_call_of(struct engine *e, uint32_t vcpu) { return &xen_of(e)->vcpu[vcpu].call; }
uint64_t xen_assists(struct engine *e) { return xen_of(e)->assists; }
uint64_t xen_vcpu_info(struct engine *e, uint32_t vcpu) { return xen_of(e)->vcpu[vcpu].info; }
void xen_set_iopl(struct engine *e, uint32_t vcpu, uint32_t iopl) { xen_of(e)->vcpu[vcpu].iopl = iopl; }
void xen_set_io_bitmap(struct engine *e, uint32_t vcpu, uint64_t linear, uint64_t ports)
{
    xen_of(e)->vcpu[vcpu].io_bitmap = linear;
    xen_of(e)->vcpu[vcpu].io_ports = ports;
}

int xen_is_owned(struct engine *e, uint64_t mfn) { return is_owned(xen_of(e), mfn); }
int xen_is_up(struct engine *e, uint32_t vcpu) { return xen_of(e)->vcpu[vcpu].up; }

const struct xen_breach *xen_breach_number(struct engine *e, uint64_t number)
{
    const struct xen *x = xen_of(e);
    bool kept = number && number <= x->counters.breaches && number + XEN_BREACHES > x->counters.breaches;
    return kept ? &x->breaches[(number - 1) % XEN_BREACHES] : NULL;
}

void xen_note_breach(struct engine *e, uint32_t rule, uint64_t address, uint64_t value) { xen_breach(e, rule, address, value); }

uint64_t xen_crash_of(struct engine *e, uint64_t *address)
{
    *address = xen_of(e)->crash_address;
    return xen_of(e)->crash;
}

void xen_set_option(struct engine *e, uint32_t option, uint64_t value)
{
    struct xen *x = xen_of(e);
    if (option == 0)
        x->validates = value ? value : 1;
    else if (option == 1)
        x->most_at_once = value ? XEN_CUT_SHORT : 1;
    else
        x->assists = value;
}

uint64_t xen_m2p_of(struct engine *e, uint64_t mfn)
{
    uint64_t pfn = XEN_INVALID_M2P;
    if (mfn < xen_of(e)->machine_frames)
        memcpy(&pfn, e->ram + (xen_of(e)->m2p << 12) + mfn * 8, 8);
    return pfn;
}

void xen_set_m2p(struct engine *e, uint64_t mfn, uint64_t pfn)
{
    uint64_t at = (xen_of(e)->m2p << 12) + mfn * 8;
    if (mfn >= xen_of(e)->machine_frames)
        return;
    memcpy(e->ram + at, &pfn, 8);
    host_wrote(e, at, 8);
}

int xen_frame(struct engine *e, uint64_t mfn, uint64_t fields[4])
{
    const struct page_frame *f = frame_of(xen_of(e), mfn);
    if (!f)
        return -1;
    fields[0] = f->types ? f->type : FRAME_NONE;
    fields[1] = f->refs;
    fields[2] = f->types;
    fields[3] = f->flags;
    return 0;
}

/* VCPUOP_register_vcpu_info: the area moves into a page of the guest's, with all events pending once. */
int xen_set_vcpu_info(struct engine *e, uint32_t number, uint64_t mfn, uint64_t offset)
{
    struct xen *x = xen_of(e);
    struct xen_vcpu *v = &x->vcpu[number];
    if (offset > 4096 - 64 || offset & 7)
        return -EINVAL;
    if (v->info >> 12 != x->shared_info)
        return -EINVAL;
    if (xen_get_type(e, mfn, FRAME_WRITABLE))
        return -EINVAL;
    uint64_t at = mfn << 12 | offset, all = ~0ull;
    memcpy(e->ram + at, e->ram + v->info, 64);
    v->info = at;
    e->ram[at] = 1;
    memcpy(e->ram + at + 8, &all, 8);
    host_wrote(e, at, 64);
    return 0;
}

int xen_set_callback(struct engine *e, uint32_t vcpu, uint32_t type, uint64_t address, int masks)
{
    if (type >= CALLBACKS)
        return -EINVAL;
    xen_of(e)->vcpu[vcpu].callback[type] = address;
    xen_of(e)->vcpu[vcpu].callback_masks[type] = masks;
    return 0;
}

int xen_is_mapped(struct engine *e, uint64_t first, uint64_t count)
{
    const struct xen *x = xen_of(e);
    for (uint64_t mfn = 0; mfn < x->frames; mfn++)
        for (unsigned k = 0; x->frame[mfn].types && x->frame[mfn].type == FRAME_L1 && k < 512; k++) {
            uint64_t entry = table_at(e, mfn)[k];
            if (entry & 1 && ((entry & ADDRESS_MASK) >> 12) - first < count)
                return 1;
        }
    return 0;
}

/* ---- frames given back and claimed ---- */

int xen_release_frame(struct engine *e, uint64_t mfn)
{
    struct xen *x = xen_of(e);
    if (!is_owned(x, mfn))
        return -EINVAL;
    struct page_frame *f = &x->frame[mfn];
    if (f->held || f->held_writable)
        xen_breach(e, XEN_RULE_STALE_GRANT, mfn << 12, mfn);
    if (f->flags & FRAME_PINNED) {
        f->flags &= (uint8_t)~FRAME_PINNED;
        xen_put_type(e, mfn);
    }
    f->flags = f->refs ? f->flags | FRAME_RELEASED : 0;
    xen_set_m2p(e, mfn, XEN_INVALID_M2P);
    xen_flush_all(e);
    return 0;
}

int64_t xen_claim_frame(struct engine *e)
{
    struct xen *x = xen_of(e);
    for (uint64_t mfn = 0; mfn < x->frames; mfn++) {
        if (x->frame[mfn].flags)
            continue;
        x->frame[mfn] = (struct page_frame){.flags = FRAME_OWNED};
        memset(table_at(e, mfn), 0, 4096);
        host_wrote(e, mfn << 12, 4096);
        return (int64_t)mfn;
    }
    return -ENOMEM;
}

int xen_hold_frame(struct engine *e, uint64_t mfn, int writable)
{
    int rc = writable ? xen_get_type(e, mfn, FRAME_WRITABLE) : xen_get(e, mfn);
    if (!rc)
        *(writable ? &xen_of(e)->frame[mfn].held_writable : &xen_of(e)->frame[mfn].held) += 1;
    return rc;
}

void xen_drop_frame(struct engine *e, uint64_t mfn, int writable)
{
    struct page_frame *f = &xen_of(e)->frame[mfn];
    *(writable ? &f->held_writable : &f->held) -= 1;
    if (writable)
        xen_put_type(e, mfn);
    else
        xen_put(e, mfn);
}

/* ---- the audit: every reference counted anew, from tables and registers ---- */

struct tally { uint32_t refs, types, wrong; uint8_t type; };
enum finding { FINDING_REFS = 1, FINDING_TYPES, FINDING_TYPE, FINDING_ENTRY, FINDING_SLOT };

static void count(const struct xen *x, struct tally *t, uint64_t mfn, enum frame_type type)
{
    if (mfn >= x->frames)
        return;
    t[mfn].refs++;
    if (type == FRAME_NONE)
        return;
    t[mfn].types++;
    t[mfn].wrong += t[mfn].type != FRAME_NONE && t[mfn].type != type;
    t[mfn].type = (uint8_t)type;
}

static void count_entries(struct engine *e, struct tally *t, uint64_t mfn, enum frame_type type)
{
    const struct xen *x = xen_of(e);
    const uint64_t *entry = table_at(e, mfn);
    for (uint64_t k = 0; k < 512; k++) {
        uint64_t to = (entry[k] & ADDRESS_MASK) >> 12;
        if (type == FRAME_L4 && k >= XEN_SLOT_FIRST && k <= XEN_SLOT_LAST) {
            t[mfn].wrong += (entry[k] | 0x60) != (x->hole_tables[k - XEN_SLOT_FIRST] | 0x60);
            continue;
        }
        if (!(entry[k] & 1))
            continue;
        bool shared = to < x->machine_frames && x->frame[to].flags & FRAME_SHARED;
        t[mfn].wrong += to >= x->frames && !(type == FRAME_L1 && shared);
        count(x, t, to, type > FRAME_L1 ? type - 1 : entry[k] & 2 ? FRAME_WRITABLE : FRAME_NONE);
    }
}

static void count_vcpu(struct engine *e, struct tally *t, const struct xen_vcpu *v, uint64_t number)
{
    const struct xen *x = xen_of(e);
    const uint64_t *window = table_at(e, x->windows) + number * XEN_TABLE_PAGES;
    if (v->kernel_cr3)
        count(x, t, v->kernel_cr3 >> 12, FRAME_L4);
    if (v->user_cr3)
        count(x, t, v->user_cr3 >> 12, FRAME_L4);
    for (unsigned k = 0; k < XEN_TABLE_PAGES; k++)
        if (window[k] & 1)
            count(x, t, (window[k] & ADDRESS_MASK) >> 12, FRAME_SEGMENTS);
    if (v->info >> 12 < x->frames)
        count(x, t, v->info >> 12, FRAME_WRITABLE);
}

static enum finding compare(const struct page_frame *f, const struct tally *t)
{
    if (f->refs != t->refs)
        return FINDING_REFS;
    if (f->types != t->types)
        return FINDING_TYPES;
    return f->types && f->type != t->type ? FINDING_TYPE : t->wrong ? FINDING_ENTRY : 0;
}

static void tally_all(struct engine *e, struct tally *t)
{
    const struct xen *x = xen_of(e);
    for (uint64_t mfn = 0; mfn < x->frames; mfn++) {
        const struct page_frame *f = &x->frame[mfn];
        if (f->types && f->type >= FRAME_L1 && f->type <= FRAME_L4)
            count_entries(e, t, mfn, f->type);
        if (f->flags & FRAME_PINNED)
            count(x, t, mfn, f->type);
        for (unsigned k = 0; k < f->held; k++)
            count(x, t, mfn, FRAME_NONE);
        for (unsigned k = 0; k < f->held_writable; k++)
            count(x, t, mfn, FRAME_WRITABLE);
    }
    for (uint32_t k = 0; k < x->vcpus; k++)
        count_vcpu(e, t, &x->vcpu[k], k);
}

/* first: frame, kind, what was counted, what the frame says. ~0: no memory to count in. */
uint64_t xen_audit(struct engine *e, uint64_t first[4])
{
    const struct xen *x = xen_of(e);
    struct tally *t = calloc(x->frames, sizeof *t);
    uint64_t found = 0;
    if (!t)
        return ~0ull;
    tally_all(e, t);
    for (uint64_t mfn = 0; mfn < x->frames; mfn++) {
        enum finding kind = compare(&x->frame[mfn], &t[mfn]);
        if (kind && !found++) {
            const uint64_t values[4] = {mfn, kind, (uint64_t)t[mfn].refs << 32 | t[mfn].types,
                                        (uint64_t)x->frame[mfn].refs << 32 | x->frame[mfn].types};
            memcpy(first, values, sizeof values);
        }
    }
    free(t);
    return found;
}

/* ---- snapshots ---- */

uint64_t xen_state_bytes(struct engine *e) { return sizeof *e->xen + xen_of(e)->machine_frames * sizeof(struct page_frame); }

void xen_save(struct engine *e, uint8_t *to)
{
    memcpy(to, e->xen, sizeof *e->xen);
    memset(to + offsetof(struct xen, frame), 0, sizeof e->xen->frame);
    memcpy(to + sizeof *e->xen, e->xen->frame, e->xen->machine_frames * sizeof(struct page_frame));
}

/* Counters are what was done, not what is: they stay. */
void xen_restore(struct engine *e, const uint8_t *from)
{
    struct page_frame *frame = e->xen->frame;
    struct xen_counters counters = e->xen->counters;
    memcpy(e->xen, from, sizeof *e->xen);
    e->xen->frame = frame;
    e->xen->counters = counters;
    memcpy(frame, from + sizeof *e->xen, e->xen->machine_frames * sizeof(struct page_frame));
}
