/* Waiting and waking
 *
 * Sleep on a value, wake, time out, be interrupted; give turns away; and what the hypervisor tells a
 * processor of its turns: that it lost one, and that it kept one because it held a lock. */
#include "lib/apic.h"
#include "lib/others.h"
#include "lib/test.h"
#include "pv/locks.h"

const char test_title[] = "Waiting and waking";

enum { VECTOR = 0x61, ROUNDS = 200 };
#define CODE(error) ((uint64_t)-(int64_t)NATIVE_E_##error)

static volatile uint32_t word, turn, phase, finished, hits;
static volatile uint64_t turns;
static volatile int64_t other_result;

static void on_vector(struct trap_frame *frame)
{
    (void)frame;
    __sync_fetch_and_add(&hits, 1);
    apic_end();
}

/* Two processors hand a word back and forth, and sleep in between. */
static void ping_pong(uint32_t me)
{
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t seen;

        while ((seen = turn) % 2 != me)
            native_wait_on_value(PHYSICAL(turn), seen, NATIVE_FOREVER);
        turn = seen + 1;
        native_wake(PHYSICAL(turn), 1);
    }
}

static void other(uint64_t index)
{
    if (index != 1)
        return;
    turns_share(apic_id());
    ping_pong(1);
    finished = 1;
    other_result = 77;
    other_result = native_wait_on_value(PHYSICAL(word), 5, NATIVE_FOREVER);
    sti();
    finished = 2;
    while (phase < 3)
        other_result = native_wait_on_value(PHYSICAL(phase), phase, NATIVE_FOREVER);
    finished = 3;
    while (phase < 4)
        turns = turns + 1;
    cli();
    finished = 4;
    while (phase < 5)                    /* holds a lock, in a way, until it is told to yield */
        turns_page[apic_id()].holding = 1;
    finished = 5;
}

static void check_alone(void)
{
    word = 5;
    expect_equal((uint64_t)native_wait_on_value(PHYSICAL(word), 4, NATIVE_FOREVER), CODE(CHANGED),
                 "another value is no sleep");
    expect_equal((uint64_t)native_wait_on_value(PHYSICAL(word) + 1, 5, 0), CODE(MISALIGNED),
                 "a word askew");
    expect_equal((uint64_t)native_wait_on_value(0x7ffffffffff000, 5, 0), CODE(BAD_ADDRESS),
                 "a word nowhere");
    uint64_t before = rdtsc();
    expect_equal((uint64_t)native_wait_on_value(PHYSICAL(word), 5, 20000), CODE(TIMED_OUT),
                 "nobody wakes: the time-out does");
    report(rdtsc() - before >= 20000 * 5 / 2, "not before its time");
    expect_equal((uint64_t)native_wake(PHYSICAL(word), 1), 0, "nobody sleeps there");
    expect_equal((uint64_t)native_yield(99), CODE(BAD_ARGUMENT), "yield to nobody");
}

static void check_wake(void)
{
    ping_pong(0);
    while (finished < 1)
        native_yield(NATIVE_FOREVER);
    expect_equal(turn, 2 * ROUNDS, "two processors take turns asleep");
    for (int i = 0; i < 50; i++)
        native_yield(1);
    expect_equal((uint64_t)other_result, 77, "the other one sleeps");
    expect_equal((uint64_t)native_wake(PHYSICAL(phase), 1), 0, "not at another word");
    expect_equal((uint64_t)native_wake(PHYSICAL(word), NATIVE_FOREVER), 1, "it is woken");
    while (finished < 2)
        native_yield(1);
    expect_equal((uint64_t)other_result, 0, "and knows by what");
}

static void check_interrupt(void)
{
    for (int i = 0; i < 50; i++)
        native_yield(1);
    uint32_t before = hits;
    apic_send(1, ICR_ASSERT | VECTOR);
    while (hits == before)
        native_yield(1);
    while (other_result != -NATIVE_E_INTERRUPTED)
        native_yield(1);
    report(true, "an interrupt ends the sleep");
    phase = 3;
    native_wake(PHYSICAL(phase), 1);
    while (finished < 3)
        native_yield(1);
}

static void check_turns(void)
{
    uint64_t before = turns, lost = turns_page[1].preemptions;

    native_yield(1);
    native_yield(1);
    report(turns > before, "a turn given away is had by the one named");
    report(turns_page[1].preempted == 1 && turns_page[1].preemptions > lost,
           "who loses its turn in mid-work is said to have");
    expect_equal(turns_page[0].preempted, 0, "who runs is not preempted");
    phase = 4;
    while (finished < 4)
        native_yield(1);
    for (int i = 0; i < 20 && !turns_page[1].boosts; i++)
        native_yield(1);
    report(turns_page[1].boosts > 0 && turns_page[1].yields == 1,
           "who holds a lock keeps its turn for a while, and is asked to yield");
    phase = 5;
}

void test_main(void)
{
    uint64_t wanted = 1ul << NATIVE_FEATURE_WAIT_WAKE | 1ul << NATIVE_FEATURE_YIELD
                      | 1ul << NATIVE_FEATURE_PREEMPTION_NOTICE | 1ul << NATIVE_FEATURE_HOLDER_BOOST;

    if (!native_find() || native_use(wanted) != wanted) {
        report_skip("nobody here lets processors wait");
        return;
    }
    apic_init();
    trap_handle(VECTOR, on_vector);
    turns_share(0);
    check_alone();
    others_start(other);
    check_wake();
    check_interrupt();
    check_turns();
}
