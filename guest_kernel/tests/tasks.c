/* Hardware task switches
 *
 * CALL, JMP, IRET and gates to 32-bit and 16-bit tasks, with and without paging: what the new task
 * finds, what the old one gets back, the busy bits, the back link, NT, CR0.TS, and the faults.  The
 * tasks are in asm/tasks32.S. */
#include "lib/legacy.h"
#include "lib/test.h"
#include "tests/asm/tasks.h"

const char test_title[] = "Hardware task switches";

#define LOW(pointer) ((uint32_t)(uint64_t)(pointer))
enum { BUSY = 2, TSS32_FREE = 9, TSS16_FREE = 1, GATE_TASK = 0x85, STACK_BYTES = 4096 };
enum { IN_LDT = 4, LDT_PATTERN = 0x1d71d7, CR4_LARGE_PAGES = 0x10, LARGE_PAGE = 0x83 };

struct tss32 {
    uint32_t link, stacks[6], cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, io_map_base;
};

struct tss16 {
    uint16_t link, stacks[6], ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
};

extern char tasks32_run[], tasks32_other[], tasks32_fault[], tasks32_back[], tasks16[];
extern uint32_t in_other[SEEN_WORDS], after_switch[SEEN_WORDS], before_switch;
extern uint32_t resume_at;               /* of a trap; 0 = at the end of tasks32_run */

struct tss32 task_main, task_other;
static struct tss16 task_16;
static uint64_t ldt[2];
static uint32_t ldt_data = LDT_PATTERN;
static uint8_t other_stack[STACK_BYTES] __attribute__((aligned(16)));
static uint32_t directories[2][1024] __attribute__((aligned(4096)));
static bool paged;
static const char *mode;

static unsigned type_of(unsigned selector)
{
    return gdt[selector / 8] >> 40 & 15;
}

static void prepare(uint32_t back)
{
    memset(in_other, 0, sizeof in_other);
    memset(after_switch, 0, sizeof after_switch);
    memset(&legacy_trap, 0xff, sizeof legacy_trap);
    task_main = (struct tss32){ .cr3 = LOW(directories[0]), .io_map_base = sizeof task_main };
    task_other = (struct tss32){
        .cr3 = LOW(directories[1]), .eip = LOW(tasks32_other), .eflags = 2 | FLAG_CF,
        .eax = 0xaaaa5555, .ebx = back, .esp = LOW(other_stack + STACK_BYTES - 16),
        .ebp = 0xb0b0b0b0, .edi = 0xd1d1d1d1,
        .es = KERNEL_SS, .cs = KERNEL_CS32, .ss = KERNEL_SS, .ds = KERNEL_SS, .fs = KERNEL_DS16,
        .gs = IN_LDT, .ldt = TASK_LDT, .io_map_base = sizeof task_other,
    };
    task_16 = (struct tss16){ .ip = 0, .flags = 2, .ax = 0x1616, .sp = LOW_STACK, .di = 0x6161,
                              .es = KERNEL_SS, .cs = TASK_CODE16, .ss = KERNEL_DS16,
                              .ds = KERNEL_SS };
    ldt[0] = descriptor(LOW(&ldt_data), 3, ACCESS_DATA, FLAGS_32BIT_BYTES);
    gdt[TASK_MAIN / 8] = descriptor(LOW(&task_main), sizeof task_main - 1, ACCESS_TSS, 0);
    gdt[TASK_OTHER / 8] = descriptor(LOW(&task_other), sizeof task_other - 1, ACCESS_TSS, 0);
    gdt[TASK_16 / 8] = descriptor(LOW(&task_16), sizeof task_16 - 1, 0x81, 0);
    gdt[TASK_GATE / 8] = gate32(0, TASK_OTHER, GATE_TASK);
    gdt[TASK_CODE16 / 8] = descriptor(LOW(tasks16), 0xffff, ACCESS_CODE, FLAGS_16BIT);
    gdt[TASK_LDT / 8] = descriptor(LOW(ldt), sizeof ldt - 1, ACCESS_LDT, 0);
}

