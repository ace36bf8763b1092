/* The native dialect: attacker and victim
 *
 * Two processors of a guest share a physical one.  The victim has a secret: in each turn of half a
 * millisecond it works for a bit that is set, and sleeps for one that is not.  The attacker only looks
 * at the clock: where time jumps, somebody else ran.  "=SECRET n bit" and "=GUESS n bit" lines show
 * what was and what it thinks.  With a clock that moves in steps it sees nothing of single turns. */
#include "bench/marks.h"
#include "lib/apic.h"
#include "lib/others.h"
#include "lib/test.h"
#include "pv/native.h"

const char test_title[] = "The native dialect: attacker and victim";

enum { TURNS = 64, VECTOR = 0x59, TURN_TICKS = 1250000, APIC_COUNTS = 12500, WORK = 60000, JUMP = 60000, LOOK_EACH = 1000,
       READINGS = 200 };

static volatile bool works[TURNS], seen[TURNS];
static volatile uint32_t ready, over;

static void on_tick(struct trap_frame *frame)
{
    (void)frame;
    apic_end();
}

static void spin(unsigned rounds)
{
    for (volatile unsigned i = 0; i < rounds; i++)
        ;
}

static void victim(uint64_t index)
{
    uint32_t state = 0xace1 + (uint32_t)index;

    apic_timer(VECTOR, APIC_PERIODIC, APIC_COUNTS);
    asm volatile("sti; hlt; cli");
    ready = 1;
    asm volatile("sti; hlt; cli");       /* the first turn begins with the next tick */
    for (int turn = 0; turn < TURNS; turn++) {
        state = state >> 1 ^ (state & 1 ? 0xb400u : 0);  /* a linear feedback shift register */
        works[turn] = state & 1;
        if (works[turn])
            spin(WORK);
        asm volatile("sti; hlt; cli");
    }
    apic_timer(VECTOR, APIC_MASKED, 0);
    over = 1;
}

static void attack(void)
{
    uint64_t began = rdtsc(), last = began;

    while (!over) {
        spin(LOOK_EACH);
        uint64_t now = rdtsc();
        uint64_t ticks = (last - began + TURN_TICKS / 4) / TURN_TICKS;  /* work may be had in two parts */

        if (now - last > JUMP && ticks > 0 && ticks <= TURNS)
            seen[ticks - 1] = true;
        last = now;
    }
}

void test_main(void)
{
    unsigned right = 0;

    apic_init();
    trap_handle(VECTOR, on_tick);
    if (!native_find())
        report_abort("nobody speaks the native dialect");
    others_start(victim);
    while (!ready)
        asm volatile("pause");
    attack();
    for (unsigned turn = 0; turn < TURNS; turn++) {
        mark_figure("SECRET", turn, works[turn]);
        mark_figure("GUESS", turn, seen[turn]);
        right += works[turn] == seen[turn];
    }
    report(true, "%u of %u turns were guessed right", right, TURNS);
    native_call(NATIVE_CALL_NOP, 1, 0, 0, 0, 0, 0);
    for (int i = 0; i < READINGS; i++)
        rdtsc();
    native_call(NATIVE_CALL_NOP, 2, 0, 0, 0, 0, 0);
}
