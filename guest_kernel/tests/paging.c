/* Paging
 *
 * Four-level page tables as ring 0 sees them: page sizes, every error code, accessed and dirty
 * bits, INVLPG, CR3, global pages, accesses across a page border.  Ring 3's view is in usermode.c,
 * the older formats are in legacy_paging.c. */
#include "lib/test.h"

const char test_title[] = "Four-level paging";

#define A TEST_AREA
#define RW (PTE_P | PTE_W)

static struct trap try_read(uint64_t address)
{
    uint64_t value;

    return TRY("mov (%1), %0", : "=r"(value) : "r"(address) : "memory");
}

static struct trap try_write(uint64_t address)
{
    return TRY("movq $7, (%0)", : : "r"(address) : "memory");
}

static uint64_t fill_page(uint64_t value)
{
    uint64_t *page = alloc_page();

    page[0] = value;
    return (uint64_t)page;
}

static uint64_t load(uint64_t address)
{
    return *(volatile uint64_t *)address;
}

static void store(uint64_t address, uint64_t value)
{
    *(volatile uint64_t *)address = value;
}

static void check_sizes(void)
{
    uint64_t page = fill_page(0x4b);

    map_page(A, page, RW);
    expect_equal(load(A), 0x4b, "4 KiB page");
    map_at(A + LARGE_BYTES, 0, RW, 2);
    expect_equal(load(A + LARGE_BYTES + page), 0x4b, "2 MiB page");
    if (!(cpuid(0x80000001, 0).edx & 1u << 26)) {
        report_skip("1 GiB page: not offered");
        return;
    }
    map_at(512 * HUGE_BYTES, 0, RW, 3);
    expect_equal(load(512 * HUGE_BYTES + page), 0x4b, "1 GiB page");
    map_page(0xffffff8000000000, page, RW);
    expect_equal(load(0xffffff8000000000), 0x4b, "the upper half of the address space");
}

static void check_error_codes(void)
{
    uint64_t page = fill_page(1);

    unmap_page(A);
    expect_trap(try_read(A), PF, 0, "#PF: read of a missing page");
    expect_trap(try_write(A), PF, PF_WRITE, "#PF: write to a missing page");
    map_page(A, page, PTE_P);
    expect_trap(try_write(A), PF, PF_WRITE | PF_PRESENT, "#PF: write to a read-only page");
    write_cr0(read_cr0() & ~CR0_WP);
    expect_none(try_write(A), "ring 0 writes to a read-only page without CR0.WP");
    write_cr0(read_cr0() | CR0_WP);
    expect_trap(try_write(A), PF, PF_WRITE | PF_PRESENT, "#PF again with CR0.WP");
    map_page(A, page | 1ul << 51, RW);
    expect_trap(try_read(A), PF, PF_RESERVED | PF_PRESENT, "#PF: physical address too wide");
    expect_trap(try_write(A), PF, PF_RESERVED | PF_PRESENT | PF_WRITE, "#PF: the same, written");
    map_at(A + LARGE_BYTES, 1ul << 13, RW, 2);
    expect_trap(try_read(A + LARGE_BYTES), PF, PF_RESERVED | PF_PRESENT,
                "#PF: reserved bit of a 2 MiB page");
    *page_entry(A + 2 * LARGE_BYTES, 2) = 0;
    expect_trap(try_read(A + 2 * LARGE_BYTES), PF, 0, "#PF: missing page table");
    expect_trap(try_read(300 * HUGE_BYTES), PF, 0, "#PF: missing directory");
    map_page(A, page, RW);
    *page_entry(A, 2) &= ~PTE_W;
    invlpg(A);
    expect_trap(try_write(A), PF, PF_WRITE | PF_PRESENT, "#PF: W clear in the directory");
    *page_entry(A, 2) |= PTE_W;
    invlpg(A);
}

static void execute(void *code)
{
    ((void (*)(void))code)();
}

static void check_no_execute(void)
{
    uint64_t page = fill_page(0xc3);

    if (!has_nx()) {
        report_skip("NX: not offered");
        return;
    }
    map_page(A, page, RW | PTE_NX);
    struct trap trap = try_call(execute, (void *)A);
    expect_trap(trap, PF, PF_FETCH | PF_PRESENT, "#PF: fetch from an NX page");
    report(trap.rip == A && trap.cr2 == A, "#PF: fetch has RIP and CR2 at the target");
    expect_equal(load(A), 0xc3, "an NX page can be read");
    map_page(A, page, RW);
    expect_none(try_call(execute, (void *)A), "NX taken away");
    unmap_page(A);
    expect_trap(try_call(execute, (void *)A), PF, PF_FETCH, "#PF: fetch from a missing page");
    map_page(A, page, RW | PTE_NX);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_NXE);
    write_cr3(read_cr3());
    expect_trap(try_read(A), PF, PF_RESERVED | PF_PRESENT,
                "#PF: the NX bit is reserved without EFER.NXE");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    map_page(A, page, RW);
}

static void check_accessed_dirty(void)
{
    uint64_t *leaf = page_entry(A, 1), *directory = page_entry(A, 2);

    map_page(A, fill_page(0), RW);
    *directory &= ~PTE_A;
    write_cr3(read_cr3());
    report(!(*leaf & (PTE_A | PTE_D)), "A and D start clear");
    load(A);
    report(*leaf & PTE_A && !(*leaf & PTE_D), "a read sets A");
    report(*directory & PTE_A, "a read sets A in the directory");
    store(A, 1);
    report(*leaf & PTE_D, "a write sets D");
    *leaf &= ~(PTE_A | PTE_D);
    invlpg(A);
    try_write(A);
    report((*leaf & (PTE_A | PTE_D)) == (PTE_A | PTE_D), "a write sets A and D together");
    *leaf &= ~(PTE_A | PTE_D | PTE_W);
    invlpg(A);
    try_write(A);
    report(!(*leaf & PTE_D), "a refused write does not set D");
    map_at(A + LARGE_BYTES, 0, RW, 2);
    store(A + LARGE_BYTES + (uint64_t)gdt + 8 * (GDT_ENTRIES - 1), 0);
    report((*page_entry(A + LARGE_BYTES, 2) & (PTE_A | PTE_D)) == (PTE_A | PTE_D),
           "A and D of a 2 MiB page");
}

