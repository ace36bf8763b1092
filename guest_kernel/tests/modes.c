/* Modes
 *
 * Every mode a boot path knows, and the ways between them: long, compatibility, 32-bit and 16-bit
 * protected mode with segments that have bases, real mode with its interrupt vector table, "unreal"
 * mode, V8086 mode under a monitor, and the rings 1 and 2 that nobody uses any more.  The code for the
 * older modes is in asm/modes16.S and asm/modes32.S; here is what it must have seen. */
#include "lib/legacy.h"
#include "lib/test.h"
#include "tests/asm/modes.h"

const char test_title[] = "Modes and the ways between them";

enum { TSS32 = 0x90, DATA_WITH_BASE = 0x50, CODE_WITH_BASE = 0x58, CODE16_LOW = 0x60,
    GATE_ASK = 0x68,
       GATE_LEAVE = 0x70, RING_CS = 0x78, RING_SS = 0x80 };
#define LOW(pointer) ((uint32_t)(uint64_t)(pointer))

/* The 32-bit TSS: only the stack of ring 0 matters here; there is no I/O map. */
struct tss32 {
    uint32_t link, esp0, ss0, rest[22];
    uint16_t trap, io_map_base;
};

extern char modes16_start[], modes16_end[], modes16_real[], modes16_unreal[], modes16_v86[];
extern char modes16_v86_int[], modes32_segments[], modes32_traps[], modes32_ring[], modes32_v86[];
extern char modes32_big_real[], modes32_ask[], modes32_leave[], modes32_v86_leave[];
extern char modes32_based[];
extern char legacy_stubs[], ring_stack_top[], real_mode_call[];
extern char modes16_segment[];
extern uint32_t seen[32], v86_entry, real_target, far_pointer16[2];

static struct tss32 tss32;
static uint8_t stack0[4096] __attribute__((aligned(16)));

static uint32_t result(uint32_t address)
{
    return *(volatile uint32_t *)(uint64_t)address;
}

static uint16_t low(const char *symbol)
{
    return (uint16_t)(LOW_CODE + (symbol - modes16_start));
}

static void run32(const char *code, uint32_t argument)
{
    struct legacy_call call = { .code = LOW(code), .argument = argument, .cr0 = CR0_PE };

    legacy_call(&call);
}

static void check_real_mode(void)
{
    real_call(low(modes16_real));
    expect_equal(result(RESULT_DONE), DONE, "real mode and back");
    expect_equal(result(RESULT_MSW) & 1, 0, "real: CR0.PE is clear");
    expect_equal(result(RESULT_CS), 0, "real: CS");
    expect_equal(result(RESULT_RETURN_IP), 0, "real: INT pushes IP");
    expect_equal(result(RESULT_RETURN_CS), 0, "real: INT pushes CS");
    report(result(RESULT_FLAGS_SAVED) & FLAG_IF && !(result(RESULT_FLAGS_INSIDE) & FLAG_IF),
           "real: INT pushes FLAGS and clears IF");
    report(result(RESULT_FLAGS_AFTER) & FLAG_IF, "real: IRET restores IF");
    expect_equal(result(RESULT_DIVIDE_IP), 0, "real: #DE has IP at the instruction");
}

static void check_real_segments(void)
{
    expect_equal(result(RESULT_CS_CALLED), LOW_CODE / 16, "real: far CALL loads CS");
    expect_equal(result(RESULT_CS_PUSHED), 0, "real: far CALL pushes CS");
    expect_equal(result(RESULT_CS_BACK), 0, "real: far RET");
    expect_equal(result(RESULT_CS_JUMPED), LOW_CODE / 16, "real: far JMP");
    expect_equal(result(RESULT_BY_SEGMENT), PATTERN, "real: segment times sixteen");
    expect_equal(result(RESULT_ABOVE_MIB), *(uint32_t *)0x100000,
                 "real: ffff:0010 is the second MiB");
    expect_equal(result(RESULT_SI), 0, "real: SI wraps");
    report(result(RESULT_PUSHL) == 4 && result(RESULT_POP_LOW) == 0x5678, "real: 32-bit PUSH");
    expect_equal(result(RESULT_ADDR32), PATTERN, "real: 32-bit address");
    report(result(RESULT_CS_PROTECTED) == KERNEL_CS16 && result(RESULT_DS_PROTECTED) == KERNEL_DS16,
           "real to 16-bit protected mode and back");
    real_target = low(modes16_unreal);
    run32(modes32_big_real, 0);
    expect_equal(result(RESULT_UNREAL), *(uint32_t *)0x100000, "unreal: FS reaches above 1 MiB");
}

