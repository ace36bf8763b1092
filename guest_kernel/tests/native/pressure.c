/* The native dialect: pressure
 *
 * A page cache works on a file that is larger than its memory: nine of ten accesses go to a part that
 * moves on now and then.  "way=0|1|2" chooses how the cache lives with its host (pv/cache.h),
 * "rounds=N" how long, "seed=N" another order.  Each round's time and misses are "=TIME" and "=MISSES"
 * lines, for whoever compares; what is in the pages is checked at every access. */
#include "bench/marks.h"
#include "lib/apic.h"
#include "lib/test.h"
#include "pv/cache.h"
#include "pv/clock.h"

const char test_title[] = "The native dialect: pressure";

enum { ARENA = 0x2000000, ROUND = 250, HOT = 160, MOVES_EACH = 8, VECTOR = 0x58, DISK_NS = 100000 };

static struct native_time time_page;
static struct native_pressure gauge;
static struct cache cache;
static uint64_t chance;

#define CODE(error) ((uint64_t)-(int64_t)NATIVE_E_##error)

static uint32_t draw(uint32_t below)
{
    chance = chance * 6364136223846793005ul + 1442695040888963407ul;   /* Knuth's MMIX */
    return (uint32_t)(chance >> 33) % below;
}

static uint64_t word_of(const char *prefix, uint64_t otherwise)
{
    const char *word = find_word(boot_info.cmdline, prefix);

    return word ? parse_number(word) : otherwise;
}

static volatile bool woken;

static void on_timer(struct trap_frame *frame)
{
    woken = true;
    native_ack_interrupt(frame->vector);
}

/* A page comes from the disk: DISK_NS, in which the processor sleeps. */
static void read_from_disk(uint32_t page, void *to)
{
    woken = false;
    native_set_timer(native_time(&time_page) + DISK_NS, 0, VECTOR);
    while (!woken)
        asm volatile("sti; hlt; cli");
    for (unsigned i = 0; i < PAGE_BYTES / 8; i++)
        ((uint64_t *)to)[i] = page;
}

static unsigned run_round(uint32_t round)
{
    uint32_t first = round / MOVES_EACH * 97 % CACHE_FILE;
    unsigned wrong = 0;

    for (int i = 0; i < ROUND; i++) {
        uint32_t page = draw(10) ? (first + draw(HOT)) % CACHE_FILE : draw(CACHE_FILE);
        const uint64_t *words = cache_page(&cache, page);

        wrong += words[draw(PAGE_BYTES / 8)] != page;
    }
    return wrong;
}

static void check_calls(void)
{
    expect_equal((uint64_t)native_balloon_give(ARENA + 8), CODE(MISALIGNED), "to give a page askew");
    expect_equal((uint64_t)native_balloon_give(0x7ffffff000), CODE(BAD_ADDRESS), "to give a page nowhere");
    expect_equal((uint64_t)native_balloon_give(PHYSICAL(gauge) & -PAGE_BYTES), CODE(OVERLAP), "to give a shared page");
    report(!(gauge.version & 1), "the gauge's version is even");
    report(gauge.pressure <= NATIVE_PRESSURE_FULL, "the gauge stands between 0 and 1");
}

void test_main(void)
{
    uint64_t wanted = 1ul << NATIVE_FEATURE_PRESSURE | 1ul << NATIVE_FEATURE_BALLOON
                      | 1ul << NATIVE_FEATURE_TIME_PAGE | 1ul << NATIVE_FEATURE_TIMER;
    uint64_t rounds = word_of("rounds=", 8);
    unsigned wrong = 0;

    apic_init();
    trap_handle(VECTOR, on_timer);
    if (!native_find() || native_use(wanted) != wanted)
        report_abort("no pressure gauge");
    native_set_page(NATIVE_PAGE_TIME, PHYSICAL(time_page));
    expect_equal((uint64_t)native_set_page(NATIVE_PAGE_PRESSURE, PHYSICAL(gauge)), 0, "the gauge is shared");
    check_calls();
    chance = word_of("seed=", 1);
    cache_init(&cache, (enum cache_way)word_of("way=", CACHE_GAUGE), (uint8_t *)ARENA, &gauge, read_from_disk);
    for (uint32_t round = 0; round < rounds; round++) {
        uint64_t began = native_time(&time_page);
        uint32_t misses = cache.misses;

        wrong += run_round(round);
        mark_figure("TIME", round, native_time(&time_page) - began);
        mark_figure("MISSES", round, cache.misses - misses);
    }
    expect_equal(wrong, 0, "every page holds what the disk has");
}
