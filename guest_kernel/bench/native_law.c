/* The amortisation law, native
 *
 * n changes of a page table, each with its INVLPG: as n instructions, which exit where tables are
 * shadowed, and as one multicall.  The guest reads its own TSC, caches are warm; each line is
 * "=NAME N CYCLES", cycles of the quickest of several tries. */
#include "bench/marks.h"
#include "lib/test.h"
#include "pv/batch.h"

const char test_title[] = "Benchmark: native law";

enum { TRIES = 6, MOST = 256 };

static struct batch ring;
static uint64_t *entries[MOST], *frame;

static void by_traps(unsigned n)
{
    for (unsigned k = 0; k < n; k++) {
        *entries[k] = (uint64_t)frame | PTE_P | PTE_W;
        invlpg(TEST_AREA + k * PAGE_BYTES);
    }
}

static void by_multicall(unsigned n)
{
    for (unsigned k = 0; k < n; k++)
        batch_put(&ring, NATIVE_CALL_MMU_UPDATE, (uint64_t)entries[k], (uint64_t)frame | PTE_P | PTE_W,
                  TEST_AREA + k * PAGE_BYTES);
    batch_run(&ring);
}

static uint64_t quickest(void (*how)(unsigned), unsigned n)
{
    uint64_t least = ~0ul;

    for (unsigned k = 0; k < TRIES; k++) {
        uint64_t began = rdtsc();

        how(n);
        uint64_t took = rdtsc() - began;
        least = took < least ? took : least;
    }
    return least;
}

void test_main(void)
{
    uint64_t wanted = 1ul << NATIVE_FEATURE_MULTICALL | 1ul << NATIVE_FEATURE_MMU_BATCH;

    paging_init();
    frame = alloc_page();
    for (unsigned k = 0; k < MOST; k++)
        entries[k] = page_entry(TEST_AREA + k * PAGE_BYTES, 1);
    if (!native_find() || native_use(wanted) != wanted)
        report_abort("no multicall");
    batch_init(&ring, 0);
    mark_figure("clock", 0, quickest(by_traps, 0));
    for (unsigned n = 1; n <= MOST; n = n < 4 ? n + 1 : n * 2) {
        mark_figure("traps", n, quickest(by_traps, n));
        mark_figure("multicall", n, quickest(by_multicall, n));
    }
    exit_with(0);
}
