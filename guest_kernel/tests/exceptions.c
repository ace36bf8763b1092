/* Exceptions
 *
 * Every vector that software can raise in ring 0: is it the right vector, with the right error
 * code, the right saved RIP (at the instruction for a fault, after it for a trap), the right CR2,
 * DR6 and RF?  How an event then reaches its handler is the subject of delivery.c. */
#include "lib/test.h"

const char test_title[] = "Exceptions, every vector";

enum { DR6_B0 = 1, DR6_B1 = 2, DR6_BD = 1 << 13, DR6_BS = 1 << 14 };
#define DR6_IDLE 0xffff0ff0ul
#define DR7_GD (1ul << 13)

static int faults, faults_with_rf, traps, traps_with_rf;

static void expect_fault(struct trap trap, int vector, uint64_t error_code, const char *name)
{
    if (!expect_trap(trap, vector, error_code, name))
        return;
    report(!trap.after, "%s: RIP at the instruction", name);
    faults++;
    faults_with_rf += !!(trap.rflags & FLAG_RF);
}

static void expect_after(struct trap trap, int vector, const char *name)
{
    if (!expect_trap(trap, vector, 0, name))
        return;
    report(trap.after, "%s: RIP after the instruction", name);
    traps++;
    traps_with_rf += !!(trap.rflags & FLAG_RF);
}

static void check_divide(void)
{
    uint64_t rax = 1, rdx = 0;

    expect_fault(TRY("divl %2", : "+a"(rax), "+d"(rdx) : "r"(0)), DE, 0, "#DE: divide by zero");
    rax = 1;
    rdx = 5;
    expect_fault(TRY("divl %2", : "+a"(rax), "+d"(rdx) : "r"(5)), DE, 0, "#DE: quotient too large");
    rax = 0x8000000000000000;
    rdx = ~0ul;
    expect_fault(TRY("idivq %2", : "+a"(rax), "+d"(rdx) : "r"(-1l)), DE, 0, "#DE: IDIV overflow");
    report(rax == 0x8000000000000000 && rdx == ~0ul, "#DE leaves RAX and RDX alone");
}

static void check_breakpoints(void)
{
    expect_after(TRY("int3"), BP, "#BP: INT3");
    expect_after(TRY(".byte 0xcd, 3"), BP, "#BP: INT 3 in two bytes");
    expect_none(TRY_COMPAT("into", : : : "memory", "cc"), "INTO without overflow");
}

#define OVERFLOW "mov $0x7fffffff, %%eax; add $1, %%eax"

static void check_compatibility_only(void)
{
    static const uint32_t bounds[2] = { 10, 20 };
    struct trap trap;

    trap = TRY_WITHIN("ljmpl *773f(%%rip)\n773:\t.long 774f\n\t.short 0x38\n774:\t.code32\n\t" OVERFLOW,
                      "into", "ljmpl $8, $775f\n\t.code64\n775:", : : : "rax", "memory", "cc");
    expect_after(trap, OF, "#OF: INTO in 32-bit code");
    trap = TRY_COMPAT("bound %%eax, (%%ecx)", : : "a"(21), "c"(bounds) : "memory");
    expect_fault(trap, BR, 0, "#BR: BOUND in 32-bit code");
    trap = TRY_COMPAT("bound %%eax, (%%ecx)", : : "a"(20), "c"(bounds) : "memory");
    expect_none(trap, "BOUND within its bounds");
    expect_fault(TRY(".byte 0xce"), UD, 0, "#UD: INTO in 64-bit code");
}

static void check_invalid(void)
{
    expect_fault(TRY("ud2"), UD, 0, "#UD: UD2");
    expect_fault(TRY(".byte 0x06"), UD, 0, "#UD: PUSH ES in 64-bit code");
    expect_fault(TRY(".byte 0xf0, 0x90"), UD, 0, "#UD: LOCK on an instruction that has none");
    expect_fault(TRY(".byte 0x8e, 0xc8", : : "a"(8)), UD, 0, "#UD: MOV to CS");
    expect_fault(TRY(".byte 0x0f, 0xff, 0xc0"), UD, 0, "#UD: UD0");
}

static void check_device_not_available(void)
{
    uint64_t cr0 = read_cr0();

    write_cr0(cr0 | CR0_TS);
    expect_fault(TRY("fninit"), NM, 0, "#NM: x87 with CR0.TS");
    expect_fault(TRY("xorps %%xmm0, %%xmm0", : : : ), NM, 0, "#NM: SSE with CR0.TS");
    expect_fault(TRY("fwait"), NM, 0, "#NM: FWAIT with CR0.TS and MP");
    write_cr0((cr0 | CR0_TS) & ~CR0_MP);
    expect_none(TRY("fwait"), "FWAIT with CR0.TS but not MP");
    write_cr0(cr0 | CR0_EM);
    expect_fault(TRY("fninit"), NM, 0, "#NM: x87 with CR0.EM");
    expect_fault(TRY("xorps %%xmm0, %%xmm0", : : : ), UD, 0, "#UD: SSE with CR0.EM");
    write_cr0(cr0);
}

