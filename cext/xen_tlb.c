/* What the processor may have cached of a Xen PV guest's translations, and when it must forget.
 *
 * A guest flushes what it changes, as on silicon; what follows is for safety. A frame that becomes a table must have no
 * writable translation left, so where the modelled TLB has taken one in is remembered by frame: an address in each half of
 * the linear space, or "many". A frame that was a table may stand in a paging-structure cache until those are renewed.
 *
 * The kernel's half (bit 63) has global tags: Linux maps it alike in every root, and each change of an entry is seen, so a
 * load of CR3 need not drop it unless a present entry of it was changed, or the roots differ there.
 */
#include "xen.h"

/* Two contexts a vcpu: the kernel's root, the program's. */
static uint32_t vpid_of_mode(uint32_t number, bool kernel) { return 2 * number - (kernel ? 1 : 0); }

uint32_t xen_vpid(const struct engine *e) { return vpid_of_mode((uint32_t)e->vcpu->xen, xen_current(e)->kernel); }

void xen_toggled(struct engine *e) { mmu_switch_quietly(e, xen_vpid(e)); }

/* ---- writable translations ---- */

static void note_high(struct page_frame *f, uint64_t page)
{
    if (f->high && f->high != page)
        f->flags |= FRAME_MANY_HIGH;
    f->high = page;
}

/* A token stands for one vcpu's translations of the program's half, from one flush to the next. */
static bool token_lives(const struct xen *x, uint32_t token)
{
    bool lives = false;
    for (uint32_t k = 0; k < x->vcpus; k++)
        lives |= x->low_token[k] == token;
    return lives;
}

static void note_low(struct engine *e, struct page_frame *f, uint64_t page)
{
    uint32_t token = xen_of(e)->low_token[e->vcpu->xen - 1];
    page |= 1;                     /* page 0 is one too */
    if (f->low == page && f->token == token)
        return;
    if (f->low && token_lives(xen_of(e), f->token))
        f->flags |= FRAME_MANY_LOW;
    f->low = page;
    f->token = token;
}

void xen_note_translation(struct engine *e, uint64_t linear, const struct walk *w)
{
    struct page_frame *f = frame_of(xen_of(e), w->hpa >> 12);
    xen_of(e)->program_high |= linear >> 63 && !xen_current(e)->kernel;
    if (!(w->rights & TLB_WRITE) || !f)
        return;
    if (linear >> 63)
        note_high(f, linear & ~0xfffull);
    else
        note_low(e, f, linear & ~0xfffull);
}

void xen_note_table(struct engine *e, uint64_t linear, uint64_t table)
{
    struct page_frame *f = frame_of(xen_of(e), table >> 12);
    if (f && linear >> 63)
        f->flags |= FRAME_HIGH;
}

static void drop(struct engine *e, uint64_t linear)
{
    for (uint32_t number = 1; number <= xen_of(e)->vcpus; number++) {
        mmu_drop_in(e, vpid_of_mode(number, true), ANY_PCID, linear);
        mmu_drop_in(e, vpid_of_mode(number, false), ANY_PCID, linear);
    }
    micro_flush_page(e, linear);
}

void xen_forget_translations(struct engine *e, struct page_frame *f)
{
    if (f->flags & (FRAME_MANY_HIGH | FRAME_MANY_LOW)) {
        xen_of(e)->counters.frame_flushes++;
        xen_flush_all(e);
    } else {
        if (f->high)
            drop(e, f->high);
        if (f->low && token_lives(xen_of(e), f->token))
            drop(e, f->low & ~0xfffull);
    }
    f->low = f->high = 0;
    f->flags &= (uint8_t)~(FRAME_MANY_HIGH | FRAME_MANY_LOW);
}

void xen_flush_all(struct engine *e)
{
    struct xen *x = xen_of(e);
    x->kernel_changed = false;
    for (uint32_t k = 0; k < x->vcpus; k++)
        x->low_token[k] = ++x->last_token;
    mmu_renew(e, ANY_VPID, ANY_PCID, ANY_ROOT);
    micro_flush(e);
}

/* ---- paging-structure caches ---- */

static void renew_structures(struct engine *e)
{
    xen_of(e)->epoch++;
    mmu_renew_all_structures(e);
}

void xen_forget_structures(struct engine *e, struct page_frame *f)
{
    if (f->epoch == xen_of(e)->epoch)
        renew_structures(e);
}

/* ---- what the guest asks for ---- */

static void flush_vcpu(struct engine *e, bool kernel_half)
{
    uint32_t number = (uint32_t)e->vcpu->xen, pcid = kernel_half ? ANY_PCID : NOT_GLOBAL;
    xen_of(e)->counters.flushes++;
    xen_of(e)->low_token[number - 1] = ++xen_of(e)->last_token;
    mmu_renew(e, vpid_of_mode(number, true), pcid, ANY_ROOT);
    mmu_renew(e, vpid_of_mode(number, false), pcid, ANY_ROOT);
    if (kernel_half)
        micro_flush(e);
    else
        micro_flush_nonglobal(e);
}

void xen_flush(struct engine *e)
{
    xen_of(e)->kernel_changed &= xen_of(e)->vcpus > 1;     /* others may still have it */
    flush_vcpu(e, true);
}

void xen_flush_page(struct engine *e, uint64_t linear)
{
    xen_of(e)->counters.page_flushes++;
    drop(e, linear & ~0xfffull);
}

/* But for accessed flags, which each root has its own of. */
static bool kernel_half_differs(const struct engine *e, uint64_t a, uint64_t b)
{
    const uint64_t *one = table_at(e, a >> 12), *other = table_at(e, b >> 12), accessed = 0x60;
    uint64_t differing = 0;
    for (int k = XEN_SLOT_LAST + 1; k < 512; k++)
        differing |= (one[k] ^ other[k]) & ~accessed;
    return differing;
}

/* The kernel's base pointer was loaded, in place of `old_root`. */
void xen_root_loaded(struct engine *e, uint64_t old_root, uint64_t new_root)
{
    bool all = xen_of(e)->kernel_changed || kernel_half_differs(e, old_root, new_root);
    if (all)
        xen_flush(e);
    else
        flush_vcpu(e, false);
}

/* The program's: its half of the linear space; of the other half it seldom sees anything (Linux: the vsyscall page). */
void xen_user_root_loaded(struct engine *e)
{
    struct xen *x = xen_of(e);
    x->counters.flushes++;
    mmu_renew(e, vpid_of_mode((uint32_t)e->vcpu->xen, false), ANY_PCID, ANY_ROOT);
    if (x->program_high)
        micro_flush(e);
    else
        micro_flush_nonglobal(e);
    x->program_high &= x->vcpus > 1;
}