static void run(uint32_t how)
{
    struct legacy_call call = { .code = LOW(tasks32_run), .argument = how, .cr0 = CR0_PE };

    if (paged) {
        call.cr0 |= (uint32_t)CR0_PG;
        call.cr3 = LOW(directories[0]);
        call.cr4 = CR4_LARGE_PAGES;
    }
    legacy_call(&call);
    gdt[TSS_SELECTOR / 8] &= ~((uint64_t)BUSY << 40);
    asm volatile("ltr %w0" : : "r"(TSS_SELECTOR) : "memory");
}

#define CHECK(condition, what) report(condition, "%s: " what, mode)

static void check_other(bool nested)
{
    CHECK(in_other[SEEN_EAX] == 0xaaaa5555 && in_other[SEEN_EBP] == 0xb0b0b0b0
          && in_other[SEEN_EDI] == 0xd1d1d1d1, "the new task has its registers");
    CHECK(in_other[SEEN_EFLAGS] == (2 | FLAG_CF | (nested ? FLAG_NT : 0)), "NT and the new EFLAGS");
    CHECK(in_other[SEEN_TR] == TASK_OTHER, "TR");
    CHECK(in_other[SEEN_LDT] == TASK_LDT && in_other[SEEN_GS_DATA] == LDT_PATTERN,
          "LDTR, a segment of it");
    CHECK(in_other[SEEN_FS] == KERNEL_DS16, "FS");
    CHECK(in_other[SEEN_CR0] & CR0_TS, "CR0.TS");
    CHECK(!paged || in_other[SEEN_CR3] == LOW(directories[1]), "CR3");
    CHECK(!(in_other[SEEN_DR7] & 1), "DR7.L0 is clear");
    CHECK(ldt[0] >> 40 & 1 && task_other.cs == KERNEL_CS32, "segments are marked accessed");
    if (nested)
        CHECK(task_other.link == TASK_MAIN, "the back link");
}

static void check_back(void)
{
    CHECK(after_switch[SEEN_EBP] == 0x11111111 && after_switch[SEEN_EDI] == 0x22222222
          && after_switch[SEEN_ESP] == before_switch, "the old task has its registers again");
    CHECK(after_switch[SEEN_TR] == TASK_MAIN && !(after_switch[SEEN_EFLAGS] & FLAG_NT),
          "TR and NT are back");
    CHECK(!paged || after_switch[SEEN_CR3] == LOW(directories[0]), "CR3 is back");
    CHECK(type_of(TASK_MAIN) == (TSS32_FREE | BUSY) && type_of(TASK_OTHER) == TSS32_FREE,
          "busy bits");
}

static void check_round(uint32_t how, uint32_t back, const char *name)
{
    mode = name;
    prepare(back);
    run(how);
    check_other(how != BY_JMP);
    check_back();
}

static void check_gates(void)
{
    uint64_t general_protection = idt32[GP];

    check_round(BY_GATE, BACK_BY_IRET, paged ? "paged, CALL task gate" : "CALL task gate");
    idt32[TASK_VECTOR] = gate32(0, TASK_OTHER, GATE_TASK);
    check_round(BY_INT, BACK_BY_IRET, paged ? "paged, INT task gate" : "INT task gate");
    idt32[GP] = gate32(0, TASK_OTHER, GATE_TASK);
    check_round(BY_FAULT, BACK_AFTER_FAULT, paged ? "paged, #GP task gate" : "#GP task gate");
    CHECK(in_other[SEEN_TOP] == 0xfff8 && in_other[SEEN_ESP] == LOW(other_stack + STACK_BYTES - 20),
          "the error code is on the new stack");
    CHECK(in_other[SEEN_SAVED_EIP] == LOW(tasks32_fault), "the saved EIP is at the instruction");
    report(in_other[SEEN_SAVED_EFLAGS] & FLAG_RF, "%s: the saved EFLAGS have RF", mode);
    idt32[GP] = general_protection;
}

static void check_16bit(void)
{
    mode = paged ? "paged, 16-bit task" : "16-bit task";
    prepare(0);
    run(BY_CALL16);
    CHECK((in_other[SEEN_EAX] & 0xffff) == 0x1616 && in_other[SEEN_EDI] == 0x6161
          && in_other[SEEN_ESP] == LOW_STACK, "the new task has its registers");
    CHECK(in_other[SEEN_TR] == TASK_16 && in_other[SEEN_EFLAGS] & FLAG_NT, "TR and NT");
    CHECK(in_other[SEEN_FS] == 0, "FS is null");
    CHECK(task_16.link == TASK_MAIN && task_16.flags == 2,
          "the back link; NT is not saved by IRET");
    CHECK(type_of(TASK_16) == TSS16_FREE, "not busy after IRET");
    check_back();
}