static void check_segments(void)
{
    gdt[SCRATCH] = descriptor(0, 0xfffff, ACCESS_DATA & ~ACCESS_PRESENT, FLAGS_32BIT);
    expect_fault(TRY("mov %0, %%fs", : : "r"(SCRATCH_SELECTOR)), NP, SCRATCH_SELECTOR,
                 "#NP: data segment not present");
    expect_fault(TRY("mov %0, %%ss", : : "r"(SCRATCH_SELECTOR)), SS, SCRATCH_SELECTOR,
                 "#SS: stack segment not present");
    expect_fault(TRY("mov %0, %%fs", : : "r"(0xfff8)), GP, 0xfff8, "#GP: selector beyond the GDT");
    expect_fault(TRY("mov %0, %%fs", : : "r"(0xc)), GP, 0xc, "#GP: selector in a missing LDT");
    expect_fault(TRY("mov %0, %%ss", : : "r"(KERNEL_CS)), GP, KERNEL_CS, "#GP: code segment in SS");
    expect_fault(TRY("mov %0, %%ss", : : "r"(KERNEL_SS | 3)), GP, KERNEL_SS,
                 "#GP: SS with RPL other than CPL");
    expect_fault(TRY("mov %0, %%fs", : : "r"(TSS_SELECTOR)), GP, TSS_SELECTOR, "#GP: TSS in FS");
    expect_fault(TRY("ltr %w0", : : "r"(TSS_SELECTOR)), GP, TSS_SELECTOR, "#GP: LTR of a busy TSS");
    expect_fault(TRY("ltr %w0", : : "r"(0)), GP, 0, "#GP: LTR of null");
}

static void check_addresses(void)
{
    uint64_t value;
    struct trap trap;

    expect_fault(TRY("mov (%1), %0", : "=r"(value) : "r"(NON_CANONICAL)), GP, 0,
                 "#GP: non-canonical address");
    trap = TRY_WITHIN("push %%rbp; mov %1, %%rbp", "mov (%%rbp), %0", "pop %%rbp", : "=a"(value)
                      : "r"(NON_CANONICAL) : "memory");
    expect_fault(trap, SS, 0, "#SS: non-canonical address through RBP");
    expect_fault(TRY("movaps 1(%0), %%xmm0", : : "r"(gdt)), GP, 0, "#GP: misaligned MOVAPS");
    if (spared("#GP: RET and JMP to a non-canonical address"))
        return;
    trap = TRY_WITHIN("push %0", "ret", "add $8, %%rsp", : : "r"(NON_CANONICAL) : "memory");
    expect_fault(trap, GP, 0, "#GP: RET to a non-canonical address");
    expect_fault(TRY("jmp *%0", : : "r"(NON_CANONICAL)), GP, 0,
                 "#GP: JMP to a non-canonical address");
}

static void check_page_fault(void)
{
    struct trap trap = TRY("movl $1, 0x123(%0)", : : "r"(TEST_AREA) : "memory");

    expect_fault(trap, PF, PF_WRITE, "#PF: write to a missing page");
    expect_equal(trap.cr2, TEST_AREA + 0x123, "#PF: CR2 is the exact address");
}

static void check_floating_point(void)
{
    static const uint16_t unmask_zero_divide = 0x37b;
    static const uint32_t sse_unmask_zero_divide = 0x1d80, sse_default = 0x1f80;
    struct trap trap;

    trap = TRY_WITHIN("fninit; fldcw %0; fldz; fld1; fdiv %%st(1), %%st", "fwait", "fninit",
                      : : "m"(unmask_zero_divide));
    expect_fault(trap, MF, 0, "#MF: pending x87 divide by zero");
    trap = TRY_WITHIN("ldmxcsr %0; xorps %%xmm1, %%xmm1; mov $1, %%eax; cvtsi2ss %%eax, %%xmm0",
                      "divss %%xmm1, %%xmm0", "ldmxcsr %1",
                      : : "m"(sse_unmask_zero_divide), "m"(sse_default) : "rax");
    if (trap.vector == NO_TRAP)
        report_skip("#XM: this machine has no SSE exceptions");
    else
        expect_fault(trap, XM, 0, "#XM: unmasked SSE divide by zero");
}

#define SET_TF "pushf; orl $0x100, (%%rsp); popf"

