/* Spinlocks under preemption
 *
 * All processors take one lock again and again for a fixed time, and count.  Whoever is preempted
 * with the lock, or next in line for it, makes the others wait: the spinning ones for a whole time
 * slice, the paravirtual ones for a hypercall.
 *
 * Whoever is at lock_held has the lock: "--sched credit,preempt=ADDRESS" takes turns away there.
 *
 *   cpus=N  lock=tas|ticket|pv|mutex  us=TIME  hold=N outside=N (loops)  nopause */
#include "lib/apic.h"
#include "lib/others.h"
#include "lib/test.h"
#include "pv/locks.h"

const char test_title[] = "Spinlocks under preemption";

enum kind { TAS, TICKET, PV, MUTEX };
static const char *const names[] = {"lock=tas", "lock=ticket", "lock=pv", "lock=mutex"};

static struct tas_lock tas;
static struct ticket_lock ticket;
static struct pv_spinlock pv;
static struct pv_mutex mutex;

static enum kind kind;
static uint64_t hold, outside, end;
static volatile uint64_t guarded, twin;  /* both only ever written with the lock */
static uint64_t took[MAX_CPUS], contended[MAX_CPUS];
static volatile uint32_t ready, go, finished, torn;

static bool acquire(uint32_t cpu)
{
    switch (kind) {
    case TAS:
        return tas_acquire(&tas);
    case TICKET:
        return ticket_acquire(&ticket);
    case PV:
        return pv_acquire(&pv, cpu);
    default:
        return mutex_acquire(&mutex);
    }
}

static void release(uint32_t cpu)
{
    switch (kind) {
    case TAS:
        tas_release(&tas);
        break;
    case TICKET:
        ticket_release(&ticket);
        break;
    case PV:
        pv_release(&pv, cpu);
        break;
    default:
        mutex_release(&mutex);
    }
}

static void work(uint64_t loops)
{
    for (uint64_t i = 0; i < loops; i++)
        asm volatile("" : : : "memory");
}

void lock_held(void);
void __attribute__((noinline)) lock_held(void)
{
    asm volatile("" : : : "memory");
}

static void contend(uint32_t cpu)
{
    while (rdtsc() < end) {
        contended[cpu] += acquire(cpu);
        uint64_t before = guarded;
        guarded = before + 1;
        lock_held();
        work(hold);
        if (twin != before)
            torn = 1;
        twin = before + 1;
        release(cpu);
        took[cpu]++;
        work(outside);
    }
    __sync_fetch_and_add(&finished, 1);
}

static void other(uint64_t index)
{
    (void)index;
    uint32_t cpu = apic_id();

    turns_share(cpu);
    __sync_fetch_and_add(&ready, 1);
    while (!go)
        asm volatile("pause");
    contend(cpu);
}

static uint64_t number(const char *word, uint64_t otherwise)
{
    const char *found = find_word(boot_info.cmdline, word);

    return found ? parse_number(found) : otherwise;
}

static void choose(void)
{
    kind = PV;
    for (unsigned k = 0; k < sizeof names / sizeof *names; k++)
        if (find_word(boot_info.cmdline, names[k]))
            kind = (enum kind)k;
    spin_pauses = !find_word(boot_info.cmdline, "nopause");
    hold = number("hold=", 500);
    outside = number("outside=", 500);
}

void test_main(void)
{
    uint32_t others = (uint32_t)number("cpus=", 2) - 1;
    uint64_t wanted = 1ul << NATIVE_FEATURE_WAIT_WAKE | 1ul << NATIVE_FEATURE_YIELD
                      | 1ul << NATIVE_FEATURE_PREEMPTION_NOTICE | 1ul << NATIVE_FEATURE_HOLDER_BOOST;

    choose();
    if (!native_find() || native_use(wanted) != wanted) {
        report_skip("nobody here lets processors wait");
        return;
    }
    apic_init();
    turns_share(0);
    if (others)
        others_start(other);
    others_wait(&ready, others);
    uint64_t start = rdtsc();
    end = start + number("us=", 1000) * 2500;
    go = 1;
    contend(0);
    while (finished != others + 1)
        native_yield(NATIVE_FOREVER);
    uint64_t sum = 0, waits = 0, took_in_all = rdtsc() - start;

    for (uint32_t cpu = 0; cpu <= others; cpu++) {
        sum += took[cpu];
        waits += contended[cpu];
    }
    printf("RESULT %s acquisitions=%lu contended=%lu cycles=%lu\n", names[kind], sum, waits, took_in_all);
    report(!torn && guarded == sum && twin == sum, "one at a time had the lock");
    report(sum > 0, "and it was had");
}
