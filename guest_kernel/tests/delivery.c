/* Delivery
 *
 * How an event reaches its handler in 64-bit mode: interrupt and trap gates, the alignment of the
 * frame, what is saved and what is cleared, the interrupt stack table, and what happens when
 * delivery itself fails: error codes that point at the IDT, contributory faults, the double
 * fault. */
#include "lib/test.h"

const char test_title[] = "Event delivery through the IDT";

enum { IN_IDT = 2, EXTERNAL = 1, VECTOR = 0x70 };
#define IDT_ERROR(vector) ((vector) * 8ul + IN_IDT)
#define INT_70 ".byte 0xcd, 0x70"


static void check_alignment(void)
{
    bool aligned = true, saved = true;
    uint64_t rsp;

    for (uint64_t shift = 0; shift < 16; shift++) {
        struct trap trap = TRY_WITHIN("mov %%rsp, %%rbx; sub %1, %%rsp; mov %%rsp, %0", INT_70,
                                      "mov %%rbx, %%rsp", : "=&r"(rsp) : "r"(shift)
                                      : "rbx", "memory", "cc");
        aligned &= (trap.frame + 40) % 16 == 0 && trap.frame + 40 <= rsp;
        saved &= trap.rsp == rsp;
    }
    report(aligned, "the frame is aligned to 16 bytes");
    report(saved, "the saved RSP is that of before");
}

static void check_gate_types(void)
{
    struct trap trap;

    gate_set(VECTOR, trap_stub(VECTOR), GATE_INTERRUPT, 0);
    trap = TRY_WITHIN("sti", INT_70, "cli", : : : "memory");
    report(trap.rflags & FLAG_IF && !(trap.handler_flags & FLAG_IF), "an interrupt gate clears IF");
    gate_set(VECTOR, trap_stub(VECTOR), GATE_TRAP, 0);
    trap = TRY_WITHIN("sti", INT_70, "cli", : : : "memory");
    report(trap.rflags & FLAG_IF && trap.handler_flags & FLAG_IF, "a trap gate keeps IF");
    gate_reset(VECTOR);
    expect_equal(trap.cs, KERNEL_CS, "the saved CS is the kernel's, RPL 0");
    expect_equal(trap.ss, KERNEL_SS, "the saved SS is the kernel's, RPL 0");
}

/* NT may not be set at an IRET in 64-bit mode, so the handler takes it out of the frame. */
static void note_without_nt(struct trap_frame *frame)
{
    trap_note(frame);
    frame->rflags &= ~FLAG_NT;
}

static void check_cleared_flags(void)
{
    trap_handle(VECTOR, note_without_nt);
    trap_forget();
    asm volatile("pushf; orl $0x44400, (%%rsp); popf; " INT_70 "; cld" : : : "memory", "cc");
    trap_handle(VECTOR, NULL);
    write_rflags(read_rflags() & ~FLAG_AC);
    report(caught.rflags & FLAG_NT && !(caught.handler_flags & FLAG_NT),
           "NT is saved, then cleared");
    report(caught.rflags & FLAG_AC && caught.handler_flags & FLAG_AC, "AC is saved and kept");
    report(caught.rflags & FLAG_DF && caught.handler_flags & FLAG_DF, "DF is saved and kept");
    expect_trap(TRY_WITHIN("pushf; orl $0x4000, (%%rsp); popf", "iretq",
                           "pushf; andl $~0x4000, (%%rsp); popf", : : : "memory", "cc"),
                GP, 0, "IRET with NT in 64-bit mode");
}

static void check_stack_table(void)
{
    struct trap trap;

    gate_set(VECTOR, trap_stub(VECTOR), GATE_INTERRUPT, IST_TEST);
    trap = TRY(INT_70);
    expect_equal(trap.frame + 40, tss.ist[IST_TEST], "IST: the frame is at the top of its stack");
    gate_set(SS, trap_stub(SS), GATE_INTERRUPT, IST_TEST);
    trap = TRY_WITHIN("mov %%rsp, %%rbx; mov %0, %%rsp", "push %%rax", "mov %%rbx, %%rsp",
                      : : "r"(NON_CANONICAL) : "rbx", "memory");
    expect_trap(trap, SS, 0, "#SS: PUSH with a non-canonical RSP");
    expect_equal(trap.rsp, NON_CANONICAL, "#SS: the saved RSP is the bad one");
    gate_reset(SS);
    gate_reset(VECTOR);
}

static void check_bad_gates(void)
{
    struct gate *gate = &idt[VECTOR];

    gate->type &= ~0x80;
    expect_trap(TRY(INT_70), NP, IDT_ERROR(VECTOR), "gate not present");
    gate->type = 0x8c;                   /* a call gate has no place in the IDT */
    expect_trap(TRY(INT_70), GP, IDT_ERROR(VECTOR), "gate of a wrong type");
    gate->type = 0x85;
    expect_trap(TRY(INT_70), GP, IDT_ERROR(VECTOR), "task gate in 64-bit mode");
    gate_reset(VECTOR);
    idt_load_limit(16 * VECTOR + 14);
    expect_trap(TRY(INT_70), GP, IDT_ERROR(VECTOR), "gate beyond the IDT's limit");
    idt_load();
}

static struct trap with_gate_selector(uint16_t selector)
{
    idt[VECTOR].selector = selector;
    struct trap trap = TRY(INT_70);
    gate_reset(VECTOR);
    return trap;
}

