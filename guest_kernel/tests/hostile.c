/* Hostile
 *
 * A kernel that means harm: pages of random bytes, biased towards instructions that matter, are
 * executed in ring 0 and in ring 3, with descriptor tables, stacks and page tables broken at random.
 * What becomes of the guest does not matter (it may halt, stop or triple-fault); the machine under
 * it must neither crash nor hang.
 *
 * Command line: seed=N chooses the programs, rounds=N how many, harm=0..4 how far they go:
 * 0 random code, 1 also gates, 2 also segments and stacks, 3 also page tables, 4 also control
 * registers and wild jumps (the default).  The same seed does the same: the last line is a digest of
 * all traps. */
#include "lib/apic.h"
#include "lib/test.h"

const char test_title[] = "Hostile";

enum { WATCHDOG = 0xef, WATCHDOG_COUNTS = 2000000, CODE_PAGES = 2, REGISTERS = 8 };

#define USER_CODE 0x70000000ul

static uint64_t random_state;
static uint8_t *code;
static uint8_t *scratch;
static uint64_t good_cr0, good_cr3, good_cr4, good_efer;
static uint64_t good_gdt[GDT_ENTRIES];
static struct gate good_idt[256];
static struct tss good_tss;

/* xorshift64*: small, and the same everywhere. */
static uint64_t random64(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1d;
}

static unsigned below(unsigned limit)
{
    return (unsigned)((random64() >> 32) % limit);
}

/* Addresses and numbers that matter, and some that are just random. */
static uint64_t random_value(void)
{
    switch (below(12)) {
    case 0: return below(16);
    case 1: return (uint64_t)scratch + below(PAGE_BYTES);
    case 2: return (uint64_t)code + below(CODE_PAGES * PAGE_BYTES);
    case 3: return (uint64_t)gdt + below(sizeof gdt);
    case 4: return (uint64_t)idt + below(sizeof idt);
    case 5: return TEST_AREA + below(1 << 30);
    case 6: return NON_CANONICAL + random64() % 0x1000;
    case 7: return 0xfee00000 + below(PAGE_BYTES);
    case 8: return -(uint64_t)below(4096);
    case 9: return below(1 << 20);
    case 10: return (uint64_t)scratch | 1ul << below(64);
    default: return random64();
    }
}

/* Instructions worth aiming at: length, then bytes; random operands follow them in the page. */
static const uint8_t templates[][6] = {
    { 3, 0x0f, 0x20, 0xc0 }, { 3, 0x0f, 0x22, 0xc0 }, { 3, 0x0f, 0x22, 0xd8 },
    { 3, 0x0f, 0x22, 0xe0 }, { 3, 0x0f, 0x21, 0xf8 }, { 3, 0x0f, 0x23, 0xf8 },
    { 3, 0x44, 0x0f, 0x22 }, { 2, 0x0f, 0x32 }, { 2, 0x0f, 0x30 }, { 2, 0x0f, 0x01 },
    { 2, 0x0f, 0x00 }, { 2, 0x0f, 0xae }, { 2, 0x0f, 0xc7 }, { 2, 0x48, 0xcf }, { 1, 0xcf },
    { 1, 0xcb }, { 2, 0x48, 0xcb }, { 2, 0x0f, 0x05 }, { 2, 0x0f, 0x07 }, { 3, 0x48, 0x0f, 0x07 },
    { 2, 0x0f, 0x34 }, { 2, 0x0f, 0x35 }, { 1, 0xcd }, { 1, 0xcc }, { 1, 0xf1 }, { 2, 0xfb, 0xf4 },
    { 1, 0xfa }, { 1, 0xfb }, { 1, 0x9d }, { 1, 0x9c }, { 1, 0x8e }, { 1, 0x8c }, { 1, 0xec },
    { 1, 0xee }, { 1, 0xe5 }, { 1, 0xe7 }, { 2, 0xf3, 0x6c }, { 2, 0xf3, 0x6e }, { 2, 0xf3, 0xa4 },
    { 3, 0xf3, 0x48, 0xab }, { 2, 0xf2, 0xae }, { 3, 0x0f, 0x01, 0xf8 }, { 3, 0x0f, 0x01, 0xc1 },
    { 3, 0x0f, 0x01, 0xd9 }, { 3, 0x0f, 0x01, 0xd0 }, { 3, 0x0f, 0x01, 0xd1 }, { 2, 0x0f, 0xa2 },
    { 2, 0x0f, 0x31 }, { 2, 0x0f, 0x09 }, { 2, 0x0f, 0x06 }, { 2, 0x0f, 0x0b }, { 1, 0xff },
    { 1, 0xe8 }, { 1, 0xe9 }, { 1, 0xeb }, { 1, 0x74 }, { 1, 0x75 }, { 1, 0xe2 }, { 1, 0xc3 },
    { 1, 0xc8 }, { 1, 0xc9 }, { 1, 0xc2 }, { 2, 0x0f, 0xa1 }, { 2, 0x0f, 0xb2 }, { 2, 0x0f, 0x02 },
    { 2, 0x0f, 0x03 }, { 1, 0x63 }, { 1, 0xf0 }, { 2, 0xf0, 0x0f }, { 1, 0x66 }, { 1, 0x67 },
    { 1, 0x48 }, { 1, 0x8b }, { 1, 0x89 }, { 1, 0x87 }, { 1, 0x01 }, { 1, 0x33 }, { 1, 0xf7 },
    { 1, 0xd3 }, { 2, 0x0f, 0x6f }, { 2, 0x0f, 0x10 }, { 3, 0x66, 0x0f, 0x38 },
    { 3, 0xf3, 0x0f, 0x7e }, { 1, 0xd9 }, { 1, 0xdf }, { 1, 0x9b }, { 2, 0x48, 0xb8 }, { 1, 0x50 },
    { 1, 0x5c }, { 1, 0x54 }, { 3, 0x0f, 0x01, 0xca }, { 3, 0x0f, 0x01, 0xcb },
};

