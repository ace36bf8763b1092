/* Visible
 *
 * What ring 0 sees of itself.  These are Popek and Goldberg's sensitive but unprivileged
 * instructions: a kernel that really runs in ring 1 would notice it by every one of them, unless
 * the machine hides it. */
#include "lib/test.h"

const char test_title[] = "What ring 0 sees";

#define ARITHMETIC 0x8d5ul                /* CF PF AF ZF SF OF: whatever code ran before left them */

static uint64_t pushed_cs, pushed_ss;

static void check_selectors(void)
{
    uint32_t wide = ~0u;
    uint16_t stored;

    expect_equal(read_cs(), KERNEL_CS, "MOV from CS: RPL 0");
    expect_equal(read_ss(), KERNEL_SS, "MOV from SS: RPL 0");
    expect_equal(read_ds(), KERNEL_SS, "MOV from DS: RPL 0");
    asm volatile("mov %%ss, %0" : "+r"(wide));
    expect_equal(wide, KERNEL_SS, "MOV from SS to 32 bits is zero-extended");
    asm volatile("mov %%ss, %0" : "=m"(stored));
    expect_equal(stored, KERNEL_SS, "MOV from SS to memory");
    asm volatile("mov %1, %%fs; pushq %%fs; pop %0" : "=r"(pushed_ss) : "r"(KERNEL_SS) : "memory");
    expect_equal(pushed_ss, KERNEL_SS, "PUSH FS");
    asm volatile("xor %%eax, %%eax; mov %%eax, %%fs" : : : "rax");
}

static void check_far_call(void)
{
    asm volatile("lcall *1f(%%rip)\n\t"
                 "jmp 3f\n"
                 "1:\t.long 2f\n\t.short %c1\n"
                 "2:\tmov 4(%%rsp), %%eax\n\t"
                 "mov %%rax, %0\n\t"
                 "lretl\n"
                 "3:" : "=m"(pushed_cs) : "i"(KERNEL_CS) : "rax", "memory");
    expect_equal((uint32_t)pushed_cs, KERNEL_CS, "far CALL pushes CS with RPL 0");
    asm volatile("pushq %1\n\tlea 1f(%%rip), %%rax\n\tpush %%rax\n\tlretq\n1:\tmov %%cs, %0"
                 : "=r"(pushed_cs) : "i"(KERNEL_CS) : "rax", "memory");
    expect_equal((uint16_t)pushed_cs, KERNEL_CS, "far RET to RPL 0 stays in ring 0");
}

#define CHECK_SEGMENT(instruction, selector)                                     \
    ({                                                                           \
        uint64_t out = 0;                                                        \
        bool zf;                                                                 \
        asm volatile(instruction : "+r"(out), "=@ccz"(zf) : "r"((uint64_t)(selector))); \
        zf ? out : ~0ul;                                                         \
    })
#define LAR_MASK 0xfffffffffff0fffful   /* the limit's bits are undefined in the result */
#define LAR "lar %k2, %k0"
#define LSL "lsl %k2, %k0"
#define VERR "verr %w2"
#define VERW "verw %w2"

static void check_access_rights(void)
{
    gdt[SCRATCH] = descriptor(0x1000, 0x1234, ACCESS_DATA, FLAGS_32BIT_BYTES);
    gdt[SCRATCH + 1] = descriptor(0, 0xfffff, ACCESS_CODE & ~2, FLAGS_LONG);
    expect_equal(CHECK_SEGMENT(LAR, KERNEL_CS) & LAR_MASK, 0xa09b00,
                 "LAR of the kernel's code: DPL 0");
    expect_equal(CHECK_SEGMENT(LAR, KERNEL_SS) & LAR_MASK, 0xc09300,
                 "LAR of the kernel's data: DPL 0");
    expect_equal(CHECK_SEGMENT(LAR, USER_SS) & LAR_MASK, 0xc0f300, "LAR of the user's data: DPL 3");
    expect_equal(CHECK_SEGMENT(LAR, KERNEL_SS | 3), ~0ul, "LAR with RPL 3 of DPL 0 fails");
    expect_equal(CHECK_SEGMENT(LAR, 0), ~0ul, "LAR of null fails");
    expect_equal(CHECK_SEGMENT(LAR, TSS_SELECTOR), 0x8b00, "LAR of the busy TSS");
    expect_equal(CHECK_SEGMENT(LSL, KERNEL_SS), 0xffffffff, "LSL with granularity");
    expect_equal(CHECK_SEGMENT(LSL, SCRATCH_SELECTOR), 0x1234, "LSL in bytes");
    expect_equal(CHECK_SEGMENT(LSL, 0xfff8), ~0ul, "LSL beyond the GDT fails");
    expect_equal(CHECK_SEGMENT(VERR, KERNEL_CS), 0, "VERR of readable code");
    expect_equal(CHECK_SEGMENT(VERR, SCRATCH_SELECTOR + 8), ~0ul,
                 "VERR of execute-only code fails");
    expect_equal(CHECK_SEGMENT(VERW, KERNEL_SS), 0, "VERW of the kernel's data");
    expect_equal(CHECK_SEGMENT(VERW, KERNEL_CS), ~0ul, "VERW of code fails");
    expect_equal(CHECK_SEGMENT(VERW, KERNEL_SS | 3), ~0ul, "VERW with RPL 3 of DPL 0 fails");
}

