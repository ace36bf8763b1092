/* Legacy paging
 *
 * The older page-table formats, from 32-bit protected mode: no paging at all, two levels with pages
 * of 4 KiB and 4 MiB, and PAE with 4 KiB, 2 MiB and no-execute.  A little interpreter in 32-bit
 * code does the accesses that the 64-bit C code asks for, and notes the faults. */
#include "lib/legacy.h"
#include "lib/test.h"

const char test_title[] = "32-bit and PAE paging";

enum kind { END, LOAD, STORE, EXECUTE, INVALIDATE, SET_CR3, POKE };

/* One access; the interpreter below knows the layout.  POKE writes a table entry, unchecked. */
struct access {
    uint32_t kind, address, value, vector, error_code, cr2;
};

extern char run_accesses[];
asm(".pushsection .text; .code32\n"
    "run_accesses: mov %eax, %ebx\n"
    "1:\tmovl $-1, legacy_trap\n\t"
    "movl $9f, legacy_resume\n\t"
    "mov (%ebx), %ecx; mov 4(%ebx), %edx; mov 8(%ebx), %eax\n\t"
    "cmp $0, %ecx; je 10f\n\t"
    "cmp $1, %ecx; jne 2f; mov (%edx), %eax; mov %eax, 8(%ebx); jmp 9f\n"
    "2:\tcmp $2, %ecx; jne 3f; mov %eax, (%edx); jmp 9f\n"
    "3:\tcmp $3, %ecx; jne 4f; mov %esp, %ebp; call *%edx; jmp 9f\n"
    "4:\tcmp $4, %ecx; jne 5f; invlpg (%edx); jmp 9f\n"
    "5:\tcmp $5, %ecx; jne 6f; mov %edx, %cr3; jmp 9f\n"
    "6:\tmov %eax, (%edx)\n"
    "9:\tcmpl $3, (%ebx); jne 8f; mov %ebp, %esp\n"
    "8:\tmov legacy_trap, %eax; mov %eax, 12(%ebx)\n\t"
    "mov legacy_trap+4, %eax; mov %eax, 16(%ebx)\n\t"
    "mov legacy_trap+28, %eax; mov %eax, 20(%ebx)\n\t"
    "add $24, %ebx; jmp 1b\n"
    "10:\tmovl $0, legacy_resume; ret\n"
    ".code64; .popsection\n");

enum { ACCESSES_MAX = 16 };
static struct access accesses[ACCESSES_MAX];
static int used;

#define LOW(pointer) ((uint32_t)(uint64_t)(pointer))

static struct access *ask(enum kind kind, uint32_t address, uint32_t value)
{
    accesses[used] = (struct access){ .kind = kind, .address = address, .value = value };
    return &accesses[used++];
}

static void run(uint64_t cr0, void *root, uint64_t cr4)
{
    struct legacy_call call = {
        .code = LOW(run_accesses), .argument = LOW(accesses),
        .cr0 = (uint32_t)cr0, .cr3 = LOW(root), .cr4 = (uint32_t)cr4,
    };

    accesses[used].kind = END;
    legacy_call(&call);
    used = 0;
}

static void expect_fault(const struct access *a, uint32_t error_code, const char *name)
{
    bool right = a->vector == PF && a->error_code == error_code && a->cr2 == a->address;

    report(right, "%s", name);
    if (!right)
        printf("  vector %d error %x cr2 %x\n", (int)a->vector, a->error_code, a->cr2);
}

static void expect_value(const struct access *a, uint32_t value, const char *name)
{
    report(a->vector == ~0u && a->value == value, "%s", name);
    if (a->vector != ~0u || a->value != value)
        printf("  vector %d error %x value %x\n", (int)a->vector, a->error_code, a->value);
}

static void check_unpaged(void)
{
    uint32_t *page = alloc_page();
    struct access *load;

    page[0] = 0x12345678;
    load = ask(LOAD, LOW(page), 0);
    ask(STORE, LOW(page) + 4, 0x9abcdef0);
    run(CR0_PE, NULL, 0);
    expect_value(load, 0x12345678, "no paging: load");
    expect_equal(page[1], 0x9abcdef0, "no paging: store");
}