static void fill_code(void)
{
    unsigned at = 0, end = CODE_PAGES * PAGE_BYTES - 16;

    while (at < end) {
        const uint8_t *t = templates[below(sizeof templates / sizeof *templates)];

        if (below(3)) {
            memcpy(code + at, t + 1, t[0]);
            at += t[0];
        }
        for (unsigned operands = below(3); operands; operands--)
            code[at++] = (uint8_t)random64();
    }
}

static void break_gates(void)
{
    for (unsigned n = below(4); n; n--)
        ((uint8_t *)&idt[below(32)])[below(16)] = (uint8_t)random64();
    if (below(16) == 0)
        idt_load_limit((uint16_t)random64());
}

static void break_segments(void)
{
    for (unsigned n = below(3); n; n--)
        gdt[1 + below(GDT_ENTRIES - 1)] ^= 1ul << below(64);
    gdt[SCRATCH + below(8)] = random64();
    tss.rsp[below(3)] = random_value();
    tss.ist[1 + below(7)] = random_value();
}

static void break_paging(void)
{
    uint64_t *table = (uint64_t *)(good_cr3 & PTE_FRAME);

    for (int level = below(3); level; level--)
        table = (uint64_t *)(table[below(2)] & PTE_FRAME & ~PTE_PS);
    if ((uint64_t)table > 0x100000 && (uint64_t)table < 0x400000)
        table[8 + below(504)] ^= 1ul << below(64);
    *page_entry(TEST_AREA + PAGE_BYTES * below(512), 1) = random64();
}

static uint64_t registers[REGISTERS], jump_target, start_flags;

static void run_hostile(void *unused)
{
    (void)unused;
    asm volatile("mov %0, %%rdi; push %2; popf; push %1\n\t"
                 "mov (%%rdi), %%rax; mov 8(%%rdi), %%rbx; mov 16(%%rdi), %%rcx; mov 24(%%rdi), %%rdx\n\t"
                 "mov 32(%%rdi), %%rsi; mov 48(%%rdi), %%r8; mov 56(%%rdi), %%rbp\n\t"
                 "mov 40(%%rdi), %%rdi; ret"
                 : : "r"(registers), "r"(jump_target), "r"(start_flags)
                 : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "memory", "cc");
}

static void hostile_control(void *unused)
{
    (void)unused;
    switch (below(6)) {
    case 0: write_cr0(good_cr0 ^ 1ul << below(32)); break;
    case 1: write_cr4(good_cr4 ^ 1ul << below(32)); break;
    case 2: wrmsr(MSR_EFER, good_efer ^ 1ul << below(16)); break;
    case 3: wrmsr((uint32_t)(random64() & 0xc0001fff), random_value()); break;
    case 4: write_cr3(random_value() % (16 << 20)); break;
    default: asm volatile("mov %0, %%ss" : : "r"((uint32_t)below(256))); break;
    }
    run_hostile(NULL);
}