static void check_tables(void)
{
    struct table_pointer pointer = { 0, 0 };
    uint64_t value = ~0ul;

    asm volatile("sgdt %0" : "=m"(pointer));
    report(pointer.base == (uint64_t)gdt && pointer.limit == sizeof gdt - 1, "SGDT");
    asm volatile("sidt %0" : "=m"(pointer));
    report(pointer.base == (uint64_t)idt && pointer.limit == sizeof idt - 1, "SIDT");
    asm volatile("str %0" : "+r"(value));
    expect_equal(value, TSS_SELECTOR, "STR to 64 bits is zero-extended");
    asm volatile("sldt %0" : "=r"(value));
    expect_equal((uint16_t)value, 0, "SLDT: null");
    gdt[SCRATCH] = descriptor((uint32_t)(uint64_t)gdt, 63, ACCESS_LDT, 0);
    gdt[SCRATCH + 1] = 0;
    asm volatile("lldt %w1; sldt %0; lldt %w2" : "=&r"(value) : "r"(SCRATCH_SELECTOR), "r"(0));
    expect_equal((uint16_t)value, SCRATCH_SELECTOR, "SLDT after LLDT");
    asm volatile("smsw %0" : "=r"(value));
    expect_equal(value & 0xffff, read_cr0() & 0xffff, "SMSW is the low word of CR0");
}

static void check_machine_status_word(void)
{
    uint64_t cr0 = read_cr0();

    asm volatile("lmsw %w0" : : "r"(cr0 | CR0_TS));
    expect_equal(read_cr0(), cr0 | CR0_TS, "LMSW sets TS");
    asm volatile("lmsw %w0" : : "r"(0));
    expect_equal(read_cr0(), (cr0 & ~0xful) | CR0_PE, "LMSW clears MP, EM, TS but never PE");
    asm volatile("lmsw %w0" : : "r"(cr0));
    expect_equal(read_cr0(), cr0, "LMSW sets MP again");
}

static uint64_t flags_after_writing(uint64_t flags)
{
    uint64_t before = read_rflags(), seen;

    write_rflags(flags);
    seen = read_rflags();
    write_rflags(before);
    return seen;
}

static void check_flags(void)
{
    uint64_t base = 2;

    for (uint64_t level = 0; level < 4; level++)
        report(flags_after_writing(base | level << 12) == (base | level << 12),
               "POPF and PUSHF with IOPL %lu", level);
    expect_equal(flags_after_writing(base | FLAG_NT), base | FLAG_NT, "POPF sets NT");
    expect_equal(flags_after_writing(base | FLAG_IF), base | FLAG_IF, "POPF sets IF");
    expect_equal(flags_after_writing(base | FLAG_AC), base | FLAG_AC, "POPF sets AC");
    expect_equal(flags_after_writing(base | FLAG_ID), base | FLAG_ID, "POPF sets ID");
    expect_equal(flags_after_writing(base | FLAG_DF | FLAG_CF), base | FLAG_DF | FLAG_CF,
                 "POPF sets DF and CF");
    expect_equal(flags_after_writing(base | FLAG_VM), base, "POPF ignores VM");
    expect_equal(flags_after_writing(base | FLAG_RF), base, "POPF clears RF");
}

/* IF by its own instructions, at every IOPL, since a ring-1 kernel lives on an IOPL of 1. */
static void check_interrupt_flag(void)
{
    uint64_t on, off;
    bool right = true;

    for (uint64_t level = 0; level < 4; level++) {
        write_rflags(2 | level << 12);
        asm volatile("sti; pushf; pop %0; cli; pushf; pop %1" : "=r"(on), "=r"(off) : : "memory");
        right &= on == (2 | level << 12 | FLAG_IF) && off == (2 | level << 12);
    }
    write_rflags(2);
    report(right, "STI and CLI at every IOPL");
}

static void check_narrow_flags(void)
{
    uint16_t narrow;

    asm volatile("pushw $0x3003; popfw; pushfw; popw %0; pushw $2; popfw" : "=m"(narrow) : : "memory", "cc");
    expect_equal(narrow, 0x3003, "16-bit POPF and PUSHF with IOPL 3");
}

static void check_interrupt_frame(void)
{
    struct trap trap;
    uint64_t after;

    write_rflags(2 | FLAG_IOPL);
    trap = TRY_WITHIN("sti", ".byte 0xcd, 0x70", "pushf; pop %0; cli", : "=r"(after) : : "memory");
    write_rflags(2);
    expect_equal(trap.rflags & ~ARITHMETIC, 2 | FLAG_IOPL | FLAG_IF,
                 "an interrupt frame shows IOPL and IF");
    report(trap.cs == KERNEL_CS && trap.ss == KERNEL_SS, "an interrupt frame shows RPL 0");
    expect_equal(after & ~ARITHMETIC, 2 | FLAG_IOPL | FLAG_IF, "IRET brings IOPL and IF back");
}

