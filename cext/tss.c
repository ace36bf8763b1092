/* What the processor takes from a task-state segment, and task switches, which always exit. */
#include "descriptor.h"
#include "state.h"

static bool tss_fault(struct engine *e, uint32_t ext)
{
    return selector_fault(e, FAULT_TS, guest_segment(e, TR).selector, ext);
}

static bool tss_read(struct engine *e, unsigned offset, void *to, unsigned n, uint32_t ext)
{
    struct core_segment tr = guest_segment(e, TR);
    if (!(tr.flags & DESC_P) || (uint64_t)offset + n - 1 > tr.limit)
        return tss_fault(e, ext);
    return mem_read(e, tr.base + offset, to, n, RIGHTS_SYSTEM);
}

/* A push at another privilege has that privilege's rights; every inner one is a supervisor's. */
static enum rights inner_rights(struct engine *e) { return guest_cpl(e) == 3 ? RIGHTS_SYSTEM : RIGHTS_CURRENT; }

static bool read_inner_pointer(struct engine *e, int cpl, uint32_t ext, uint16_t *ss, uint32_t *sp)
{
    uint8_t bytes[6] = {0};
    bool wide = system_type(guest_segment(e, TR).flags) & 8;
    unsigned width = wide ? 4 : 2;
    if (!tss_read(e, width + (unsigned)cpl * width * 2, bytes, width + 2, ext))
        return false;
    *sp = 0;
    memcpy(sp, bytes, width);
    memcpy(ss, bytes + width, sizeof *ss);
    return true;
}

bool inner_stack(struct engine *e, int cpl, uint32_t ext, struct descriptor *ss, struct stack *s)
{
    uint16_t selector;
    uint32_t sp;
    if (!read_inner_pointer(e, cpl, ext, &selector, &sp))
        return false;
    if (is_null(selector))
        return raise_fault(e, FAULT_TS, ext);
    if (!read_descriptor(e, selector, FAULT_TS, ext, ss))
        return false;
    if (rpl_of(selector) != cpl || dpl_of(ss->high) != cpl || !is_writable(ss->high))
        return selector_fault(e, FAULT_TS, selector, ext);
    if (!(ss->high & DESC_P))
        return selector_fault(e, FAULT_SS, selector, ext);
    *s = stack_of(ss, sp, inner_rights(e), (selector & 0xfffcu) | ext);
    return true;
}

bool inner_stack_long(struct engine *e, int cpl, int ist, uint32_t ext, struct stack *s)
{
    uint64_t sp;
    unsigned offset = ist ? 0x24 + 8 * ((unsigned)ist - 1) : 4 + 8 * (unsigned)cpl;
    if (!tss_read(e, offset, &sp, sizeof sp, ext))
        return false;
    *s = flat_stack(sp, inner_rights(e), ext);
    return true;
}

/* Manual, "Software Interrupt Redirection Bit Map": the 32 bytes below the I/O bitmap; a clear bit redirects. */
bool is_redirected_to_8086(struct engine *e, uint8_t vector, bool *redirected)
{
    enum { IO_MAP_BASE = 0x66 };
    uint16_t map;
    uint8_t bits;
    struct core_segment tr = guest_segment(e, TR);
    *redirected = false;
    if (tr.limit < IO_MAP_BASE + 1)
        return true;
    if (!tss_read(e, IO_MAP_BASE, &map, sizeof map, 0))
        return false;
    uint32_t offset = (uint32_t)map - 32 + vector / 8;
    if (map < 32 || offset > tr.limit)
        return true;
    if (!tss_read(e, offset, &bits, 1, 0))
        return false;
    *redirected = !(bits >> (vector & 7) & 1);
    return true;
}

/* Manual, "Treatment of Task Switches": these faults come before the exit. */
static bool check_new_task(struct engine *e, const struct task_switch *t)
{
    struct descriptor d;
    unsigned busy = t->source == TASK_BY_IRET ? TSS_BUSY : 0;
    if (t->selector & 4 || is_null(t->selector))
        return selector_fault(e, t->vector, t->selector, t->ext);
    if (!read_descriptor(e, t->selector, t->vector, t->ext, &d))
        return false;
    unsigned type = system_type(d.high);
    if (d.high & DESC_S || (type != (SYS_TSS16 | busy) && type != (SYS_TSS32 | busy)))
        return selector_fault(e, t->vector, t->selector, t->ext);
    if (!(d.high & DESC_P))
        return selector_fault(e, FAULT_NP, t->selector, t->ext);
    return limit_of(&d) >= (type & 8 ? 0x67u : 0x2bu) || selector_fault(e, FAULT_TS, t->selector, t->ext);
}

bool switch_task(struct engine *e, const struct task_switch *t)
{
    if (!check_new_task(e, t))
        return false;
    raise_exit(e, EXIT_TASK_SWITCH, (uint64_t)t->source << 30 | t->selector);
    e->pending.instruction_length = t->length;
    return false;
}
