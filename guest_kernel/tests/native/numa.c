/* The native dialect: NUMA hints
 *
 * Each of two processors works on memory in the half that is not its own by birth.  With the word
 * "hints" in the command line they say so, and whoever places them may follow.  "=PASS n cycles" lines
 * tell what the passes of processor n took in the end. */
#include "bench/marks.h"
#include "lib/apic.h"
#include "lib/others.h"
#include "lib/test.h"
#include "pv/native.h"

const char test_title[] = "The native dialect: NUMA hints";

enum { PAGES = 2048, PASSES = 6, LOW_HALF = 0x1000000, HIGH_HALF = 0x3000000 };

static uint64_t took[2];
static volatile uint32_t done, go;

#define CODE(error) ((uint64_t)-(int64_t)NATIVE_E_##error)

static uint64_t pass(unsigned which)
{
    uint64_t began = rdtsc();

    for (unsigned i = 0; i < PAGES; i++)
        ++*(volatile uint64_t *)(TEST_AREA + (which * PAGES + i) * PAGE_BYTES);
    return rdtsc() - began;
}

static void work(unsigned which)
{
    for (int i = 0; i < PASSES; i++)
        took[which] = pass(which);
    __atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
}

static void other(uint64_t index)
{
    while (!go)
        asm volatile("pause");
    work((unsigned)index);
}

static void check_errors(void)
{
    expect_equal((uint64_t)native_numa_hint(0, LOW_HALF, 1), CODE(BAD_ARGUMENT), "a hint for nobody");
    expect_equal((uint64_t)native_numa_hint(1ul << 40, LOW_HALF, 1), CODE(BAD_ARGUMENT), "for who is not there");
    expect_equal((uint64_t)native_numa_hint(1, LOW_HALF, 0), CODE(BAD_ARGUMENT), "for no memory");
    expect_equal((uint64_t)native_numa_hint(1, LOW_HALF + 1, 1), CODE(MISALIGNED), "askew");
    expect_equal((uint64_t)native_numa_hint(1, LOW_HALF, 1ul << 39), CODE(BAD_ADDRESS), "for more than there is");
}

void test_main(void)
{
    uint64_t wanted = 1ul << NATIVE_FEATURE_NUMA;

    paging_init();
    apic_init();
    if (!native_find() || native_use(wanted) != wanted)
        report_abort("no NUMA hints");
    check_errors();
    for (unsigned i = 0; i < PAGES; i++) {
        map_page(TEST_AREA + i * PAGE_BYTES, HIGH_HALF + i * PAGE_BYTES, PTE_P | PTE_W);
        map_page(TEST_AREA + (PAGES + i) * PAGE_BYTES, LOW_HALF + i * PAGE_BYTES, PTE_P | PTE_W);
    }
    others_start(other);
    if (find_word(boot_info.cmdline, "hints")) {
        expect_equal((uint64_t)native_numa_hint(1, HIGH_HALF, PAGES), 0, "the first works in the upper half");
        expect_equal((uint64_t)native_numa_hint(2, LOW_HALF, PAGES), 0, "the second in the lower");
    }
    go = 1;
    work(0);
    report(others_wait(&done, 2), "both have worked");
    mark_figure("PASS", 0, took[0]);
    mark_figure("PASS", 1, took[1]);
}
