/* Several processors
 *
 * The other processors wait for INIT and SIPI, start in real mode in a page below 1 MiB, and find
 * their own way to long mode.  Then all of them count: with LOCK no step may be lost, and a message
 * by interrupt must reach each of them. */
#include "lib/apic.h"
#include "lib/test.h"

const char test_title[] = "Several processors";

enum { TRAMPOLINE = 0x8000, STACK_BYTES = 8192, MAX_CPUS = 16, ROUNDS = 20000, CALL_VECTOR = 0x70 };

extern char ap_start[], ap_end[];
volatile uint32_t ap_count;
uint8_t ap_stacks[MAX_CPUS][STACK_BYTES] __attribute__((aligned(16)));
void ap_main(uint64_t index);

static volatile uint64_t locked_sum, exchange_sum;
static volatile uint32_t lock_word, guarded, calls, ids_seen, same_ids, wrong_state;
static volatile bool go;
static volatile uint32_t finished;

/* The trampoline is copied to 0x8000 and runs there, so it names its own parts relative to
 * ap_start. */
asm(".pushsection .text\n"
    ".globl ap_start, ap_end\n"
    "ap_start: .code16\n\t"
    "cli\n\tcld\n\t"
    "mov %cs, %ax\n\tmov %ax, %ds\n\t"
    "lgdtl ap_pointer - ap_start\n\t"
    "mov %cr0, %eax\n\tor $1, %al\n\tmov %eax, %cr0\n\t"
    "ljmpl $0x18, $0x8000 + ap_protected - ap_start\n"
    "ap_protected: .code32\n\t"
    "mov $0x10, %eax\n\tmov %eax, %ds\n\tmov %eax, %es\n\tmov %eax, %ss\n\t"
    "mov %cr4, %eax\n\tor $0x620, %eax\n\tmov %eax, %cr4\n\t"
    "mov $boot_pml4, %eax\n\tmov %eax, %cr3\n\t"
    "mov $0xc0000080, %ecx\n\trdmsr\n\tor $0x100, %eax\n\twrmsr\n\t"
    "mov $0x80010033, %eax\n\tmov %eax, %cr0\n\t"
    "ljmpl $0x08, $ap_long\n\t"
    ".balign 8\n"
    "ap_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff\n"
    "ap_pointer: .short 31\n\t.long 0x8000 + ap_gdt - ap_start\n"
    "ap_end: .code64\n"
    "ap_long:\n\t"
    "mov $1, %eax\n\tlock xadd %eax, ap_count(%rip)\n\t"
    "mov %eax, %edi\n\t"
    "inc %eax\n\timul $8192, %rax, %rax\n\tlea ap_stacks(%rax), %rsp\n\t"
    "call ap_main\n"
    "1:\tcli\n\thlt\n\tjmp 1b\n"
    ".popsection\n");

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

void ap_main(uint64_t index)
{
    gdt_load(sizeof gdt - 1);
    idt_load();
    apic_init();
    uint32_t mine = 1u << apic_id() % 32;
    if (__sync_fetch_and_or(&ids_seen, mine) & mine)
        __sync_fetch_and_add(&same_ids, 1);
    if (index >= MAX_CPUS - 1 || read_cs() != KERNEL_CS)
        __sync_fetch_and_add(&wrong_state, 1);
    __sync_fetch_and_add(&finished, 1);
    while (!go)
        asm volatile("pause");
    count();
    for (;;)
        asm volatile("sti; hlt");
}

static void wait(volatile uint32_t *word, uint32_t wanted)
{
    for (uint64_t i = 0; i < 20000000 && *word != wanted; i++)
        asm volatile("pause");
}

static void start_others(void)
{
    memcpy((void *)TRAMPOLINE, ap_start, (size_t)(ap_end - ap_start));
    apic_write(APIC_ICR, ICR_ALL_BUT_SELF | ICR_INIT | ICR_ASSERT);
    while (apic_read(APIC_ICR) & ICR_BUSY)
        asm volatile("pause");
    for (int i = 0; i < 100000; i++)
        asm volatile("pause");
    apic_write(APIC_ICR, ICR_ALL_BUT_SELF | ICR_STARTUP | ICR_ASSERT | TRAMPOLINE >> 12);
}

void test_main(void)
{
    const char *word = find_word(boot_info.cmdline, "cpus=");
    uint32_t others = (word ? (uint32_t)parse_number(word) : 2) - 1;

    apic_init();
    trap_handle(CALL_VECTOR, on_call);
    report(rdmsr(MSR_APIC_BASE) & 1u << 8, "the first processor says that it is the bootstrap one");
    start_others();
    wait(&finished, others);
    expect_equal(ap_count, others, "INIT and SIPI start every other processor, once");
    report(!same_ids && !(ids_seen & 1u << apic_id() % 32), "each has its own APIC ID");
    expect_equal(wrong_state, 0, "each is in its own long mode");
    finished = 0;
    go = true;
    count();
    wait(&finished, others + 1);
    expect_equal(locked_sum, (others + 1) * (uint64_t)ROUNDS, "LOCK INC loses nothing");
    expect_equal(exchange_sum, (others + 1) * 3ul * ROUNDS, "LOCK CMPXCHG loses nothing");
    expect_equal(guarded, (others + 1) * (uint64_t)(ROUNDS / 16),
                 "a lock by XCHG guards a plain count");
    for (int i = 0; i < 100000; i++)
        asm volatile("pause");
    apic_write(APIC_ICR, ICR_ALL_BUT_SELF | ICR_ASSERT | CALL_VECTOR);
    wait(&calls, others);
    expect_equal(calls, others, "an interrupt reaches all the others");
}