static void check_segments(void)
{
    static const uint32_t words[2] = { 0, 0x77665544 };

    gdt[DATA_WITH_BASE / 8] = descriptor(LOW(words), 7, ACCESS_DATA, FLAGS_32BIT_BYTES);
    gdt[CODE_WITH_BASE / 8] = descriptor(LOW(modes32_based) - 16, 0xffff, ACCESS_CODE,
                                         FLAGS_32BIT_BYTES);
    gdt[CODE16_LOW / 8] = descriptor(LOW_CODE, 0xffff, ACCESS_CODE, FLAGS_16BIT);
    far_pointer16[0] = (uint32_t)(modes16_segment - modes16_start);
    far_pointer16[1] = CODE16_LOW;
    run32(modes32_segments, 0);
    expect_equal(seen[0], KERNEL_CS32, "protected: CS with RPL 0");
    expect_equal(seen[1], words[1], "protected: data through a segment base");
    expect_equal(seen[2], CODE_WITH_BASE, "protected: code with a segment base");
    expect_equal(seen[3], KERNEL_CS32, "protected: far CALL pushes CS with RPL 0");
    expect_equal(result(RESULT_CS16), CODE16_LOW, "protected: far CALL to a 16-bit segment");
    expect_equal(result(RESULT_PUSH16), 2, "protected: PUSH in 16-bit code");
}

static void check_traps(void)
{
    run32(modes32_traps, 0);
    expect_equal(seen[4], 0x70, "protected: INT through a 32-bit gate");
    expect_equal(seen[6], seen[2], "protected: INT pushes EIP");
    expect_equal(seen[7], KERNEL_CS32, "protected: INT pushes CS with RPL 0");
    expect_equal(seen[12] + 12, seen[1], "protected: the frame has three words");
    report(legacy_trap.vector == GP && legacy_trap.error_code == 0xfff8,
           "protected: #GP with an error code");
    expect_equal(legacy_trap.eip, seen[3], "protected: #GP has EIP at the instruction");
}

static void prepare_rings(unsigned ring)
{
    unsigned dpl = ring << 5;

    tss32 = (struct tss32){ .esp0 = LOW(stack0 + sizeof stack0), .ss0 = KERNEL_SS,
                            .io_map_base = sizeof tss32 };
    gdt[TSS32 / 8] = descriptor(LOW(&tss32), sizeof tss32 - 1, ACCESS_TSS, 0);
    gdt[RING_CS / 8] = descriptor(0, 0xfffff, ACCESS_CODE | dpl, FLAGS_32BIT);
    gdt[RING_SS / 8] = descriptor(0, 0xfffff, ACCESS_DATA | dpl, FLAGS_32BIT);
    gdt[GATE_ASK / 8] = gate32(LOW(modes32_ask), KERNEL_CS32, ACCESS_CALL_GATE | ACCESS_DPL3)
                        | 1ul << 32;
    gdt[GATE_LEAVE / 8] = gate32(LOW(modes32_leave), KERNEL_CS32, ACCESS_CALL_GATE | ACCESS_DPL3);
}

static void reload_long_tss(void)
{
    gdt[TSS_SELECTOR / 8] &= ~(2ul << 40);
    asm volatile("ltr %w0" : : "r"(TSS_SELECTOR) : "memory");
}