enum { SMALL = TEST_AREA, READ_ONLY = TEST_AREA + 4096, MISSING = TEST_AREA + 8192,
    LARGE = 0x50000000 };

/* An identity map of 4 MiB pages, with one page table for the test area. */
static uint32_t *make_two_levels(uint32_t *table, uint32_t page)
{
    uint32_t *directory = alloc_page();

    for (uint32_t i = 0; i < 1024; i++)
        directory[i] = i << 22 | PTE_P | PTE_W | PTE_PS;
    directory[SMALL >> 22] = LOW(table) | PTE_P | PTE_W;
    directory[LARGE >> 22] = 0 | PTE_P | PTE_W | PTE_PS;
    table[0] = page | PTE_P | PTE_W;
    table[1] = page | PTE_P;
    return directory;
}

static void check_two_levels(void)
{
    uint32_t *table = alloc_page(), *page = alloc_page(), *other = alloc_page();
    uint32_t *directory = make_two_levels(table, LOW(page));
    uint64_t cr0 = CR0_PE | CR0_PG | CR0_WP;
    struct access *a[8];

    page[0] = 0x11111111;
    other[0] = 0x22222222;
    a[0] = ask(LOAD, SMALL, 0);
    a[1] = ask(STORE, SMALL + 4, 0x33333333);
    a[2] = ask(LOAD, LARGE + LOW(page) + 4, 0);
    a[3] = ask(STORE, READ_ONLY + 8, 1);
    a[4] = ask(LOAD, MISSING + 12, 0);
    a[5] = ask(STORE, MISSING + 16, 0);
    ask(POKE, LOW(table), LOW(other) | PTE_P | PTE_W);
    ask(INVALIDATE, SMALL, 0);
    a[6] = ask(LOAD, SMALL, 0);
    run(cr0, directory, CR4_PSE);
    expect_value(a[0], 0x11111111, "two levels: load from a 4 KiB page");
    expect_value(a[2], 0x33333333, "two levels: a 4 MiB page shows what the store did");
    expect_fault(a[3], PF_PRESENT | PF_WRITE, "two levels: store to a read-only page");
    expect_fault(a[4], 0, "two levels: load from a missing page");
    expect_fault(a[5], PF_WRITE, "two levels: store to a missing page");
    expect_value(a[6], 0x22222222, "two levels: remapped and invalidated");
    expect_equal(table[1] & (PTE_A | PTE_D), 0, "two levels: a refused store sets neither A nor D");
    report((directory[LARGE >> 22] & (PTE_A | PTE_D)) == PTE_A,
           "two levels: a load sets A of a 4 MiB page");
    a[0] = ask(STORE, READ_ONLY, 0x44444444);
    run(CR0_PE | CR0_PG, directory, CR4_PSE);
    expect_value(a[0], 0x44444444, "two levels: without CR0.WP ring 0 writes to it");
    expect_equal(page[0], 0x44444444, "two levels: and the store is there");
    expect_equal(table[1] & (PTE_A | PTE_D), PTE_A | PTE_D, "two levels: a store sets A and D");
}

/* The boot's four directories serve PAE as well; only the top table differs. */
static uint64_t *make_pae(uint64_t *directory, uint64_t *table)
{
    extern uint64_t boot_directories[4][512];
    uint64_t *top = alloc_page();

    for (int i = 0; i < 4; i++)
        top[i] = (uint64_t)boot_directories[i] | PTE_P;
    top[1] = (uint64_t)directory | PTE_P;
    directory[0] = (uint64_t)table | PTE_P | PTE_W;
    directory[(LARGE - SMALL) >> 21] = 0 | PTE_P | PTE_W | PTE_PS;
    return top;
}

