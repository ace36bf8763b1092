/* KVM's dialect, several processors
 *
 * Steal time under a scheduler with one physical processor, the preempted byte, the flush that waits
 * in it, kicks, interrupts to a set, yielding. */
#include "lib/apic.h"
#include "lib/kvm.h"
#include "lib/others.h"
#include "lib/test.h"

const char test_title[] = "KVM's dialect, several processors";

enum { VECTOR = 0x62, PREEMPTED = 1, FLUSH = 2, LONG = 800000, PAUSES = 50000 };  /* a PAUSE takes 140 cycles */

static struct kvm_steal steals[MAX_CPUS];
static struct pvclock_time times[MAX_CPUS];
static volatile uint32_t arrived, received, phase, spinning, woken, turns[MAX_CPUS];
static volatile uint64_t mapped_value[MAX_CPUS];
static volatile uint32_t backwards;
static volatile uint64_t latest;

#define PHYSICAL(object) ((uint64_t)(uintptr_t)&(object))

static void on_vector(struct trap_frame *frame)
{
    (void)frame;
    __sync_fetch_and_add(&received, 1);
    apic_end();
}

static void join(void)
{
    uint32_t id = apic_id();

    wrmsr(MSR_KVM_STEAL_TIME, PHYSICAL(steals[id]) | 1);
    wrmsr(MSR_KVM_SYSTEM_TIME_NEW, PHYSICAL(times[id]) | 1);
}

/* With the stable bit no processor may see a time before one that another has seen. */
static void check_order(uint32_t id)
{
    for (int i = 0; i < 5000; i++) {
        uint64_t seen = __atomic_load_n(&latest, __ATOMIC_SEQ_CST), now = pvclock_read(&times[id]);

        if (now < seen)
            __sync_fetch_and_add(&backwards, 1);
        while (now > seen && !__sync_bool_compare_and_swap(&latest, seen, now))
            seen = latest;
    }
}

static void other(uint64_t index)
{
    uint32_t id = apic_id();

    (void)index;
    join();
    __sync_fetch_and_add(&arrived, 1);
    while (phase < 1)                    /* 0: everybody wants to run */
        spinning = spinning + 1;
    check_order(id);
    __sync_fetch_and_add(&arrived, 1);
    asm volatile("cli; hlt");            /* 1: only a kick wakes */
    __sync_fetch_and_add(&woken, 1);
    sti();
    while (phase < 3)                    /* 2: asleep until an interrupt */
        asm volatile("hlt");
    cli();
    __sync_fetch_and_add(&arrived, 1);
    while (phase < 4)                    /* 3: its turns are counted; it gives each away */
        turns[id]++;
    for (;;)
        asm volatile("cli; hlt");
}

static void check_steal(uint32_t others)
{
    uint64_t steal = steals[0].steal, spun = spinning, start = pvclock_read(&times[0]);

    for (int i = 0; i < LONG; i++)
        asm volatile("nop");  /* a delay: PAUSE would give the turn away */
    uint64_t stolen = steals[0].steal - steal, passed = pvclock_read(&times[0]) - start;
    report(spinning > spun, "the others ran meanwhile");
    report(!(steals[0].version & 1), "the version is even");
    report(stolen > passed * others / (others + 1) * 8 / 10 && stolen < passed,
           "what the others had was stolen");
    report(!steals[0].preempted, "whoever runs is not preempted");
    bool all = true;
    for (uint32_t id = 1; id <= others; id++)
        all &= steals[id].preempted == PREEMPTED;
    report(all, "whoever waits is");
}

/* As Linux does: a processor that does not run is asked in its page to flush before it runs. */
static void check_flush(void)
{
    uint8_t seen = steals[1].preempted;

    report(seen == PREEMPTED && __sync_bool_compare_and_swap(&steals[1].preempted, seen, seen | FLUSH),
           "a flush is left for one that waits");
    for (int i = 0; i < PAUSES && (steals[1].preempted & FLUSH); i++)
        asm volatile("pause");  /* now and then it gives its turn away */
    report(!(steals[1].preempted & FLUSH), "it was taken when that one ran");
}

static void check_kick(uint32_t others)
{
    arrived = 0;
    phase = 1;
    check_order(0);
    others_wait(&arrived, others);
    expect_equal(backwards, 0, "no processor sees a time before another's");
    for (int i = 0; i < PAUSES; i++)
        asm volatile("pause");
    expect_equal(woken, 0, "HLT with interrupts off lasts");
    for (uint32_t id = 1; id <= others; id++)
        kvm_call(KVM_HC_KICK_CPU, 0, id, 0, 0);
    others_wait(&woken, others);
    expect_equal(woken, others, "until a kick");
}

static void check_ipi(uint32_t others)
{
    uint64_t set = ((1ul << others) - 1) << 1;

    for (int i = 0; i < PAUSES; i++)
        asm volatile("pause");
    uint64_t steal = steals[0].steal;
    for (int i = 0; i < PAUSES; i++)
        asm volatile("pause");
    expect_equal(steals[0].steal, steal, "sleepers steal nothing");
    expect_equal((uint64_t)kvm_call(KVM_HC_SEND_IPI, (long)set, 0, 0, VECTOR), others,
                 "SEND_IPI says how many it reached");
    others_wait(&received, others);
    expect_equal(received, others, "and each has it once");
    expect_equal((uint64_t)kvm_call(KVM_HC_SEND_IPI, (long)(set >> 1), 0, 1, VECTOR), others,
                 "SEND_IPI from identifier 1 on");
    others_wait(&received, 2 * others);
    expect_equal(received, 2 * others, "reaches the same");
    phase = 3;
    arrived = 0;
    kvm_call(KVM_HC_SEND_IPI, (long)set, 0, 0, VECTOR);
    others_wait(&arrived, others);
    expect_equal(arrived, others, "an interrupt wakes from HLT");
}

static void check_yield(uint32_t others)
{
    uint32_t last = others, before, after;

    before = turns[last];
    for (int i = 0; i < 20; i++)
        kvm_call(KVM_HC_SCHED_YIELD, last, 0, 0, 0);
    after = turns[last];
    report(after > before, "SCHED_YIELD lets the named one run");
    phase = 4;
}

void test_main(void)
{
    const char *word = find_word(boot_info.cmdline, "cpus=");
    uint32_t others = (word ? (uint32_t)parse_number(word) : 2) - 1;

    apic_init();
    trap_handle(VECTOR, on_vector);
    join();
    others_start(other);
    report(others_wait(&arrived, others), "the others are there");
    check_steal(others);
    check_flush();
    check_kick(others);
    check_ipi(others);
    check_yield(others);
}
