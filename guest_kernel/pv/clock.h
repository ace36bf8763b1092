/* Time without an exit: the page says what the TSC meant at one moment, and at which rate it runs.
 * Between two readings of the same even version what was read belongs together. */
#ifndef PV_CLOCK_H
#define PV_CLOCK_H
#include <stdint.h>
#include "lib/cpu.h"
#include "pv/native.h"

/* Nanoseconds since power-on. `page` is this processor's, whose TSC it is about. */
static inline uint64_t native_time(const struct native_time *page)
{
    uint32_t version;
    uint64_t ns;

    do {
        version = page->version & ~1u;   /* odd: being written, so it will not match below */
        uint64_t ticks = rdtsc() - page->tsc;
        ticks = page->shift >= 0 ? ticks << page->shift : ticks >> -page->shift;
        ns = page->ns + (uint64_t)(((unsigned __int128)ticks * page->mul) >> 32);
    } while (page->version != version);
    return ns;
}
#endif