static void check_iret_flags(void)
{
    uint64_t after;

    asm volatile("mov %%rsp, %%rax; pushq %2; push %%rax; pushq %3; pushq %1\n\t"
                 "lea 1f(%%rip), %%rax; push %%rax; iretq\n"
                 "1:\tpushf; pop %0"
                 : "=r"(after) : "i"(KERNEL_CS), "i"(KERNEL_SS), "i"(0x203002) : "rax", "memory", "cc");
    write_rflags(2);
    expect_equal(after, 0x203002, "IRET sets IOPL and ID");
}

static void check_null_segments(void)
{
    expect_none(TRY_WITHIN("mov %0, %%ss", "push %%rax; pop %%rax", "mov %1, %%ss",
                           : : "r"(0), "r"(KERNEL_SS) : "memory"), "null in SS works in ring 0");
    asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"(0));
    report(read_ds() == 0 && gdt[1] != 0, "null in DS works");
    asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"(KERNEL_SS));
    expect_trap(TRY("mov %0, %%ss", : : "r"(3)), GP, 0, "null with RPL 3 in SS is refused");
    expect_equal(read_cs() & 3, 0, "still ring 0 after null segments");
}

static void check_accessed_bit(void)
{
    gdt[SCRATCH] = descriptor(0, 0xfffff, ACCESS_DATA & ~1, FLAGS_32BIT);
    asm volatile("mov %0, %%fs" : : "r"(SCRATCH_SELECTOR) : "memory");
    expect_equal(gdt[SCRATCH] >> 40 & 0xff, ACCESS_DATA, "loading a segment sets its accessed bit");
    asm volatile("mov %0, %%fs" : : "r"(0) : "memory");
}

static void check_bases(void)
{
    uint64_t word = 0x1122334455667788, seen;

    wrmsr(MSR_FS_BASE, (uint64_t)&word - 8);
    asm volatile("mov %%fs:8, %0" : "=r"(seen) : : "memory");
    expect_equal(seen, word, "FS base by MSR");
    wrmsr(MSR_GS_BASE, 0x1000);
    wrmsr(MSR_KERNEL_GS_BASE, (uint64_t)&word);
    asm volatile("swapgs; mov %%gs:0, %0; swapgs" : "=r"(seen) : : "memory");
    expect_equal(seen, word, "SWAPGS");
    expect_equal(rdmsr(MSR_GS_BASE), 0x1000, "SWAPGS twice");
    gdt[SCRATCH] = descriptor((uint32_t)(uint64_t)&word, 0xfff, ACCESS_DATA, FLAGS_32BIT_BYTES);
    asm volatile("mov %1, %%fs; mov %%fs:0, %0" : "=r"(seen) : "r"(SCRATCH_SELECTOR) : "memory");
    expect_equal(seen, word, "FS base by descriptor");
    expect_equal(rdmsr(MSR_FS_BASE), (uint64_t)&word, "RDMSR shows the descriptor's base");
    asm volatile("mov %0, %%fs" : : "r"(0) : "memory");
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, 0);
}

/* SYSCALL from ring 0: RCX and R11 say where it came from, FMASK clears flags. */
static void check_syscall(void)
{
    uint64_t rcx, r11, target, flags;
    uint16_t cs, ss;

    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, (uint64_t)KERNEL_CS << 32);
    wrmsr(MSR_FMASK, FLAG_IF | FLAG_DF);
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, %%rdx; shr $32, %%rdx; mov %6, %%ecx; wrmsr\n\t"
                 "push $0x3602; popf; syscall\n"
                 "1:\tpushf; pop %2; mov %%cs, %3; mov %%ss, %4; lea 1b(%%rip), %%rax; mov %%r11, %%rdx"
                 : "=&c"(rcx), "=&a"(target), "=&r"(flags), "=&r"(cs), "=&r"(ss), "=&d"(r11)
                 : "i"(MSR_LSTAR) : "r11", "memory", "cc");
    write_rflags(2);
    expect_equal(r11, 0x3602, "SYSCALL in ring 0: R11 is RFLAGS, IOPL and all");
    expect_equal(rcx, target, "SYSCALL in ring 0: RCX is the next instruction");
    expect_equal(flags, 0x3002, "SYSCALL clears what FMASK says and keeps IOPL");
    report(cs == KERNEL_CS && ss == KERNEL_SS, "SYSCALL loads CS and SS from STAR");
}

void test_main(void)
{
    paging_init();
    check_selectors();
    check_far_call();
    check_access_rights();
    check_tables();
    check_machine_status_word();
    check_flags();
    check_interrupt_flag();
    check_narrow_flags();
    check_interrupt_frame();
    check_iret_flags();
    check_null_segments();
    check_accessed_bit();
    check_bases();
    check_syscall();
}
