/* What single operations cost
 *
 * Each row repeats one thing that a hypervisor or a processor model has to do something about. The
 * first rows exit to software, so they are repeated less often. */
#include "bench/costs.h"
#include "bench/marks.h"
#include "lib/apic.h"
#include "lib/test.h"

const char test_title[] = "Benchmark: costs";

enum { EXITS = 20000, RESOLVED = 200000, PAGES = 16, VECTOR = 0x90, TASK_PRIORITY = 0 };

#define REPEAT(count, ...)                                  \
    for (uint64_t left = (count); left; left--)             \
        asm volatile(__VA_ARGS__)

static void cpuid_exit(uint64_t n)
{
    REPEAT(n, "cpuid" : : "a"(0), "c"(0) : "rbx", "rdx", "memory");
}

static void out_exit(uint64_t n)
{
    REPEAT(n, "out %%al, $0x80" : : "a"(0));
}

static void mmio_load(uint64_t n)
{
    REPEAT(n, "mov 0xfee00030, %%eax" : : : "rax");
}

static void mmio_store(uint64_t n)
{
    REPEAT(n, "mov %%eax, 0xfee00080" : : "a"(TASK_PRIORITY));
}

static void rdmsr_exit(uint64_t n)
{
    REPEAT(n, "rdmsr" : : "c"(0x1b) : "rax", "rdx");
}

static void read_cr0_only(uint64_t n)
{
    REPEAT(n, "mov %%cr0, %%rax" : : : "rax");
}

static void clts(uint64_t n)
{
    REPEAT(n, "clts");
}

static void rdmsr_fs_base(uint64_t n)
{
    REPEAT(n, "rdmsr" : : "c"(0xc0000100) : "rax", "rdx");
}

static void pushf_popf(uint64_t n)
{
    REPEAT(n, "pushf; popf" : : : "memory", "cc");
}

static void cli_sti(uint64_t n)
{
    REPEAT(n, "sti; cli");
}

static void int_iretq(uint64_t n)
{
    REPEAT(n, "int $0x90" : : : "memory");
}

static void page_fault(uint64_t n)
{
    REPEAT(n, "lea 1f(%%rip), %%r15; mov (%0), %%al; 1:" : : "r"(NON_PRESENT)
           : "rax", "r15", "memory");
}

static void page_fault_delivered(uint64_t n)
{
    gate_set(PF, page_fault_back, GATE_INTERRUPT, 0);
    page_fault(n);
}

static void cr3_touch(uint64_t n)
{
    uint64_t cr3 = read_cr3();

    for (; n; n--) {
        write_cr3(cr3);
        for (unsigned page = 0; page < PAGES; page++)
            *(volatile uint64_t *)(TEST_AREA + page * PAGE_BYTES);
    }
}

static void empty(uint64_t n)
{
    REPEAT(n, "" : : : "memory");
}

struct row {
    const char *name;
    void (*repeat)(uint64_t count);
    uint64_t count;
};

static const struct row rows[] = {
    { "cpuid", cpuid_exit, EXITS },
    { "out", out_exit, EXITS },
    { "mmio-load", mmio_load, EXITS },
    { "mmio-store", mmio_store, EXITS },
    { "rdmsr-apic-base", rdmsr_exit, EXITS },
    { "mov-cr0", read_cr0_only, RESOLVED },
    { "clts", clts, RESOLVED },
    { "rdmsr-fs-base", rdmsr_fs_base, RESOLVED },
    { "pushf-popf", pushf_popf, RESOLVED },
    { "sti-cli", cli_sti, RESOLVED },
    { "int-iretq", int_iretq, RESOLVED },
    { "page-fault", page_fault, RESOLVED },
    { "page-fault-delivered", page_fault_delivered, RESOLVED },
    { "cr3-16-pages", cr3_touch, RESOLVED / 10 },
    { "empty", empty, RESOLVED * 10 },
};

static void prepare(void)
{
    apic_init();
    paging_init();
    for (unsigned page = 0; page < PAGES; page++)
        map_page(TEST_AREA + page * PAGE_BYTES, (uint64_t)alloc_page(), PTE_P | PTE_W);
    unmap_page(NON_PRESENT);
    gate_set(PF, page_fault_entry, GATE_INTERRUPT, 0);
    gate_set(VECTOR, interrupt_entry, GATE_INTERRUPT, 0);
}

void test_main(void)
{
    prepare();
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t count = scaled(rows[i].count);

        mark_begin(rows[i].name, count);
        rows[i].repeat(count);
        mark_end();
    }
    exit_with(0);
}