static void check_bad_targets(void)
{
    expect_trap(with_gate_selector(0), GP, 0, "gate with a null selector");
    expect_trap(with_gate_selector(KERNEL_SS), GP, KERNEL_SS, "gate to a data segment");
    expect_trap(with_gate_selector(KERNEL_CS32), GP, KERNEL_CS32, "gate to a 32-bit segment");
    expect_trap(with_gate_selector(0xfff8), GP, 0xfff8, "gate beyond the GDT");
    gdt[SCRATCH] = descriptor(0, 0xfffff, ACCESS_CODE & ~ACCESS_PRESENT, FLAGS_LONG);
    expect_trap(with_gate_selector(SCRATCH_SELECTOR), NP, SCRATCH_SELECTOR,
                "gate to a missing segment");
    gdt[SCRATCH] = descriptor(0, 0xfffff, ACCESS_CODE | ACCESS_DPL3, FLAGS_LONG);
    expect_trap(with_gate_selector(SCRATCH_SELECTOR), GP, SCRATCH_SELECTOR,
                "gate to a less privileged segment");
    if (spared("gate to a non-canonical address"))
        return;
    gate_set(VECTOR, (void *)NON_CANONICAL, GATE_INTERRUPT, 0);
    expect_trap(TRY(INT_70), GP, 0, "gate to a non-canonical address");
    gate_reset(VECTOR);
}

/* An exception counts as an external event for the second fault; INT n, INT3 and INTO do not. */
static void check_external_bit(void)
{
    idt[UD].type &= ~0x80;
    expect_trap(TRY("ud2"), NP, IDT_ERROR(UD) + EXTERNAL, "benign fault, then #NP: EXT set");
    gate_reset(UD);
    idt[BP].type &= ~0x80;
    expect_trap(TRY("int3"), NP, IDT_ERROR(BP), "INT3, then #NP: EXT clear");
    gate_reset(BP);
    idt[UD].selector = 0;
    expect_trap(TRY("ud2"), GP, EXTERNAL, "gate of a fault with a null selector: EXT alone");
    gate_reset(UD);
}

static void resume_after_double_fault(struct trap_frame *frame)
{
    try_abandon(frame);
}

static void raise_general_protection(void *unused)
{
    (void)unused;
    *(volatile int *)NON_CANONICAL = 0;
}

static void raise_page_fault(void *unused)
{
    (void)unused;
    *(volatile int *)TEST_AREA = 0;
}

static void check_double_fault(void)
{
    struct trap trap;

    trap_handle(DF, resume_after_double_fault);
    idt[GP].type &= ~0x80;
    trap = try_call(raise_general_protection, NULL);
    expect_trap(trap, DF, 0, "#GP then #NP: double fault");
    expect_equal(trap.frame + 40, tss.ist[IST_DOUBLE_FAULT],
                 "the double fault is on its IST stack");
    gate_reset(GP);
    idt[PF].type &= ~0x80;
    expect_trap(try_call(raise_page_fault, NULL), DF, 0, "#PF then #NP: double fault");
    gate_reset(PF);
    trap_handle(DF, NULL);
}

/* With the test stack in a missing page: a fault while the frame is pushed. */
static void check_faults_of_the_push(void)
{
    uint64_t stack = tss.ist[IST_TEST];
    struct trap trap;

    tss.ist[IST_TEST] = TEST_AREA + 0x1000;
    trap_handle(DF, resume_after_double_fault);
    gate_set(PF, trap_stub(PF), GATE_INTERRUPT, IST_TEST);
    expect_trap(try_call(raise_page_fault, NULL), DF, 0, "#PF while pushing for #PF: double fault");
    gate_reset(PF);
    gate_set(GP, trap_stub(GP), GATE_INTERRUPT, IST_TEST);
    trap = try_call(raise_general_protection, NULL);
    expect_trap(trap, PF, PF_WRITE, "#PF while pushing for #GP: delivered as #PF");
    expect_equal(trap.cr2, TEST_AREA + 0xff8, "#PF while pushing: CR2 is SS's slot");
    gate_reset(GP);
    trap_handle(DF, NULL);
    tss.ist[IST_TEST] = stack;
}

static void reload_task_register(uint32_t limit)
{
    uint64_t base = (uint64_t)&tss;

    gdt[TSS_SELECTOR / 8] = descriptor((uint32_t)base, limit, ACCESS_TSS, 0);
    asm volatile("ltr %w0" : : "r"(TSS_SELECTOR) : "memory");
}

static void check_short_tss(void)
{
    gate_set(VECTOR, trap_stub(VECTOR), GATE_INTERRUPT, IST_TEST);
    reload_task_register(0x67);
    expect_equal(gdt[TSS_SELECTOR / 8] >> 40 & 0xff, ACCESS_TSS_BUSY, "LTR marks the TSS busy");
    expect_trap(TRY(INT_70), VECTOR, 0, "IST 3 within the TSS's limit");
    reload_task_register(0x3a);          /* IST 3 is at 0x34 to 0x3b */
    expect_trap(TRY(INT_70), TS, TSS_SELECTOR, "#TS: IST 3 beyond the TSS's limit");
    reload_task_register(sizeof tss - 1);
    gate_reset(VECTOR);
}

void test_main(void)
{
    paging_init();
    check_alignment();
    check_gate_types();
    check_cleared_flags();
    check_stack_table();
    check_bad_gates();
    check_bad_targets();
    check_external_bit();
    check_double_fault();
    check_faults_of_the_push();
    check_short_tss();
}