/* The same bytes in ring 3, where the kernel should outlive anything. */
static struct trap run_in_ring3(void)
{
    struct user_start start = {
        .rip = USER_CODE + below(CODE_PAGES * PAGE_BYTES - 64),
        .cs = below(4) ? USER_CS64 : USER_CS32,
        .rflags = start_flags & ~FLAG_VM & ~FLAG_NT,
        .rsp = below(4) ? USER_CODE + CODE_PAGES * PAGE_BYTES - 64 : random_value(),
        .ss = USER_SS,
        .argument = USER_CODE + below(CODE_PAGES * PAGE_BYTES),
    };

    for (uint64_t i = 0; i < CODE_PAGES; i++)
        map_page(USER_CODE + i * PAGE_BYTES, (uint64_t)code + i * PAGE_BYTES, PTE_P | PTE_W | PTE_U);
    return enter_user(&start);
}

static void remember(void)
{
    good_cr0 = read_cr0();
    good_cr3 = read_cr3();
    good_cr4 = read_cr4();
    good_efer = rdmsr(MSR_EFER);
    gdt[TSS_SELECTOR / 8] &= ~(2ul << 40);           /* not busy, for the next LTR */
    memcpy(good_gdt, gdt, sizeof gdt);
    memcpy(good_idt, idt, sizeof idt);
    memcpy(&good_tss, &tss, sizeof tss);
}

static void restore(void)
{
    memcpy(gdt, good_gdt, sizeof gdt);
    memcpy(idt, good_idt, sizeof idt);
    memcpy(&tss, &good_tss, sizeof tss);
    gdt_load(sizeof gdt - 1);
    idt_load();
    asm volatile("ltr %w0; lldt %w1" : : "r"(TSS_SELECTOR), "r"(0));
    write_dr7(0x400);
    write_cr0(good_cr0);
    write_cr4(good_cr4);
    write_cr3(good_cr3);
    wrmsr(MSR_EFER, good_efer);
    wrmsr(MSR_APIC_BASE, 0xfee00900);
    apic_init();
    apic_end();
}

static struct trap one_round(unsigned harm)
{
    fill_code();
    for (int i = 0; i < REGISTERS; i++)
        registers[i] = random_value();
    jump_target = (uint64_t)code + below(CODE_PAGES * PAGE_BYTES - 64);
    start_flags = below(4) ? 2 | FLAG_IF : (random64() & 0x3f7dd5) | 2 | FLAG_IF;
    if (harm >= 1 && below(2))
        break_gates();
    if (harm >= 2 && below(2))
        break_segments();
    if (harm >= 3 && below(4) == 0)
        break_paging();
    if (harm >= 4 && below(8) == 0)
        jump_target = random_value();
    apic_timer(WATCHDOG, 0, WATCHDOG_COUNTS);
    if (below(2))
        return run_in_ring3();
    return try_call(harm >= 4 && below(16) == 0 ? hostile_control : run_hostile, NULL);
}

static uint64_t number_of(const char *prefix, uint64_t otherwise)
{
    const char *word = find_word(boot_info.cmdline, prefix);

    return word ? parse_number(word) : otherwise;
}

void test_main(void)
{
    uint64_t rounds = number_of("rounds=", 200), harm = number_of("harm=", 4), digest = 0, done;

    random_state = number_of("seed=", 1) * 0x9e3779b97f4a7c15 + 1;
    printf("seed %lu rounds %lu harm %lu\n", number_of("seed=", 1), rounds, harm);
    paging_init();
    apic_init();
    code = alloc_page();
    alloc_page();
    scratch = alloc_page();
    remember();
    for (done = 0; done < rounds; done++) {
        struct trap trap = one_round((unsigned)harm);

        digest = (digest ^ (uint64_t)trap.vector ^ trap.error_code << 8 ^ trap.rip << 16)
                 * 0x100000001b3;
        restore();
    }
    console_init();
    printf("survived %lu rounds, digest %016lx\n", done, digest);
    report(true, "the kernel outlived itself");
}
