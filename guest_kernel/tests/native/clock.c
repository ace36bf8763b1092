/* The native dialect: clocks
 *
 * Every processor reads the time again and again, without an exit, while the processor's frequency
 * changes under it.  A word that all share holds the latest time that anybody has seen: nobody may
 * see an earlier one.  Each 100 calls (a number in the command line says how many there are in all)
 * the time is handed to the hypervisor in a call that does nothing, for whoever wants to compare it
 * with the machine's own clock. */
#include "lib/apic.h"
#include "lib/others.h"
#include "lib/test.h"
#include "pv/clock.h"

const char test_title[] = "The native dialect: clocks";

enum { CALLS = 20000, SHOWN_EACH = 100 };

static struct native_time pages[MAX_CPUS];
static volatile uint64_t latest, backwards;
static volatile uint32_t waiting, done;
static uint64_t calls;

static uint64_t wanted_calls(void)
{
    const char *word = find_word(boot_info.cmdline, "calls=");

    return word ? parse_number(word) : CALLS;
}

/* Take over `now` as the latest, unless there is a later one already. */
static void show(uint64_t now)
{
    uint64_t seen = latest;

    while (seen < now && !__atomic_compare_exchange_n(&latest, &seen, now, false, __ATOMIC_SEQ_CST,
                                                      __ATOMIC_SEQ_CST))
        ;
}

static void read_times(const struct native_time *page)
{
    for (uint64_t i = 0; i < calls; i++) {
        uint64_t before = latest, now = native_time(page);

        if (now < before)
            __atomic_fetch_add(&backwards, 1, __ATOMIC_SEQ_CST);
        show(now);
        if (i % SHOWN_EACH == 0) {
            uint64_t tsc = rdtsc();      /* says how old the time is when it arrives */

            native_call(NATIVE_CALL_NOP, native_time(page), tsc, 0, 0, 0, 0);
        }
    }
}

static void other(uint64_t index)
{
    native_set_page(NATIVE_PAGE_TIME, PHYSICAL(pages[index]));
    __atomic_fetch_add(&waiting, 1, __ATOMIC_SEQ_CST);
    read_times(&pages[index]);
    __atomic_fetch_add(&done, 1, __ATOMIC_SEQ_CST);
}

/* `calls` readings with nothing between: the exits in here are none. */
static void read_quietly(void)
{
    uint64_t last = 0, back = 0;

    native_call(NATIVE_CALL_NOP, 1, 0, 0, 0, 0, 0);
    for (uint64_t i = 0; i < calls; i++) {
        uint64_t now = native_time(&pages[0]);

        back += now < last;
        last = now;
    }
    native_call(NATIVE_CALL_NOP, 2, 0, 0, 0, 0, 0);
    expect_equal(back, 0, "never backwards on one processor");
}

void test_main(void)
{
    uint64_t wanted = 1ul << NATIVE_FEATURE_TIME_PAGE;
    const char *word = find_word(boot_info.cmdline, "cpus=");
    uint32_t others = (word ? (uint32_t)parse_number(word) : 1) - 1;

    apic_init();
    calls = wanted_calls();
    if (!native_find() || native_use(wanted) != wanted)
        report_abort("no time page");
    report(!native_set_page(NATIVE_PAGE_TIME, PHYSICAL(pages[0])), "the time page is shared");
    report(pages[0].version && !(pages[0].version & 1), "its version is even");
    report(pages[0].flags & NATIVE_TIME_STABLE, "it says that all processors agree");
    uint64_t began = native_time(&pages[0]), ticks = rdtsc();
    for (int i = 0; i < 100000; i++)
        asm volatile("pause");
    report(native_time(&pages[0]) > began && rdtsc() > ticks, "time goes on");
    if (others) {
        others_start(other);
        report(others_wait(&waiting, others), "%u more processors have a page", others);
    }
    read_times(&pages[0]);
    for (uint64_t i = 0; i < 100000000 && done != others; i++)
        asm volatile("pause");
    expect_equal(done, others, "all have read their times");
    expect_equal(backwards, 0, "nobody saw an earlier time than another before");
    read_quietly();
    wrmsr(MSR_TSC, 1ul << 50);
    uint64_t then = latest, now = native_time(&pages[0]);
    report(now >= then && now - then < 1000000000, "a written TSC does not move time");
    expect_equal((uint64_t)native_set_page(NATIVE_PAGE_TIME, NATIVE_NOWHERE), 0, "the page is taken back");
    uint32_t version = pages[0].version;
    wrmsr(MSR_TSC, rdtsc());
    expect_equal(pages[0].version, version, "and left alone");
}
