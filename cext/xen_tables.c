/* Descriptor tables: frames of the guest's behind a window in the hypervisor's hole, typed so that it cannot write them.
 *
 * Page 14 of each GDT is Xen's own, with the flat selectors 0xe008 to 0xe033 that every PV guest finds.
 */
#include "xen.h"

enum { DESCRIPTOR_RPL3 = 3, LDT_TYPE = 2 };
#define DESCRIPTOR_P (1ull << 47)
#define DESCRIPTOR_S (1ull << 44)
#define DESCRIPTOR_A (1ull << 40)

/* Xen's check_descriptor(): no gate, no system segment; code and data get DPL 3. Accessed, because the processor cannot
 * set that in a page that it sees read-only. */
bool xen_fix_descriptor(uint64_t *d)
{
    if (!(*d & DESCRIPTOR_P) || (!(*d & DESCRIPTOR_S) && !(*d >> 40 & 15)))
        return true;
    if (!(*d & DESCRIPTOR_S))
        return false;
    if ((*d >> 45 & 3) != DESCRIPTOR_RPL3 || !(*d & DESCRIPTOR_A))
        *d |= (uint64_t)DESCRIPTOR_RPL3 << 45 | DESCRIPTOR_A;
    return true;
}

static uint64_t window_of(const struct engine *e) { return XEN_TABLES_START + (e->vcpu->xen - 1) * XEN_TABLE_PAGES * 4096ull; }

static void show(struct engine *e, unsigned page, uint64_t mfn)
{
    uint64_t number = (e->vcpu->xen - 1) * XEN_TABLE_PAGES + page;
    uint64_t entry = mfn == ~0ull ? 0 : mfn << 12 | 1, at = (xen_of(e)->windows << 12) + number * 8;
    memcpy(e->ram + at, &entry, 8);
    host_wrote(e, at, 8);
    xen_flush_page(e, window_of(e) + page * 4096ull);
}

static void drop_gdt(struct engine *e, struct xen_vcpu *v)
{
    for (unsigned k = 0; k < v->gdt_pages; k++) {
        show(e, k, ~0ull);
        xen_put_type(e, v->gdt_frames[k]);
    }
    v->gdt_pages = 0;
}

/* The old one stays where a frame cannot be one of a descriptor table. At most XEN_GUEST_GDT_ENTRIES. */
int xen_load_gdt(struct engine *e, const uint64_t *frames, uint64_t entries)
{
    struct xen_vcpu *v = xen_current(e);
    uint64_t pages = (entries + 511) / 512, k = 0;
    while (k < pages && !xen_get_type(e, frames[k], FRAME_SEGMENTS))
        k++;
    if (k < pages) {
        while (k--)
            xen_put_type(e, frames[k]);
        return -EINVAL;
    }
    drop_gdt(e, v);
    memcpy(v->gdt_frames, frames, pages * 8);
    v->gdt_pages = pages;
    for (k = 0; k < pages; k++)
        show(e, (unsigned)k, frames[k]);
    return 0;
}

int64_t xen_set_gdt(struct engine *e, const uint64_t *a)
{
    uint64_t frames[XEN_RESERVED_GDT_PAGE], entries = (uint32_t)a[1];
    if (entries > XEN_GUEST_GDT_ENTRIES)
        return -EINVAL;
    if (xen_read(e, a[0], frames, (entries + 511) / 512 * 8))
        return -EFAULT;
    return xen_load_gdt(e, frames, entries);
}

/* ---- LDT: its pages are looked up once, when it is set ---- */

static void drop_ldt(struct engine *e)
{
    const uint64_t *entry = table_at(e, xen_of(e)->windows) + (e->vcpu->xen - 1) * XEN_TABLE_PAGES + XEN_GDT_PAGES;
    for (unsigned k = 0; k < XEN_GDT_PAGES; k++) {
        uint64_t old = entry[k];
        if (!(old & 1))
            continue;
        show(e, XEN_GDT_PAGES + k, ~0ull);
        xen_put_type(e, (old & ADDRESS_MASK) >> 12);
    }
}

static void show_ldt_page(struct engine *e, unsigned page, uint64_t linear)
{
    uint64_t address, entry;
    if (!xen_find_l1e(e, linear, &address))
        return;
    memcpy(&entry, e->ram + address, 8);
    uint64_t mfn = (entry & ADDRESS_MASK) >> 12;
    if (entry & 1 && !xen_get_type(e, mfn, FRAME_SEGMENTS))
        show(e, XEN_GDT_PAGES + page, mfn);
}

int64_t xen_set_ldt(struct engine *e, uint64_t base, uint64_t entries)
{
    struct xen_vcpu *v = xen_current(e);
    bool reachable = is_canonical(e, base) && !is_in_hole(base, 65536);
    if (entries > 8192 || (entries && ((base & 0xfff) || !reachable)))
        return -EINVAL;
    if (v->ldt_base == base && v->ldt_entries == entries)
        return 0;
    drop_ldt(e);
    v->ldt_base = base;
    v->ldt_entries = entries;
    for (unsigned k = 0; k < (entries + 511) / 512; k++)
        show_ldt_page(e, k, base + k * 4096ull);
    xen_load_tables(e);
    return 0;
}

int64_t xen_update_descriptor(struct engine *e, const uint64_t *a)
{
    uint64_t mfn = a[0] >> 12, d = a[1];
    if (a[0] & 7 || !xen_fix_descriptor(&d) || !is_owned(xen_of(e), mfn)) {
        xen_breach(e, XEN_RULE_SEGMENTS, a[0], a[1]);
        return -EINVAL;
    }
    const struct page_frame *f = &xen_of(e)->frame[mfn];
    enum frame_type type = f->types && f->type == FRAME_SEGMENTS ? FRAME_SEGMENTS : FRAME_WRITABLE;
    if (xen_get_type(e, mfn, type)) {
        xen_breach(e, XEN_RULE_SEGMENTS, a[0], a[1]);
        return -EINVAL;
    }
    memcpy(e->ram + a[0], &d, 8);
    host_wrote(e, a[0], 8);
    xen_put_type(e, mfn);
    return 0;
}

/* What the processor's registers say of them. */
void xen_load_tables(struct engine *e)
{
    const struct xen_vcpu *v = xen_current(e);
    struct core *c = e->core;
    c->gdt.base = window_of(e);
    c->gdt.limit = 0xffff;
    c->idt.base = 0;
    c->idt.limit = 0;
    c->ldt = (struct core_segment){.selector = v->ldt_entries ? 8 : 0, .base = window_of(e) + XEN_GDT_PAGES * 4096ull,
                                   .limit = v->ldt_entries ? (uint32_t)v->ldt_entries * 8 - 1 : 0,
                                   .flags = v->ldt_entries ? DESC_P | LDT_TYPE << 8 : 0};
}
