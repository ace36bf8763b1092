/* Which exits this process has seen: reason, class of the qualification, mode. Off unless somebody asks.
 *
 * A class is what is left of a qualification without the numbers in it (ports, registers, addresses): each reason's bits
 * are in vmm/testing/coverage.py, which sets them here.
 */
#include "state.h"

enum { SLOTS = 4096 };
static struct { bool on; uint64_t masks[REASONS], seen[SLOTS]; uint32_t count; } coverage;

void exit_coverage_start(const uint64_t *masks)
{
    memcpy(coverage.masks, masks, sizeof coverage.masks);
    memset(coverage.seen, 0, sizeof coverage.seen);
    coverage.count = 0;
    coverage.on = true;
}

static unsigned mode_of(const struct engine *e)
{
    if (in_real_mode(e))
        return 1;
    if (e->core->eflags & 1 << 17)
        return 2;
    return in_64bit_code(e) ? 5 : in_long_mode(e) ? 4 : 3;
}

/* An exception's class is its vector and type. */
static uint64_t class_of(const struct exit_record *x, unsigned reason)
{
    uint64_t raw = reason == EXIT_EXCEPTION_NMI ? x->interruption_info & 0x7ff : x->qualification;
    return raw & coverage.masks[reason];
}

void note_exit(const struct engine *e)
{
    unsigned reason = e->exit.reason & 0xffff;
    if (!coverage.on || reason >= REASONS)
        return;
    uint64_t key = class_of(&e->exit, reason) << 16 | reason << 4 | mode_of(e);
    uint32_t at = (uint32_t)(key * 0x9e3779b97f4a7c15ull >> 52) % SLOTS;
    while (coverage.seen[at] && coverage.seen[at] != key)
        at = (at + 1) % SLOTS;
    if (!coverage.seen[at] && coverage.count < SLOTS - 1) {
        coverage.seen[at] = key;
        coverage.count++;
    }
}

uint32_t exit_coverage(uint64_t *keys, uint32_t room)
{
    uint32_t found = 0;
    for (uint32_t n = 0; n < SLOTS && found < room; n++)
        if (coverage.seen[n])
            keys[found++] = coverage.seen[n];
    return found;
}
