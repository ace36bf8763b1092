/* Nanobenchmarks
 *
 * The operations of Adams and Agesen, "A Comparison of Software and Hardware Techniques for x86
 * Virtualization" (ASPLOS 2006), section 6.4: each in a loop of its own, so that what a loop takes
 * less what an empty one takes is what the operation takes.
 *
 *   syscall   from ring 3 to an empty handler and back     pgfault   a page that is not present
 *   in        a byte from port 0x80                        divzero   a division by zero
 *   cr8wr     a write of CR8                               ptemod    a page-table entry is written
 *   callret   a call of a subroutine
 *
 * ptemod has three rows, as their table: the entry stays as it is, a page goes, a page comes. A page
 * that goes is forgotten by INVLPG, one that comes is touched. */
#include "bench/marks.h"
#include "bench/nano.h"
#include "lib/apic.h"
#include "lib/test.h"
#include "lib/user.h"

const char test_title[] = "Benchmark: nano";

enum { COUNT = 4000 };

#define REPEAT(count, ...)                                  \
    for (uint64_t left = (count); left; left--)             \
        asm volatile(__VA_ARGS__)

USER(u_empty, "1: dec %rdi; jnz 1b; " USER_RETURN);
USER(u_syscall, "mov %rdi, %r8; 1: syscall; dec %r8; jnz 1b; " USER_RETURN);

static void user_empty(uint64_t n) { user_call(u_empty, n, 0); }
static void system_call(uint64_t n) { user_call(u_syscall, n, 0); }

static void empty(uint64_t n)
{
    REPEAT(n, "" : : : "memory");
}

static void port_in(uint64_t n)
{
    REPEAT(n, "in $0x80, %%al" : : : "rax");
}

static void cr8_write(uint64_t n)
{
    REPEAT(n, "mov %0, %%cr8" : : "r"(0ul));
}

static void call_return(uint64_t n)
{
    REPEAT(n, "call just_return" : : : "memory");
}

static void page_fault(uint64_t n)
{
    REPEAT(n, "lea 1f(%%rip), %%r15; mov (%0), %%al; 1:" : : "r"(NON_PRESENT)
           : "rax", "r15", "memory");
}

static void divide(uint64_t n)
{
    REPEAT(n, "lea 1f(%%rip), %%r15; div %%ecx; 1:" : : "a"(1), "c"(0), "d"(0) : "r15", "memory");
}

static volatile uint64_t *entry;
static uint64_t present;

static void entry_unchanged(uint64_t n)
{
    for (; n; n--)
        *entry = present;
}

static void entry_going(uint64_t n)
{
    for (; n; n--) {
        *entry = 0;
        invlpg(TEST_AREA);
        *entry = present;
    }
}

static void entry_coming(uint64_t n)
{
    for (; n; n--) {
        *entry = 0;
        invlpg(TEST_AREA);
        *entry = present;
        *(volatile uint8_t *)TEST_AREA;
    }
}

struct row {
    const char *name;
    void (*repeat)(uint64_t count);
};

static const struct row rows[] = {
    { "empty", empty }, { "user-empty", user_empty }, { "syscall", system_call }, { "in", port_in },
    { "cr8wr", cr8_write }, { "callret", call_return }, { "pgfault", page_fault }, { "divzero", divide },
    { "ptemod", entry_unchanged }, { "ptemod-going", entry_going }, { "ptemod-coming", entry_coming },
};

static void prepare(void)
{
    apic_init();                         /* with it the processor keeps CR8, if it can */
    paging_init();
    user_init();
    map_page(TEST_AREA, (uint64_t)alloc_page(), PTE_P | PTE_W);
    *(volatile uint8_t *)TEST_AREA;
    unmap_page(NON_PRESENT);
    entry = page_entry(TEST_AREA, 1);
    present = *entry | PTE_A | PTE_D;
    gate_set(PF, nano_page_fault, GATE_INTERRUPT, 0);
    gate_set(DE, nano_divide, GATE_INTERRUPT, 0);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, (uint64_t)(USER_CS32 & ~3) << 48 | (uint64_t)KERNEL_CS << 32);
    wrmsr(MSR_LSTAR, (uint64_t)nano_syscall);
    wrmsr(MSR_FMASK, FLAG_IF);
}

void test_main(void)
{
    prepare();
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t count = scaled(COUNT);

        rows[i].repeat(count / 10 + 1);
        mark_begin(rows[i].name, count);
        rows[i].repeat(count);
        mark_end();
    }
    exit_with(0);
}