static void check_single_step(void)
{
    struct trap trap;

    write_dr6(DR6_IDLE);
    trap = TRY_WITHIN(SET_TF, "nop", "", : : : "memory", "cc");
    expect_after(trap, DB, "#DB: single step");
    expect_equal(read_dr6(), DR6_IDLE | DR6_BS, "#DB: DR6.BS after a single step");
    report(!(trap.handler_flags & FLAG_TF) && trap.rflags & FLAG_TF, "#DB: TF saved and cleared");
    trap = TRY_WITHIN(SET_TF "; mov %0, %%ss", "nop", "", : : "r"(KERNEL_SS) : "memory", "cc");
    expect_after(trap, DB, "#DB: MOV SS holds the single step back");
    write_dr6(DR6_IDLE);
    expect_after(TRY(".byte 0xf1"), DB, "#DB: ICEBP");
    expect_equal(read_dr6(), DR6_IDLE, "#DB: ICEBP leaves DR6");
}

static void check_code_breakpoint(void)
{
    struct trap trap;

    write_dr6(DR6_IDLE);
    trap = TRY_WITHIN("lea 771f(%%rip), %%rax; mov %%rax, %%dr0; mov %0, %%dr7", "nop", "",
                      : : "r"(0x402ul) : "rax", "memory");
    write_dr7(0);
    expect_trap(trap, DB, 0, "#DB: code breakpoint");
    report(trap.vector == DB && !trap.after, "#DB: code breakpoint is a fault");
    expect_equal(read_dr6(), DR6_IDLE | DR6_B0, "#DB: DR6.B0 after a code breakpoint");
}

static int breakpoint_hits;

static void resume_with_rf(struct trap_frame *frame)
{
    breakpoint_hits++;
    frame->rflags |= FLAG_RF;
}

static void check_resume_flag(void)
{
    uint64_t count = 0;

    trap_handle(DB, resume_with_rf);
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, %%dr0; mov %1, %%dr7\n"
                 "1:\tinc %0; cmp $2, %0; jb 1b"
                 : "+r"(count) : "r"(0x402ul) : "rax", "memory", "cc");
    write_dr7(0);
    trap_handle(DB, NULL);
    report(count == 2 && breakpoint_hits == 2, "RF in the frame lets one instruction pass, once");
}

static void check_data_breakpoint(void)
{
    static volatile uint32_t watched;
    struct trap trap;

    write_dr6(DR6_IDLE);
    write_dr1((uint64_t)&watched);
    write_dr7(0x400 | 2ul << 2 | 0xdul << 20);    /* G1, four bytes, writes */
    trap = TRY("movl $5, %0", : "=m"(watched) : : "memory");
    write_dr7(0);
    expect_after(trap, DB, "#DB: data breakpoint");
    expect_equal(read_dr6(), DR6_IDLE | DR6_B1, "#DB: DR6.B1 after a data breakpoint");
    expect_equal(watched, 5, "#DB: the watched store has happened");
}

static void check_debug_guard(void)
{
    uint64_t value, dr7;
    struct trap trap;

    write_dr6(DR6_IDLE);
    write_dr7(DR7_GD | 0x400);
    trap = TRY("mov %%dr3, %0", : "=r"(value) : : "memory");
    dr7 = read_dr7();
    write_dr7(0);
    expect_trap(trap, DB, 0, "#DB: general detect");
    report(!trap.after && read_dr6() == (DR6_IDLE | DR6_BD), "#DB: general detect sets DR6.BD");
    expect_equal(dr7, 0x400, "#DB: general detect is off in the handler");
    write_dr6(DR6_IDLE);
}

/* Three bytes each: INT n, RET. */
static uint8_t interrupts[256][4];

static void call_interrupt(void *code)
{
    ((void (*)(void))code)();
}

static void note_and_return(struct trap_frame *frame)
{
    trap_note(frame);
}

static void check_software_interrupts(void)
{
    int right = 0;

    for (int vector = 32; vector < 256; vector++) {
        memcpy(interrupts[vector], (uint8_t[]){ 0xcd, (uint8_t)vector, 0xc3 }, 3);
        trap_handle(vector, note_and_return);
        struct trap trap = try_call(call_interrupt, interrupts[vector]);
        right += trap_is(trap, vector, 0) && trap.rip == (uint64_t)interrupts[vector] + 2;
        trap_handle(vector, NULL);
    }
    expect_equal(right, 224, "INT 32 to 255: vector and RIP");
}

void test_main(void)
{
    paging_init();
    check_divide();
    check_single_step();
    check_code_breakpoint();
    check_resume_flag();
    check_data_breakpoint();
    check_debug_guard();
    check_breakpoints();
    check_compatibility_only();
    check_invalid();
    check_device_not_available();
    check_segments();
    check_addresses();
    check_page_fault();
    check_floating_point();
    check_software_interrupts();
    expect_equal(faults_with_rf, faults, "RF is set in the frame of every fault");
    expect_equal(traps_with_rf, 0, "RF is clear in the frame of every trap");
}
