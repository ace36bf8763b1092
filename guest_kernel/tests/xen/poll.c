/* Four virtual processors: a lock whose waiters sleep in SCHEDOP_poll until its holder kicks them, as Linux's PV spinlocks
 * do; and who is woken by what. */
#include "xen/pv.h"

const char test_title[] = "sched_op, poll";

enum { VCPUS = 4, ROUNDS = 200, SPINS = 16 };
/* struct vcpu_guest_context, in words of 8 bytes */
enum {
    FIRST_REGS = 65, LDT = 602, GDT = 604, GDT_ENTRIES = 620, KERNEL_SS = 621, KERNEL_SP = 622, CR3 = 626, CALLBACK = 639,
    WORDS = 646
};
enum { REGS_RDI = 14, REGS_RIP = 16, REGS_CS = 17, REGS_FLAGS = 18, REGS_SP = 19, REGS_SS = 20 };

static uint64_t context[WORDS];
static uint8_t stacks[VCPUS][PAGE] __attribute__((aligned(16)));
static uint32_t ports[VCPUS];
static volatile uint32_t lock, waits[VCPUS], ended, ready, counter, go;
static uint32_t polls[VCPUS];
static uint64_t root;

struct poll { const uint32_t *ports; uint32_t count, pad; uint64_t timeout; };

/* struct vcpu_time_info of the first one; the TSC is stable. */
static uint64_t now(void)
{
    const volatile struct { uint32_t version, pad; uint64_t tsc, system; uint32_t mul; int8_t shift; } *t;
    uint32_t low, high;

    t = (const volatile void *)(shared_info + 32);
    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    uint64_t ticks = ((uint64_t)high << 32 | low) - t->tsc;

    ticks = t->shift < 0 ? ticks >> -t->shift : ticks << t->shift;
    return t->system + (uint64_t)((unsigned __int128)ticks * t->mul >> 32);
}

static long poll(const uint32_t *list, uint32_t count, uint64_t timeout)
{
    struct poll p = { list, count, 0, timeout };

    return CALL2(SCHED_OP, 3, &p);
}

static void send(uint32_t port) { CALL2(EVENT_CHANNEL_OP, 4, &port); }

static bool take(uint32_t port)             /* clears its pending bit */
{
    volatile uint64_t *word = (volatile uint64_t *)(shared_info + 2048) + port / 64;

    return __atomic_fetch_and(word, ~(1ul << port % 64), __ATOMIC_SEQ_CST) >> port % 64 & 1;
}

static bool try_lock(void) { return !__atomic_exchange_n(&lock, 1, __ATOMIC_SEQ_CST); }

static void take_lock(unsigned me)
{
    for (;;) {
        for (int spin = 0; spin < SPINS; spin++)
            if (try_lock())
                return;
        take(ports[me]);
        __atomic_store_n(&waits[me], 1, __ATOMIC_SEQ_CST);
        bool got = try_lock();
        if (!got) {
            polls[me]++;
            poll(&ports[me], 1, 0);
        }
        waits[me] = 0;
        if (got)
            return;
    }
}

static void leave_lock(void)
{
    __atomic_store_n(&lock, 0, __ATOMIC_SEQ_CST);
    for (unsigned k = 0; k < VCPUS; k++)
        if (waits[k])
            send(ports[k]);
}

static void work(unsigned me)
{
    for (unsigned k = 0; k < ROUNDS; k++) {
        take_lock(me);
        uint32_t seen = counter;
        if (k % 4 == me)
            CALL2(SCHED_OP, 0, 0);           /* its holder loses its turn */
        counter = seen + 1;
        leave_lock();
        if (k % 3 == 0)
            CALL2(SCHED_OP, 0, 0);
    }
    __atomic_fetch_add(&ended, 1, __ATOMIC_SEQ_CST);
}

static void wait_for(const volatile uint32_t *what, uint32_t value)
{
    while (*what < value)
        poll(NULL, 0, now() + 1000000);
}

/* Woken by one it does not wait for alone; then it works, then it kicks the first, each time that is asked. */
static void secondary(unsigned me)
{
    __atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
    work(me);
    if (me == 2) {
        for (uint32_t k = 1; k <= 2; k++) {
            wait_for(&go, k);
            send(ports[k == 1 ? 1 : 3]);
        }
    }
    CALL2(VCPU_OP, 2, me);
    for (;;)
        CALL2(SCHED_OP, 1, 0);
}

static long start(unsigned index)
{
    uint64_t *regs = context + FIRST_REGS;
    uint64_t top = (uint64_t)stacks[index + 1] - 8;

    regs[REGS_RDI] = index;
    regs[REGS_RIP] = (uint64_t)secondary;
    regs[REGS_CS] = KERNEL_CS;
    regs[REGS_FLAGS] = 0x200;
    regs[REGS_SP] = top;
    regs[REGS_SS] = 0xe02b;
    context[KERNEL_SS] = 0xe02b;
    context[KERNEL_SP] = top;
    context[CR3] = root;
    return CALL3(VCPU_OP, 0, index, context);
}

