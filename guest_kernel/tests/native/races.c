/* Races, for `ring1 explore`
 *
 * Small programs for two processors; each is right under most schedules.  Between explore_begin() and
 * the exit code lies what is explored.  Exit code 0: as it should be.
 *
 *   case=wait    sleeps by WAIT_ON_VALUE: right        case=sleep   checks, then sleeps: loses wake-ups
 *   case=ticket  a ticket lock: right                  case=draw    draws its ticket without LOCK
 *   case=pv      the paravirtual spinlock: right       case=mutex   the paravirtual mutex: right
 *   case=tas     test-and-set: right                   case=forget  a mutex whose release forgets 2 */
#include "lib/apic.h"
#include "lib/others.h"
#include "lib/test.h"
#include "pv/locks.h"

const char test_title[] = "Races";

enum { ROUNDS = 2 };
struct race {
    const char *word;
    void (*run)(uint32_t me);
};

static volatile uint32_t go, here, flag, count, inside, broken, finished;
static struct tas_lock tas;
static struct ticket_lock ticket;
static struct pv_spinlock pv;
static struct pv_mutex mutex;
static const struct race *race;

void explore_begin(void);
void __attribute__((noinline)) explore_begin(void)
{
    asm volatile("" : : : "memory");
}

/* The last one says how it went; the other one sleeps for good. */
static void finish(void)
{
    if (__atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST) == 2)
        outb(broken || count != (flag ? 0 : 2 * ROUNDS), 0xf4);
    for (;;)
        asm volatile("cli; hlt");
}

static void wait_for_flag(uint32_t me, bool careful)
{
    if (me == 0) {
        flag = 1;
        native_wake(PHYSICAL(flag), 1);
        return;
    }
    while (!flag)
        if (careful)
            native_wait_on_value(PHYSICAL(flag), 0, NATIVE_FOREVER);
        else
            native_check_then_sleep(PHYSICAL(flag), NATIVE_FOREVER);
}

static void run_wait(uint32_t me)
{
    wait_for_flag(me, true);
}

static void run_sleep(uint32_t me)
{
    wait_for_flag(me, false);
}

static void section(void)
{
    if (inside)
        broken = 1;
    inside = 1;
    count = count + 1;
    inside = 0;
}

static void run_ticket(uint32_t me)
{
    (void)me;
    for (int round = 0; round < ROUNDS; round++) {
        ticket_acquire(&ticket);
        section();
        ticket_release(&ticket);
    }
}

static void run_draw(uint32_t me)
{
    (void)me;
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t mine = ticket.next;

        ticket.next = mine + 1;          /* two may have read the same */
        while (ticket.owner != mine)
            asm volatile("pause");
        section();
        ticket_release(&ticket);
    }
}

static void run_pv(uint32_t me)
{
    for (int round = 0; round < ROUNDS; round++) {
        pv_acquire(&pv, me);
        section();
        pv_release(&pv, me);
    }
}

static void run_mutex(uint32_t me)
{
    (void)me;
    for (int round = 0; round < ROUNDS; round++) {
        mutex_acquire(&mutex);
        section();
        mutex_release(&mutex);
    }
}

static void run_tas(uint32_t me)
{
    (void)me;
    for (int round = 0; round < ROUNDS; round++) {
        tas_acquire(&tas);
        section();
        tas_release(&tas);
    }
}

/* As Drepper's first mutex: whoever slept takes the lock with 1, and forgets that others sleep still;
 * here the release looks before it stores, which loses a sleeper that comes in between. */
static void run_forget(uint32_t me)
{
    (void)me;
    for (int round = 0; round < ROUNDS; round++) {
        mutex_acquire(&mutex);
        section();
        bool slept = mutex.state == 2;
        mutex.state = 0;
        if (slept)
            native_wake(PHYSICAL(mutex.state), 1);
    }
}

static const struct race races[] = {
    {"case=wait", run_wait}, {"case=sleep", run_sleep}, {"case=ticket", run_ticket},
    {"case=draw", run_draw}, {"case=pv", run_pv}, {"case=mutex", run_mutex}, {"case=tas", run_tas},
    {"case=forget", run_forget},
};

static void other(uint64_t index)
{
    if (index != 1)
        return;
    here = 1;
    while (!go)
        asm volatile("pause");
    race->run(1);
    finish();
}

void test_main(void)
{
    uint64_t wanted = 1ul << NATIVE_FEATURE_WAIT_WAKE | 1ul << NATIVE_FEATURE_YIELD;

    race = &races[0];
    for (unsigned k = 0; k < sizeof races / sizeof *races; k++)
        if (find_word(boot_info.cmdline, races[k].word))
            race = &races[k];
    if (!native_find() || native_use(wanted) != wanted) {
        report_skip("nobody here lets processors wait");
        return;
    }
    apic_init();
    others_start(other);
    others_wait(&here, 1);
    explore_begin();
    go = 1;
    race->run(0);
    finish();
}