static void expect_legacy(unsigned vector, uint32_t error_code, const char *name)
{
    report(legacy_trap.vector == vector && legacy_trap.error_code == error_code, "%s%s",
           paged ? "paged, " : "", name);
}

static void check_faults_before(void)
{
    prepare(0);
    gdt[TASK_OTHER / 8] |= (uint64_t)BUSY << 40;
    run(BY_CALL);
    expect_legacy(GP, TASK_OTHER, "CALL of a busy task: #GP");
    prepare(0);
    gdt[TASK_OTHER / 8] &= ~((uint64_t)ACCESS_PRESENT << 40);
    run(BY_CALL);
    expect_legacy(NP, TASK_OTHER, "CALL of a task not present: #NP");
    prepare(0);
    gdt[TASK_OTHER / 8] = descriptor(LOW(&task_other), 0x66, ACCESS_TSS, 0);
    run(BY_CALL);
    expect_legacy(TS, TASK_OTHER, "CALL of a TSS too short: #TS");
    prepare(0);
    task_main.link = TASK_OTHER;
    run(BY_IRET);
    expect_legacy(TS, TASK_OTHER, "IRET to a task that is not busy: #TS");
    prepare(0);
    task_main.link = TASK_OTHER;
    task_other.ebx = BACK_BY_JMP;
    gdt[TASK_OTHER / 8] |= (uint64_t)BUSY << 40;
    run(BY_IRET);
    report(in_other[SEEN_TR] == TASK_OTHER && !(in_other[SEEN_EFLAGS] & FLAG_NT)
           && !(in_other[SEEN_SAVED_EFLAGS] & FLAG_NT),
           "%sIRET to a busy task, NT cleared in the image", paged ? "paged, " : "");
}

/* These come in the new task: the handler's frame resumes it at tasks32_back. */
static void check_fault_inside(uint32_t *selector, uint32_t value, unsigned vector,
                               const char *name)
{
    uint32_t *frame = (uint32_t *)(other_stack + STACK_BYTES - 32);

    prepare(BACK_BY_JMP);
    *selector = value;
    idt32[vector] = gate32(LOW(tasks32_back), KERNEL_CS32, GATE_INTERRUPT);
    run(BY_JMP);
    legacy_init();
    report(frame[0] == (value & 0xfffc) && frame[1] == LOW(tasks32_other) && !in_other[SEEN_TR],
           "%s%s", paged ? "paged, " : "", name);
}

static void check_faults_inside(void)
{
    check_fault_inside(&task_other.ds, 0xff8, TS, "DS beyond the GDT: #TS in the new task");
    check_fault_inside(&task_other.es, KERNEL_CS32 + 0x68, TS, "a TSS in ES: #TS in the new task");
    gdt[SCRATCH + 6] = descriptor(0, 0xfffff, ACCESS_DATA & ~ACCESS_PRESENT, FLAGS_32BIT);
    check_fault_inside(&task_other.fs, SCRATCH_SELECTOR + 48, NP,
                       "FS not present: #NP in the new task");
}

static void check_trap_bit(void)
{
    prepare(BACK_BY_JMP);
    task_other.trap = 1;
    write_dr6(0xffff0ff0);
    resume_at = LOW(tasks32_back);
    run(BY_JMP);
    resume_at = 0;
    report(legacy_trap.vector == DB && read_dr6() & 1 << 15, "%sT in the TSS: #DB with DR6.BT",
           paged ? "paged, " : "");
    write_dr6(0xffff0ff0);
}

static void check_all(void)
{
    check_round(BY_CALL, BACK_BY_IRET, paged ? "paged, CALL" : "CALL");
    check_round(BY_JMP, BACK_BY_JMP, paged ? "paged, JMP" : "JMP");
    check_gates();
    check_16bit();
    check_faults_before();
    check_faults_inside();
    check_trap_bit();
}

void test_main(void)
{
    paging_init();
    legacy_init();
    for (uint32_t i = 0; i < 1024; i++)
        directories[0][i] = directories[1][i] = i << 22 | LARGE_PAGE;
    check_all();
    paged = true;
    check_all();
}