static void check_invalidation(void)
{
    uint64_t first = fill_page(1), second = fill_page(2), sum = 0;

    for (int i = 0; i < 100; i++) {
        map_page(A, i & 1 ? second : first, RW);
        sum += load(A);
    }
    expect_equal(sum, 150, "INVLPG after each remapping");
    for (int i = 0; i < 100; i++) {
        *page_entry(A, 1) = (i & 1 ? second : first) | RW;
        write_cr3(read_cr3());
        sum += load(A);
    }
    expect_equal(sum, 300, "MOV CR3 after each remapping");
    *page_entry(A, 1) = 0;
    invlpg(A + 0xabc);
    expect_trap(try_read(A), PF, 0, "INVLPG takes any address in the page");
    map_page(A, first, PTE_P);
    load(A);
    *page_entry(A, 1) |= PTE_W;
    try_write(A);
    expect_none(try_write(A), "more permission needs at most one fault");
}

/* A second address space with the same kernel, in which A shows another page. */
static void check_address_spaces(void)
{
    uint64_t first = read_cr3(), second = (uint64_t)alloc_page(), sum = 0;

    map_page(A, fill_page(1), RW);
    memcpy((void *)second, (void *)(first & PTE_FRAME), PAGE_BYTES);
    uint64_t *low = memcpy(alloc_page(), (void *)(((uint64_t *)first)[0] & PTE_FRAME), PAGE_BYTES);
    ((uint64_t *)second)[0] = (uint64_t)low | RW | PTE_U;
    low[A / HUGE_BYTES] = 0;
    write_cr3(second);
    map_page(A, fill_page(2), RW);
    for (int i = 0; i < 100; i++) {
        write_cr3(first);
        sum += load(A);
        write_cr3(second);
        sum += 10 * load(A);
    }
    write_cr3(first);
    expect_equal(sum, 2100, "two address spaces, 200 switches");
}

static void check_global(void)
{
    uint64_t first = fill_page(1), second = fill_page(2);

    write_cr4(read_cr4() | CR4_PGE);
    map_page(A, first, RW | PTE_G);
    load(A);
    *page_entry(A, 1) = second | RW | PTE_G;
    invlpg(A);
    expect_equal(load(A), 2, "INVLPG drops a global page");
    *page_entry(A, 1) = first | RW | PTE_G;
    write_cr4(read_cr4() & ~CR4_PGE);
    expect_equal(load(A), 1, "toggling CR4.PGE drops global pages");
    map_page(A, first, RW);
}

static void check_page_crossing(void)
{
    uint64_t low = fill_page(0), high = fill_page(0);

    map_page(A, low, RW);
    map_page(A + PAGE_BYTES, high, RW);
    store(A + PAGE_BYTES - 3, 0x1122334455667788);
    expect_equal(load(A + PAGE_BYTES - 3), 0x1122334455667788, "an access across two pages");
    expect_equal(*(volatile uint32_t *)high & 0xff, 0x55, "its second part is in the second page");
    unmap_page(A + PAGE_BYTES);
    struct trap trap = try_write(A + PAGE_BYTES - 3);
    expect_trap(trap, PF, PF_WRITE, "a write into a missing second page");
    expect_equal(trap.cr2, A + PAGE_BYTES, "its CR2 is the start of the second page");
    expect_equal(*(volatile uint8_t *)(low + PAGE_BYTES - 3), 0x88,
                 "nothing was written to the first page");
    unmap_page(A);
    map_page(A + PAGE_BYTES, high, RW);
    trap = try_read(A + PAGE_BYTES - 3);
    expect_equal(trap.cr2, A + PAGE_BYTES - 3, "a missing first page: CR2 is the address itself");
}

/* The processor's own accesses to descriptor tables are supervisor accesses like any other. */
static void check_implicit_accesses(void)
{
    uint64_t *table = alloc_page();
    struct trap trap;

    map_page(A, (uint64_t)table, RW);
    table[1] = descriptor(0, 0xfffff, ACCESS_DATA & ~1, FLAGS_32BIT);
    gdt[SCRATCH] = descriptor(A, 0xfff, ACCESS_LDT, 0);
    gdt[SCRATCH + 1] = 0;
    asm volatile("lldt %w0" : : "r"(SCRATCH_SELECTOR));
    unmap_page(A);
    trap = TRY("mov %0, %%fs", : : "r"(0xc) : "memory");
    expect_trap(trap, PF, 0, "#PF: a segment load from a missing LDT page");
    expect_equal(trap.cr2, A + 8, "#PF: CR2 is the descriptor's address");
    map_page(A, (uint64_t)table, PTE_P);
    trap = TRY("mov %0, %%fs", : : "r"(0xc) : "memory");
    expect_trap(trap, PF, PF_WRITE | PF_PRESENT,
                "#PF: setting the accessed bit in a read-only LDT");
    asm volatile("lldt %w0; mov %0, %%fs" : : "r"(0));
}

void test_main(void)
{
    paging_init();
    check_sizes();
    check_error_codes();
    check_no_execute();
    check_accessed_dirty();
    check_invalidation();
    check_address_spaces();
    check_global();
    check_page_crossing();
    check_implicit_accesses();
}
