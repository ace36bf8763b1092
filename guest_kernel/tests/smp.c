/* Several processors
 *
 * The other processors wait for INIT and SIPI, start in real mode in a page below 1 MiB, and find
 * their own way to long mode.  Then all of them count: with LOCK no step may be lost, and a message
 * by interrupt must reach each of them. */
#include "lib/apic.h"
#include "lib/others.h"
#include "lib/test.h"

const char test_title[] = "Several processors";

enum { ROUNDS = 20000, CALL_VECTOR = 0x70 };

static volatile uint64_t locked_sum, exchange_sum;
static volatile uint32_t lock_word, guarded, calls, ids_seen, same_ids, wrong_state;
static volatile bool go;
static volatile uint32_t finished;

static void take_lock(void)
{
    uint32_t old;

    do
        asm volatile("pause; xchg %0, %1" : "=r"(old), "+m"(lock_word) : "0"(1) : "memory");
    while (old);
}

static void count(void)
{
    for (int i = 0; i < ROUNDS; i++) {
        asm volatile("lock incq %0" : "+m"(locked_sum) : : "memory");
        uint64_t seen = exchange_sum;
        while (!__sync_bool_compare_and_swap(&exchange_sum, seen, seen + 3))
            seen = exchange_sum;
        if (i % 16 == 0) {
            take_lock();
            guarded = guarded + 1;
            lock_word = 0;
        }
    }
    __sync_fetch_and_add(&finished, 1);
}

static void on_call(struct trap_frame *frame)
{
    (void)frame;
    __sync_fetch_and_add(&calls, 1);
    apic_end();
}

static void other_main_here(uint64_t index)
{
    uint32_t mine = 1u << apic_id() % 32;
    if (__sync_fetch_and_or(&ids_seen, mine) & mine)
        __sync_fetch_and_add(&same_ids, 1);
    if (index >= MAX_CPUS || read_cs() != KERNEL_CS)
        __sync_fetch_and_add(&wrong_state, 1);
    __sync_fetch_and_add(&finished, 1);
    while (!go)
        asm volatile("pause");
    count();
    for (;;)
        asm volatile("sti; hlt");
}

void test_main(void)
{
    const char *word = find_word(boot_info.cmdline, "cpus=");
    uint32_t others = (word ? (uint32_t)parse_number(word) : 2) - 1;

    apic_init();
    trap_handle(CALL_VECTOR, on_call);
    report(rdmsr(MSR_APIC_BASE) & 1u << 8, "the first processor says that it is the bootstrap one");
    others_start(other_main_here);
    others_wait(&finished, others);
    expect_equal(others_running(), others, "INIT and SIPI start every other processor, once");
    report(!same_ids && !(ids_seen & 1u << apic_id() % 32), "each has its own APIC ID");
    expect_equal(wrong_state, 0, "each is in its own long mode");
    finished = 0;
    go = true;
    count();
    others_wait(&finished, others + 1);
    expect_equal(locked_sum, (others + 1) * (uint64_t)ROUNDS, "LOCK INC loses nothing");
    expect_equal(exchange_sum, (others + 1) * 3ul * ROUNDS, "LOCK CMPXCHG loses nothing");
    expect_equal(guarded, (others + 1) * (uint64_t)(ROUNDS / 16),
                 "a lock by XCHG guards a plain count");
    for (int i = 0; i < 100000; i++)
        asm volatile("pause");
    apic_write(APIC_ICR, ICR_ALL_BUT_SELF | ICR_ASSERT | CALL_VECTOR);
    others_wait(&calls, others);
    expect_equal(calls, others, "an interrupt reaches all the others");
}