/* Each holds no frame: the audit behind the run counts them. */
static void refused(void)
{
    uint64_t good = root;

    root = mfn_of(scratch[0]) * PAGE;
    equal(start(1), INVAL, "a root that is mapped writable is EINVAL");
    root = good;
    context[CALLBACK] = 1ul << 60;
    equal(start(1), INVAL, "so is a callback at no address");
    context[CALLBACK] = 0;
    context[GDT] = mfn_of(scratch[1]);
    context[GDT_ENTRIES] = 8;
    equal(start(1), INVAL, "and a descriptor table that can be written");
    context[GDT_ENTRIES] = 7169;
    equal(start(1), INVAL, "and one that is too long");
    context[GDT_ENTRIES] = 0;
    context[LDT] = 4096;
    context[LDT + 1] = 9000;
    equal(start(1), INVAL, "and such an LDT");
    context[LDT + 1] = 0;
}

static void start_all(void)
{
    struct { uint32_t vcpu, port; } ipi;

    root = mfn_of((void *)start_info->pt_base) * PAGE;
    for (unsigned k = 0; k < VCPUS; k++) {
        ipi.vcpu = k;
        equal(CALL2(EVENT_CHANNEL_OP, 7, &ipi), 0, "an IPI's port is bound");
        ports[k] = ipi.port;
    }
    refused();
    equal(CALL3(VCPU_OP, 0, 1, BAD), FAULT, "a context that is not there is EFAULT");
    equal(CALL2(VCPU_OP, 1, 1), INVAL, "a processor without a context cannot go up: EINVAL");
    for (unsigned k = 1; k < VCPUS; k++) {
        equal(start(k), 0, "a processor is given its context");
        equal(CALL2(VCPU_OP, 3, k), 0, "it is down");
        equal(CALL2(VCPU_OP, 1, k), 0, "and goes up");
        equal(CALL2(VCPU_OP, 3, k), 1, "it is up");
    }
    equal(start(1), EXIST, "a second context is EEXIST");
}

static void lock_together(void)
{
    uint32_t slept = 0;

    wait_for(&ready, VCPUS - 1);
    work(0);
    wait_for(&ended, VCPUS);
    equal(counter, VCPUS * ROUNDS, "nobody was let in beside another");
    for (unsigned k = 0; k < VCPUS; k++)
        slept += polls[k] > 0;
    check(slept >= VCPUS - 1, "waiters slept in SCHEDOP_poll");
    for (unsigned k = 0; k < VCPUS; k++)
        figure("polls", k, polls[k]);
}

static void returns_at_once(void)
{
    uint64_t far = now() + 5000000000ul, began = now();
    uint32_t list[3] = { ports[0], 5000, 0 };

    send(ports[0]);
    equal(poll(list, 1, 0), 0, "a port that is pending already is no wait");
    equal(poll(list, 2, 0), 0, "nor with a bad one behind it");
    list[2] = ports[0];
    equal(poll(list + 1, 2, far), INVAL, "a bad one before it is EINVAL");
    take(ports[0]);
    equal(poll(list, 1, 1), 0, "a time that is past is no wait");
    equal(poll((uint32_t *)BAD, 1, far), FAULT, "ports that cannot be read are EFAULT");
    equal(poll((uint32_t *)HOLE, 1, far), FAULT, "nor in the hypervisor's hole");
    check(now() - began < 1000000000ul, "none of these waited");
}

static void ends_by_time(void)
{
    uint64_t until = now() + 30000000;

    equal(poll(NULL, 0, until), 0, "no port, only a time");
    check(now() >= until, "it has come");
    until = now() + 30000000;
    equal(poll(&ports[0], 1, until), 0, "a port and a time");
    check(now() >= until, "nobody came, the time did");
}

static void is_woken_by_others(void)
{
    uint64_t far = now() + 5000000000ul;
    uint32_t list[2] = { ports[0], ports[3] };

    take(ports[1]);
    take(ports[3]);
    take(ports[0]);
    go = 1;
    equal(poll(&ports[1], 1, far), 0, "another processor's port is polled");
    check(take(ports[1]), "and was sent to");
    go = 2;
    equal(poll(list, 2, far), 0, "two are polled");
    check(take(ports[3]) && !take(ports[0]), "the second was sent to");
    check(now() < far, "long before the time");
}

static void is_woken_by_upcalls(void)
{
    struct { uint32_t virq, vcpu, port; } timer = { 0, 0, 0 };
    uint64_t far = now() + 5000000000ul;

    take_upcalls();
    CALL2(EVENT_CHANNEL_OP, 1, &timer);
    CALL2(EVENT_CHANNEL_OP, 9, &timer.port);
    upcalls = 0;
    CALL1(SET_TIMER_OP, now() + 20000000);
    equal(poll(&ports[0], 1, far), 0, "an upcall ends a poll");
    check(upcalls == 1 && now() < far, "and is made");
}

void test_main(void)
{
    start_all();
    lock_together();
    returns_at_once();
    ends_by_time();
    is_woken_by_others();
    is_woken_by_upcalls();
}
