/* Self-modifying code
 *
 * A translator that keeps translations must notice every way in which code can change under it:
 * stores just ahead of the instruction pointer, through another mapping of the page, by string
 * instructions, across page borders, or by mapping another page at the same address. */
#include "lib/test.h"

const char test_title[] = "Self-modifying code";

enum { ROUNDS = 500 };
#define WRITABLE TEST_AREA
#define EXECUTABLE (TEST_AREA + 0x10000)

typedef uint32_t (*function)(void);

/* mov $value, %eax; ret */
static void write_function(void *at, uint32_t value)
{
    uint8_t code[6] = { 0xb8, 0, 0, 0, 0, 0xc3 };

    memcpy(code + 1, &value, 4);
    memcpy(at, code, sizeof code);
    asm volatile("" : : : "memory");
}

static uint32_t call(uint64_t address)
{
    return ((function)address)();
}

static void check_same_block(void)
{
    uint32_t seen;
    bool right = true;

    for (uint32_t i = 0; i < ROUNDS; i++) {
        asm volatile("movl %1, 1f+1(%%rip)\n1:\tmov $0x11111111, %0" : "=&a"(seen) : "r"(i) : "memory");
        right &= seen == i;
    }
    report(right, "the very next instruction is changed");
}

static void check_next_block(void)
{
    uint32_t seen;
    bool right = true;

    for (uint32_t i = 0; i < ROUNDS; i++) {
        asm volatile("movl %1, 1f+1(%%rip); jmp 1f\n1:\tmov $0x11111111, %0"
                     : "=&a"(seen) : "r"(i) : "memory");
        right &= seen == i;
    }
    report(right, "the next block is changed");
}

static void check_string_store(void)
{
    uint32_t seen, count = 4;
    void *to;

    asm volatile("lea 1f+1(%%rip), %1; mov $0x5a, %%al; rep stosb; jmp 1f\n"
                 "1:\tmov $0x11111111, %%eax"
                 : "=&a"(seen), "=&D"(to), "+c"(count) : : "memory");
    expect_equal(seen, 0x5a5a5a5a, "REP STOSB over the code ahead");
    asm volatile("lea 1f(%%rip), %%rdi; lea 2f(%%rip), %%rsi; mov $5, %%ecx; rep movsb\n"
                 "1:\tmov $0x11111111, %%eax; jmp 3f\n"
                 "2:\tmov $0x22222222, %%eax\n3:"
                 : "=&a"(seen), "+c"(count) : : "rsi", "rdi", "memory");
    expect_equal(seen, 0x22222222, "REP MOVSB over the code ahead");
}

static void check_aliases(void)
{
    uint64_t frame = (uint64_t)alloc_page();
    bool right = true;

    map_page(WRITABLE, frame, PTE_P | PTE_W | (has_nx() ? PTE_NX : 0));
    map_page(EXECUTABLE, frame, PTE_P);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        write_function((void *)WRITABLE, i);
        right &= call(EXECUTABLE) == i;
    }
    report(right, "written through one mapping, executed through another");
    for (uint32_t i = 0; i < ROUNDS; i++) {
        write_function((void *)frame, i * 3);
        right &= call(EXECUTABLE) == i * 3 && call(frame) == i * 3;
    }
    report(right, "executed through two mappings");
}

/* Data beside code on one page must not disturb it, nor be disturbed. */
static void check_mixed_page(void)
{
    volatile uint32_t *data = (uint32_t *)(WRITABLE + 2048);
    bool right = true;

    write_function((void *)WRITABLE, 77);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        *data += i;
        right &= call(EXECUTABLE) == 77;
    }
    report(right && *data == ROUNDS * (ROUNDS - 1) / 2, "code and data on one page");
}

static void check_remapping(void)
{
    uint64_t first = (uint64_t)alloc_page(), second = (uint64_t)alloc_page();
    bool right = true;

    write_function((void *)first, 1);
    write_function((void *)second, 2);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        map_page(EXECUTABLE, i & 1 ? second : first, PTE_P);
        right &= call(EXECUTABLE) == 1 + (i & 1);
    }
    report(right, "another page mapped at the same address");
}

static void check_recycling(void)
{
    uint64_t frame = (uint64_t)alloc_page();
    bool right = true;

    map_page(EXECUTABLE, frame, PTE_P | PTE_W);
    for (uint32_t i = 0; i < 50; i++) {
        memset((void *)frame, (int)i, PAGE_BYTES);
        right &= *(volatile uint8_t *)(EXECUTABLE + 100) == i;
        write_function((void *)(frame + 64 * (i % 32)), i);
        right &= call(EXECUTABLE + 64 * (i % 32)) == i;
    }
    report(right, "a page is code, then data, then code again");
}

/* mov $imm32, %eax with two bytes of the immediate on the next page. */
static void check_page_crossing(void)
{
    uint64_t low = (uint64_t)alloc_page(), high = (uint64_t)alloc_page();
    uint64_t start = EXECUTABLE + PAGE_BYTES - 3;
    bool right = true;

    map_page(EXECUTABLE, low, PTE_P | PTE_W);
    map_page(EXECUTABLE + PAGE_BYTES, high, PTE_P | PTE_W);
    write_function((void *)start, 0);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        *(volatile uint16_t *)high = (uint16_t)i;
        right &= call(start) == i << 16;
    }
    report(right, "an instruction across pages, changed on the second");
    for (uint32_t i = 0; i < ROUNDS; i++) {
        *(volatile uint32_t *)(start + 1) = i * 0x10001;
        right &= call(start) == i * 0x10001;
    }
    report(right, "an instruction across pages, changed by a store across pages");
    map_page(EXECUTABLE + PAGE_BYTES, low, PTE_P);
    memcpy((void *)low, (uint8_t[]){ 0x44, 0x33, 0xc3 }, 3);
    *(volatile uint16_t *)(start + 1) = 0x2211;
    expect_equal(call(start), 0x33442211, "an instruction across pages, the second remapped");
}

static void write_where_am_i(void *code)
{
    /* call 1f; 1: pop %rax; ret */
    memcpy(code, (uint8_t[]){ 0xe8, 0, 0, 0, 0, 0x58, 0xc3 }, 7);
}

static void check_same_code_elsewhere(void)
{
    uint64_t frame = (uint64_t)alloc_page();
    bool right = true;

    write_where_am_i((void *)frame);
    for (int i = 0; i < 8; i++)
        map_page(EXECUTABLE + i * PAGE_BYTES, frame, PTE_P);
    for (int round = 0; round < 3; round++)
        for (uint64_t i = 0; i < 8; i++)
            right &= call(EXECUTABLE + i * PAGE_BYTES) == EXECUTABLE + i * PAGE_BYTES + 5;
    report(right, "one page of code at eight addresses knows where it runs");
}

static void check_fault_then_fix(void)
{
    uint64_t frame = (uint64_t)alloc_page();

    map_page(EXECUTABLE, frame, PTE_P | PTE_W);
    memcpy((void *)EXECUTABLE, (uint8_t[]){ 0x0f, 0x0b, 0xc3 }, 3);
    struct trap trap = try_call((void (*)(void *))EXECUTABLE, NULL);
    expect_trap(trap, UD, 0, "UD2 in generated code");
    write_function((void *)EXECUTABLE, 9);
    expect_equal(call(EXECUTABLE), 9, "the faulting instruction replaced");
}

void test_main(void)
{
    paging_init();
    check_same_block();
    check_next_block();
    check_string_store();
    check_aliases();
    check_mixed_page();
    check_remapping();
    check_recycling();
    check_page_crossing();
    check_same_code_elsewhere();
    check_fault_then_fix();
}
