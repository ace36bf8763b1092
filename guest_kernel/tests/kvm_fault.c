/* KVM's dialect, asynchronous page faults
 *
 * The hypervisor swaps pages out when this kernel writes an address to port 0x6f0: something outside
 * has to listen there.  Ring 3 is told that its page is missing and that it is back; ring 0 waits. */
#include "lib/apic.h"
#include "lib/kvm.h"
#include "lib/test.h"
#include "lib/user.h"

const char test_title[] = "KVM's dialect, asynchronous page faults";

enum { VECTOR = 0xf3, SWAP_PORT = 0x6f0, ENABLE = 1, ALWAYS = 2, BY_INTERRUPT = 8, PAGE = 4096 };
enum { NOT_PRESENT = 1, PATIENCE = 20000000 };

static struct kvm_fault area;
static uint8_t pages[4][PAGE] __attribute__((aligned(4096)));
static volatile uint32_t missing, back, faults, readies, last_flags, last_cs;
static trap_handler before;

#define PHYSICAL(object) ((uint64_t)(uintptr_t)&(object))

static void swap_out(const void *page)
{
    outl((uint32_t)(uintptr_t)page, SWAP_PORT);
}

/* "Not present" is a #PF; another task would run now, here the processor waits for "ready". */
static void on_page_fault(struct trap_frame *frame)
{
    last_flags = area.flags;
    area.flags = 0;
    last_cs = (uint32_t)frame->cs;
    missing = (uint32_t)read_cr2();
    faults++;
    uint32_t told = readies;
    sti();
    for (uint64_t i = 0; i < PATIENCE && readies == told; i++)
        asm volatile("hlt");
    cli();
}

static void on_ready(struct trap_frame *frame)
{
    (void)frame;
    back = area.token;
    readies++;
    area.token = 0;
    apic_end();
    wrmsr(MSR_KVM_ASYNC_PF_ACK, 1);
}

USER(user_read, "mov (%rdi), %rax; " USER_RETURN);
USER(user_write, "movq $7, (%rdi); mov (%rdi), %rax; " USER_RETURN);

static void enable(uint64_t bits)
{
    wrmsr(MSR_KVM_ASYNC_PF_INT, VECTOR);
    wrmsr(MSR_KVM_ASYNC_PF_EN, PHYSICAL(area) | bits);
}

static void check_user(void)
{
    map_page(USER_DATA, (uint64_t)pages[0], PTE_P | PTE_W | PTE_U);
    *(volatile uint64_t *)pages[0] = 42;
    enable(ENABLE | BY_INTERRUPT);
    swap_out(pages[0]);
    struct trap trap = user_call(user_read, USER_DATA, FLAG_IF);
    report(trap.vector == RETURNED && trap.rax == 42, "ring 3 gets the page's contents");
    expect_equal(faults, 1, "after one fault");
    expect_equal(last_flags, NOT_PRESENT, "whose flag says: not present");
    report(last_cs & 3, "in ring 3");
    expect_equal(readies, 1, "and one interrupt");
    report(missing && missing == back, "with the same token");
    swap_out(pages[0]);
    trap = user_call(user_write, USER_DATA, FLAG_IF);
    report(trap.rax == 7 && faults == 2 && readies == 2, "a write too");
    report(missing == back, "with a token of its own");
    uint64_t start = rdtsc();
    swap_out(pages[0]);
    trap = user_call(user_read, USER_DATA, 0);
    report(trap.rax == 7 && faults == 2, "with interrupts off it waits");
    report(rdtsc() - start > 100000, "as long as the disk takes");
}

static void check_kernel(void)
{
    uint32_t told = faults;

    swap_out(pages[1]);
    sti();
    uint64_t start = rdtsc();
    expect_equal(*(volatile uint64_t *)pages[1], 0, "ring 0 reads the page's contents");
    report(rdtsc() - start > 100000, "having waited");
    expect_equal(faults, told, "without a fault");
    enable(ENABLE | BY_INTERRUPT | ALWAYS);
    swap_out(pages[1]);
    expect_equal(*(volatile uint64_t *)pages[1], 0, "ring 0, asking for it, reads it too");
    expect_equal(faults, told + 1, "with a fault");
    cli();
    wrmsr(MSR_KVM_ASYNC_PF_EN, 0);
    swap_out(pages[1]);
    sti();
    expect_equal(*(volatile uint64_t *)pages[1], 0, "switched off: it waits");
    cli();
    expect_equal(faults, told + 1, "without a fault");
}

/* Pages in places where no fault can be told: code, tables, a stack in the middle of delivery. */
static void check_awkward(void)
{
    static uint64_t table[512] __attribute__((aligned(4096)));
    const uint64_t at = 0x60000000;

    enable(ENABLE | BY_INTERRUPT | ALWAYS);
    *page_entry(at, 2) = (uint64_t)table | PTE_P | PTE_W;
    table[0] = (uint64_t)pages[2] | PTE_P | PTE_W;
    pages[2][0] = 0xc3;                  /* RET */
    invlpg(at);
    swap_out(table);
    swap_out(pages[2]);
    ((void (*)(void))(uintptr_t)at)();
    report(true, "tables and code that are out are waited for");
    uint8_t *stack = pages[3] + PAGE;
    swap_out(pages[3]);
    asm volatile("mov %%rsp, %%rbx; mov %0, %%rsp; int3; mov %%rbx, %%rsp" : : "r"(stack) : "rbx", "memory");
    report(true, "a stack that is out while INT3 is delivered too");
    wrmsr(MSR_KVM_ASYNC_PF_EN, 0);
}

static void on_breakpoint(struct trap_frame *frame)
{
    (void)frame;
}

void test_main(void)
{
    paging_init();
    user_init();
    apic_init();
    before = trap_handle(PF, on_page_fault);
    trap_handle(BP, on_breakpoint);
    trap_handle(VECTOR, on_ready);
    check_user();
    check_kernel();
    check_awkward();
}
