/* Data accesses through the modelled caches, and branches through a predictor: what a block's price leaves out.
 *
 * A block's price takes each access for a hit of the first level and each branch for predicted. Here the rest is added.
 * A load whose line is further away holds up the instructions behind it for the whole difference: misses do not overlap. A
 * store waits in a buffer and holds up nobody; its line is brought in. A prefetcher follows streams of lines, upwards:
 * the next line of a stream is found in the second level at the latest. Levels are filled on the way, each of a
 * set's lines by age. Page walks share the same caches.
 *
 * What is lost is booked at the next transfer or end of a page, where every translation ends, and before any event: so time
 * is a function of the instructions that retired, wherever blocks and runs are cut. An access that is repeated because its instruction began anew finds its line.
 */
#include "state.h"

enum { LINE_SHIFT = 6, LEVEL1 = 0, LEVEL2 = 1 };

/* ---- data ---- */

/* Whether the line continues a stream; one that does not begins another. */
static bool is_streamed(struct detail *d, uint64_t line)
{
    for (int k = 0; k < STREAMS; k++)
        if (d->next_line[k] == line) {
            d->next_line[k] = line + 1;
            return true;
        }
    d->next_line[d->next_stream++ % STREAMS] = line + 1;
    return false;
}

static void touch(struct engine *e, uint64_t line, bool stores)
{
    struct detail *d = &e->detail;
    if (line == d->last_line)
        return;
    d->last_line = line;
    uint32_t level = line_level_of(&e->price, line);
    if (likely(level == LEVEL1))
        return;
    d->counters.misses[level - 1]++;
    if (is_streamed(d, line))
        level = LEVEL2;
    if (stores)
        return;
    d->late += e->price.costs.latency[level] - e->price.costs.latency[LEVEL1];
}

void detail_access(struct engine *e, uint64_t hpa, uint64_t size, bool stores)
{
    if (likely(!e->detail.on) || e->mmu.aside)
        return;
    uint64_t first = hpa >> LINE_SHIFT, last = (hpa + size - 1) >> LINE_SHIFT;
    e->detail.counters.loads += !stores;
    e->detail.counters.stores += stores;
    touch(e, first, stores);
    if (unlikely(last != first))
        touch(e, last, stores);
}

/* ---- branches ---- */

enum kind { OTHER, CONDITIONAL, INDIRECT, DIRECT_CALL, INDIRECT_CALL, RETURN };

static bool is_prefix(const struct engine *e, uint8_t byte)
{
    return byte == 0x66 || byte == 0x67 || byte == 0xf2 || byte == 0xf3 || byte == 0x2e || byte == 0x3e ||
           (in_64bit_code(e) && byte >> 4 == 4);
}

static enum kind kind_of(const struct engine *e, const uint8_t *code, unsigned length)
{
    while (length > 1 && is_prefix(e, *code))
        code++, length--;
    uint8_t reg = length > 1 ? code[1] >> 3 & 7 : 0;
    if (*code >> 4 == 7 || (*code >= 0xe0 && *code <= 0xe3) || (*code == 0x0f && length > 1 && code[1] >> 4 == 8))
        return CONDITIONAL;
    if (*code == 0xe8)
        return DIRECT_CALL;
    if (*code == 0xc3 || *code == 0xc2)
        return RETURN;
    return *code != 0xff ? OTHER : reg == 2 ? INDIRECT_CALL : reg == 4 ? INDIRECT : OTHER;
}

static bool guess_conditional(struct predictor *p, uint64_t at, bool taken)
{
    uint8_t *counter = &p->counters[(at ^ p->history) & ((1 << HISTORY_BITS) - 1)];
    bool right = taken == (*counter >= 2);
    if (taken ? *counter < 3 : *counter > 0)
        *counter = (uint8_t)(taken ? *counter + 1 : *counter - 1);
    p->history = p->history << 1 | taken;
    return right;
}

static bool guess_target(struct predictor *p, uint64_t at, uint64_t to)
{
    uint32_t k = (uint32_t)(at ^ at >> 10) % TARGETS;
    bool right = p->from[k] == at && p->target[k] == to;
    p->from[k] = at;
    p->target[k] = to;
    return right;
}

static bool guess(struct predictor *p, enum kind kind, uint64_t at, uint64_t behind, uint64_t to)
{
    bool right = true;
    if (kind == CONDITIONAL)
        right = guess_conditional(p, at, to != behind);
    else if (kind == INDIRECT || kind == INDIRECT_CALL)
        right = guess_target(p, at, to);
    else if (kind == RETURN)
        right = p->returns[p->newest-- % RETURNS] == to;
    if (kind == DIRECT_CALL || kind == INDIRECT_CALL)
        p->returns[++p->newest % RETURNS] = behind;
    return right;
}

void detail_branch(struct engine *e, const struct block *b, uint64_t to)
{
    struct detail *d = &e->detail;
    if (!b->total || b->counted < b->total)
        return;
    unsigned length = length_at(e, b, b->total - 1u);
    uint64_t behind = b->real_pc + bytes_before(e, b, b->total);
    enum kind kind = kind_of(e, e->codes + b->code + (behind - length - b->real_pc), length);
    if (kind == OTHER)
        return;
    d->counters.branches++;
    if (guess(&d->predictor, kind, behind - length, behind, to))
        return;
    d->counters.mispredicted++;
    d->late += e->price.costs.mispredict;
}

/* ---- booking ---- */

void detail_book(struct engine *e)
{
    uint64_t cycles = e->detail.late;
    e->detail.late = 0;
    if (cycles)
        ledger_book(e, LEDGER_GUEST, cycles);
}

void detail_close(struct engine *e, const struct block *b, uint32_t done)
{
    if (e->detail.late && e->lengths[b->lengths + done - 1] & TRANSFERS)
        detail_book(e);
}

void detail_forget(struct engine *e)
{
    struct detail *d = &e->detail;
    d->predictor = (struct predictor){0};
    for (int k = 0; k < 1 << HISTORY_BITS; k++)
        d->predictor.counters[k] = 1;
    memset(d->next_line, 0, sizeof d->next_line);
    d->next_stream = 0;
    d->last_line = ~0ull;
}

const struct detail_counters *engine_detail_counters(const struct engine *e) { return &e->detail.counters; }

/* ---- what Unicorn shows: accesses that have been granted, by physical address; RIP is of no interest (probe.c) ---- */

static void on_load(uc_engine *uc, uc_mem_type type, uint64_t hpa, int size, int64_t value, void *data)
{
    (void)type, (void)value;
    ((char *)uc)[layout.unsynced] = 1;
    detail_access(data, hpa, (uint64_t)size, false);
}

static void on_store(uc_engine *uc, uc_mem_type type, uint64_t hpa, int size, int64_t value, void *data)
{
    (void)type, (void)value;
    ((char *)uc)[layout.unsynced] = 1;
    detail_access(data, hpa, (uint64_t)size, true);
}

int engine_set_detailed(struct engine *e)
{
    uc_hook hook;
    uc_err error = lib.uc_hook_add(e->uc, &hook, UC_HOOK_MEM_READ, (void *)on_load, e, 1, 0);
    if (!layout.unsynced)
        return -1;
    error |= lib.uc_hook_add(e->uc, &hook, UC_HOOK_MEM_WRITE, (void *)on_store, e, 1, 0);
    e->detail.on = true;
    detail_forget(e);
    return error ? -1 : 0;
}
