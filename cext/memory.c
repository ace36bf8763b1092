/* Guest memory as the processor model itself uses it: stacks of deliveries, descriptor tables, operands. */
#include "state.h"

static uint64_t wrap(const struct engine *e, uint64_t linear) { return in_long_mode(e) ? linear : linear & 0xffffffff; }

static bool as_user(const struct engine *e, enum rights rights) { return rights == RIGHTS_CURRENT && e->cpl == 3; }

/* Translate each page of the range before any byte moves: an access that faults has no effect. */
static bool translate_range(struct engine *e, uint64_t linear, size_t n, enum access access, enum rights rights, uint64_t hpa[2])
{
    e->implicit_access = rights == RIGHTS_SYSTEM;
    bool done = true;
    for (int k = 0; done && k < 2; k++) {
        uint64_t at = k ? wrap(e, (linear + n - 1) & ~0xfffull) : wrap(e, linear);
        if (k && at == (linear & ~0xfffull))
            break;
        done = is_canonical(e, at) ? tlb_translate(e, at, access, as_user(e, rights), &hpa[k]) : raise_fault(e, 13, 0);
    }
    e->implicit_access = false;
    return done;
}

static void move(struct engine *e, const uint64_t hpa[2], uint8_t *bytes, size_t n, bool writes)
{
    for (int k = 0; n; k++) {
        size_t part = 4096 - (hpa[k] & 0xfff);
        part = part < n ? part : n;
        detail_access(e, hpa[k], part, writes);
        if (writes) {
            memcpy(e->ram + hpa[k], bytes, part);
            host_wrote(e, hpa[k], part);
        } else {
            memcpy(bytes, e->ram + hpa[k], part);
        }
        bytes += part;
        n -= part;
    }
}

bool mem_read(struct engine *e, uint64_t linear, void *to, size_t n, enum rights rights)
{
    uint64_t hpa[2];
    if (!translate_range(e, linear, n, ACCESS_READ, rights, hpa))
        return false;
    move(e, hpa, to, n, false);
    if (unlikely(e->debug.data || e->watching) && rights == RIGHTS_CURRENT)
        debug_note(e, linear, n, false);
    return true;
}

bool mem_write(struct engine *e, uint64_t linear, const void *from, size_t n, enum rights rights)
{
    uint64_t hpa[2];
    if (!translate_range(e, linear, n, ACCESS_WRITE, rights, hpa))
        return false;
    move(e, hpa, (uint8_t *)(uintptr_t)from, n, true);
    if (unlikely(e->debug.data || e->watching) && rights == RIGHTS_CURRENT)
        debug_note(e, linear, n, true);
    else if (unlikely(e->watching))
        stops_note(e, linear, n, true);
    return true;
}

bool mem_check(struct engine *e, uint64_t linear, size_t n, enum access access, enum rights rights)
{
    uint64_t hpa[2];
    return n == 0 || translate_range(e, linear, n, access, rights, hpa);
}

bool mem_fetch(struct engine *e, uint64_t linear, void *to, size_t n)
{
    uint64_t hpa[2];
    if (!translate_range(e, linear, n, ACCESS_FETCH, RIGHTS_CURRENT, hpa))
        return false;
    move(e, hpa, to, n, false);
    return true;
}

size_t peek_code(struct engine *e, uint64_t linear, void *to, size_t n)
{
    size_t done = 0;
    while (done < n) {
        uint64_t hpa, at = wrap(e, linear + done);
        size_t part = 4096 - (at & 0xfff);
        part = part < n - done ? part : n - done;
        if (!code_page(e, at, &hpa))
            break;
        memcpy((uint8_t *)to + done, e->ram + hpa, part);
        done += part;
    }
    return done;
}