static void check_ring(unsigned ring)
{
    prepare_rings(ring);
    run32(modes32_ring, ring | 0x0002 << 8);
    reload_long_tss();
    report(seen[0] == (RING_CS | ring) && seen[1] == (RING_SS | ring), "ring %u: IRET enters it",
           ring);
    report(seen[6] == KERNEL_CS32 && seen[7] == (RING_CS | ring),
           "ring %u: a call gate leads to ring 0", ring);
    expect_equal(seen[2], 0x5151, "the gate copies its parameter");
    expect_equal(seen[3], LOW(ring_stack_top), "RET n takes the parameter from both stacks");
    report(seen[4] == GP && seen[5] == (RING_CS | ring), "ring %u: CLI with IOPL 0 faults", ring);
    prepare_rings(ring);
    run32(modes32_ring, ring | 0x1002 << 8);
    reload_long_tss();
    report(ring == 1 ? seen[4] == ~0u : seen[4] == GP, "ring %u: CLI with IOPL 1", ring);
}

static void enter_v86(const char *entry, uint32_t flags)
{
    prepare_rings(3);
    v86_entry = (uint32_t)(entry - modes16_start);
    run32(modes32_v86, flags);
    reload_long_tss();
}

static void check_v86(void)
{
    uint64_t gate = idt32[GP];

    idt32[GP] = gate32(LOW(modes32_v86_leave), KERNEL_CS32, GATE_INTERRUPT);
    enter_v86(modes16_v86, 2);
    idt32[GP] = gate;
    expect_equal(result(RESULT_V86_CS) & 0xffff, LOW_CODE / 16, "V8086: CS is a real-mode segment");
    expect_equal(result(RESULT_V86_LOAD), PATTERN, "V8086: segment times sixteen");
    expect_equal(seen[0], 0, "V8086: CLI with IOPL 0 is #GP(0)");
    expect_equal(seen[1], (uint32_t)(modes16_v86_int - modes16_start) - 1,
                 "V8086: #GP at the instruction");
    expect_equal(seen[2], LOW_CODE / 16, "V8086: the frame has its CS");
    report(seen[3] & FLAG_VM, "V8086: the frame has VM set");
    expect_equal(seen[4], LOW_STACK, "V8086: the frame has its SP");
    report(seen[6] == 0x1111 && seen[7] == LOW_CODE / 16 && seen[8] == 0x3333 && seen[9] == 0x4444,
           "V8086: the frame has ES, DS, FS, GS");
    expect_equal(seen[10], 0, "V8086: the handler starts with null in DS");
    gate = idt32[0x72];
    idt32[0x72] = gate32(LOW(modes32_v86_leave), KERNEL_CS32, GATE_INTERRUPT | GATE_DPL3);
    enter_v86(modes16_v86_int, 2 | (uint32_t)FLAG_IOPL);
    expect_equal(seen[0], (uint32_t)(modes16_v86_int - modes16_start) + 4,
                 "V8086: INT with IOPL 3 goes to ring 0");
    idt32[0x72] = gate32(LOW(legacy_stubs) + 16 * 0x72, KERNEL_CS32, GATE_INTERRUPT | GATE_DPL3);
    idt32[GP] = gate32(LOW(modes32_v86_leave), KERNEL_CS32, GATE_INTERRUPT);
    enter_v86(modes16_v86_int, 2);
    report(seen[0] == 0 && seen[3] & FLAG_VM, "V8086: INT with IOPL 0 is #GP(0)");
    legacy_init();
}

static void check_round_trips(void)
{
    for (int i = 0; i < 100; i++) {
        *(volatile uint32_t *)RESULT_DONE = 0;
        real_call(low(modes16_real));
    }
    expect_equal(result(RESULT_DONE), DONE,
                 "100 round trips: long, protected, real, protected, long");
    expect_trap(TRY("ud2"), UD, 0, "exceptions still work in long mode");
}

void test_main(void)
{
    paging_init();
    legacy_init();
    memset((void *)LOW_CODE, 0, 0x1000);
    memcpy((void *)LOW_CODE, modes16_start, (size_t)(modes16_end - modes16_start));
    check_real_mode();
    check_real_segments();
    check_segments();
    check_traps();
    for (unsigned ring = 1; ring <= 3; ring++)
        check_ring(ring);
    check_v86();
    check_round_trips();
}
