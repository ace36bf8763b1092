/* The native dialect: timers
 *
 * set_timer and ack_interrupt.  A timer comes at its deadline or up to its slack later; those whose
 * slack allows come together.  A storm of timers that are due at once is answered at a bounded
 * rate, and every wrong argument with an error. */
#include "lib/apic.h"
#include "lib/test.h"
#include "pv/clock.h"

const char test_title[] = "The native dialect: timers";

enum { FIRST = 0x50, TIMERS = 8, STORM = 40, LEAST_NS = 20000 };
#define US 1000ul

static struct native_time page;
static volatile uint64_t fired[TIMERS], came_at[TIMERS];
static volatile int total;
static volatile bool again;

#define CODE(error) ((uint64_t)-(int64_t)NATIVE_E_##error)

static void on_timer(struct trap_frame *frame)
{
    unsigned which = (unsigned)frame->vector - FIRST;

    fired[which]++;
    came_at[which] = native_time(&page);
    total++;
    if (again && total < STORM)
        native_set_timer(0, 0, frame->vector);      /* due since ever: at once, please */
    if (native_ack_interrupt(frame->vector))
        report(false, "an interrupt in service is acknowledged");
}

static void wait_for(int wanted)
{
    while (total < wanted)
        asm volatile("sti; hlt; cli");
}

static void check_one(void)
{
    uint64_t deadline = native_time(&page) + 100 * US;

    total = 0;
    expect_equal((uint64_t)native_set_timer(deadline, 0, FIRST), 0, "a timer");
    wait_for(1);
    report(came_at[0] >= deadline, "it does not come early");
    report(came_at[0] - deadline < 20 * US, "nor late (%lu ns)", came_at[0] - deadline);
    deadline = native_time(&page) + 100 * US;
    native_set_timer(deadline, 0, FIRST);
    native_set_timer(NATIVE_FOREVER, 0, FIRST);
    native_set_timer(deadline + 50 * US, 0, FIRST + 1);
    wait_for(2);
    expect_equal(fired[0], 1, "one that was taken back does not come");
}

static uint64_t apart(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;        /* of those that come together the highest vector is first */
}

/* Eight timers, 30 us apart, each with enough slack to wait for the last. */
static void check_together(uint64_t slack, unsigned moments)
{
    uint64_t now = native_time(&page) + 200 * US;
    unsigned different = 0;

    total = 0;
    for (unsigned i = 0; i < TIMERS; i++)
        native_set_timer(now + i * 30 * US, slack, FIRST + i);
    wait_for(TIMERS);
    for (unsigned i = 0; i < TIMERS; i++) {
        report(came_at[i] >= now + i * 30 * US && came_at[i] < now + i * 30 * US + slack + 20 * US,
               "timer %u comes within its slack of %lu us", i, slack / US);
        different += i == 0 || apart(came_at[i], came_at[i - 1]) > 10 * US;
    }
    expect_equal(different, moments, "at so many moments");
}

static void check_storm(void)
{
    uint64_t began = native_time(&page);

    again = true;
    total = 0;
    native_set_timer(0, 0, FIRST);
    wait_for(STORM);
    again = false;
    uint64_t took = native_time(&page) - began;
    report(took >= (STORM - 1) * LEAST_NS, "a storm of %d takes %lu us: no faster than it may", STORM,
           took / US);
}

static void check_errors(void)
{
    expect_equal((uint64_t)native_set_timer(0, 0, 31), CODE(BAD_ARGUMENT), "an exception's vector");
    expect_equal((uint64_t)native_set_timer(0, 0, 256), CODE(BAD_ARGUMENT), "a vector too large");
    expect_equal((uint64_t)native_ack_interrupt(FIRST), CODE(BAD_ARGUMENT), "nothing is in service");
    unsigned taken = 0;
    for (unsigned vector = 0x60; vector < 0xff; vector++)
        taken += !native_set_timer(NATIVE_FOREVER - 1, ~0ul, vector);
    expect_equal(taken, 32, "so many timers at most");
    expect_equal((uint64_t)native_set_timer(1, 0, 0xf0), CODE(LIMIT), "one more");
    for (unsigned vector = 0x60; vector < 0xff; vector++)
        native_set_timer(NATIVE_FOREVER, 0, vector);
    expect_equal((uint64_t)native_set_timer(NATIVE_FOREVER - 1, 0, 0xf0), 0, "taken back, there is room");
    native_set_timer(NATIVE_FOREVER, 0, 0xf0);
}

void test_main(void)
{
    uint64_t wanted = 1ul << NATIVE_FEATURE_TIME_PAGE | 1ul << NATIVE_FEATURE_TIMER;

    apic_init();
    for (unsigned i = 0; i < TIMERS; i++)
        trap_handle(FIRST + i, on_timer);
    if (!native_find() || native_use(wanted) != wanted)
        report_abort("no timers");
    native_set_page(NATIVE_PAGE_TIME, PHYSICAL(page));
    expect_equal((uint64_t)native_set_timer(0, 1, FIRST), CODE(NOT_ACTIVE), "slack is a feature of its own");
    native_use(1ul << NATIVE_FEATURE_TIMER_SLACK);
    check_one();
    check_together(0, TIMERS);
    check_together(1000 * US, 1);
    check_together(70 * US, 3);          /* three, three and two share a moment */
    check_storm();
    check_errors();
}