static void check_pae(void)
{
    uint64_t *directory = alloc_page(), *table = alloc_page(), cr0 = CR0_PE | CR0_PG | CR0_WP;
    uint64_t *top = make_pae(directory, table);
    uint32_t *page = alloc_page();
    struct access *a[8];

    page[0] = 0xc3;
    table[0] = (uint64_t)page | PTE_P | PTE_W;
    table[1] = (uint64_t)page | PTE_P;
    table[3] = (uint64_t)page | PTE_P | 1ul << 51;
    a[0] = ask(LOAD, SMALL, 0);
    a[1] = ask(STORE, SMALL + 4, 0x55555555);
    a[2] = ask(LOAD, LARGE + LOW(page) + 4, 0);
    a[3] = ask(STORE, READ_ONLY, 1);
    a[4] = ask(LOAD, MISSING, 0);
    a[5] = ask(LOAD, SMALL + 3 * 4096, 0);
    a[6] = ask(EXECUTE, SMALL, 0);
    run(cr0, top, CR4_PAE);
    expect_value(a[0], 0xc3, "PAE: load from a 4 KiB page");
    expect_value(a[2], 0x55555555, "PAE: a 2 MiB page shows what the store did");
    expect_fault(a[3], PF_PRESENT | PF_WRITE, "PAE: store to a read-only page");
    expect_fault(a[4], 0, "PAE: load from a missing page");
    expect_fault(a[5], PF_PRESENT | PF_RESERVED, "PAE: reserved bit");
    report(a[6]->vector == ~0u, "PAE: fetch from an executable page");
    expect_equal(table[0] & (PTE_A | PTE_D), PTE_A | PTE_D, "PAE: A and D");
    if (!has_nx())
        return;
    table[0] |= PTE_NX;
    a[0] = ask(EXECUTE, SMALL, 0);
    run(cr0, top, CR4_PAE);
    expect_fault(a[0], PF_PRESENT | PF_FETCH, "PAE: fetch from a no-execute page");
}

/* The four entries of the top table are loaded with CR3 and checked then. */
static void check_top_entries(void)
{
    uint64_t *directory = alloc_page(), *table = alloc_page(), *top = make_pae(directory, table);
    uint64_t *bad = make_pae(directory, table);
    uint32_t *page = alloc_page();
    struct access *a[4];

    page[0] = 0x66666666;
    table[0] = (uint64_t)page | PTE_P;
    bad[2] |= PTE_W;                     /* reserved here */
    a[0] = ask(SET_CR3, LOW(bad), 0);
    ask(POKE, LOW(&top[1]), 0);
    ask(INVALIDATE, SMALL, 0);
    a[1] = ask(LOAD, SMALL, 0);
    ask(SET_CR3, LOW(top), 0);
    a[2] = ask(LOAD, SMALL, 0);
    run(CR0_PE | CR0_PG, top, CR4_PAE);
    report(a[0]->vector == GP && a[0]->error_code == 0,
           "PAE: MOV CR3 with a reserved bit in the top table");
    expect_value(a[1], 0x66666666, "PAE: the top table is not read again before MOV CR3");
    expect_fault(a[2], 0, "PAE: MOV CR3 reads it");
}

static void check_cycles(void)
{
    uint64_t *directory = alloc_page(), *table = alloc_page(), *top = make_pae(directory, table);
    uint32_t *page = alloc_page();
    bool right = true;

    table[0] = (uint64_t)page | PTE_P | PTE_W;
    for (uint32_t i = 0; i < 50; i++) {
        page[0] = i;
        struct access *load = ask(LOAD, i & 1 ? SMALL : LOW(page), 0);
        run(i & 1 ? CR0_PE | CR0_PG : CR0_PE, top, i & 1 ? CR4_PAE : 0);
        right &= load->vector == ~0u && load->value == i;
    }
    report(right, "50 round trips: long, protected, paged or not, long");
}

void test_main(void)
{
    paging_init();
    legacy_init();
    check_unpaged();
    check_two_levels();
    check_pae();
    check_top_entries();
    check_cycles();
}
