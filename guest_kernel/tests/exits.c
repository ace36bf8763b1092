/* Exits
 *
 * One instruction of every kind that a hypervisor gets to see: what it must do for the guest that
 * executed it, and the fault where the manual demands one.  Nothing here needs a device beyond the
 * serial port and the local APIC. */
#include "lib/apic.h"
#include "lib/test.h"

const char test_title[] = "Exits, one of each kind";

enum {
    UNKNOWN_PORT = 0x5550,
    SERIAL_DATA = 0x3f8,
    SERIAL_SCRATCH = 0x3ff,
    UNKNOWN_MSR = 0x3fffff00,
    WAKE_VECTOR = 0x50,
};
#define UNBACKED 0xfed50000ul

static volatile int wakes;

static void check_cpuid(void)
{
    struct cpuid one = cpuid(1, 0), hypervisor = cpuid(0x40000000, 0);

    report(cpuid(0, 0).eax >= 1, "CPUID 0 offers leaf 1");
    report(one.edx & 1u << 5 && one.edx & 1u << 9, "CPUID 1 has MSR and APIC");
    report(cpuid(0x80000001, 0).edx & 1u << 29, "CPUID 0x80000001 has long mode");
    if (one.ecx >> 31)
        report(hypervisor.eax >= 0x40000000 && hypervisor.eax < 0x40010000,
               "CPUID 0x40000000 tells the highest hypervisor leaf");
    else
        report_skip("CPUID 0x40000000: no hypervisor bit");
}

static void check_ports(void)
{
    outb(0x5a, SERIAL_SCRATCH);
    expect_equal(inb(SERIAL_SCRATCH), 0x5a, "OUT and IN of a byte, port in DX");
    expect_equal(inb(UNKNOWN_PORT), 0xff, "IN of a byte from an unknown port");
    expect_equal(inw(UNKNOWN_PORT), 0xffff, "IN of a word from an unknown port");
    expect_equal(inl(UNKNOWN_PORT), 0xffffffff, "IN of a doubleword from an unknown port");
    outb(1, UNKNOWN_PORT);
    outw(1, UNKNOWN_PORT);
    outl(1, UNKNOWN_PORT);
    outb(0, 0x80);
    report(true, "OUT to unknown ports is dropped");
}

/* IN must leave the upper parts of RAX as the width of its register says. */
static void check_port_registers(void)
{
    uint64_t rax = 0x1122334455667788;

    asm volatile("inb %%dx, %%al" : "+a"(rax) : "d"(UNKNOWN_PORT));
    expect_equal(rax, 0x11223344556677ff, "IN AL keeps the rest of RAX");
    rax = 0x1122334455667788;
    asm volatile("inw %%dx, %%ax" : "+a"(rax) : "d"(UNKNOWN_PORT));
    expect_equal(rax, 0x112233445566ffff, "IN AX keeps the rest of RAX");
    rax = 0x1122334455667788;
    asm volatile("inl %%dx, %%eax" : "+a"(rax) : "d"(UNKNOWN_PORT));
    expect_equal(rax, 0xffffffff, "IN EAX clears the upper half of RAX");
}

static void check_string_output(void)
{
    static const char text[] = "REP OUTSB wrote\n";
    const char *from = text;
    uint64_t count = sizeof text - 1;

    console_flush();                     /* sixteen characters fit the FIFO */
    asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(SERIAL_DATA) : "memory");
    report(from == text + sizeof text - 1 && count == 0, "REP OUTSB leaves RSI and RCX at the end");
}

static void check_string_input(void)
{
    uint8_t bytes[8] = { 0 }, *to = bytes;
    uint64_t count = 5;

    outb(0xa7, SERIAL_SCRATCH);
    asm volatile("rep insb" : "+D"(to), "+c"(count) : "d"(SERIAL_SCRATCH) : "memory");
    report(!memcmp(bytes, "\xa7\xa7\xa7\xa7\xa7\0\0", 8), "REP INSB fills memory");
    report(to == bytes + 5 && count == 0, "REP INSB leaves RDI and RCX at the end");
    to = bytes + 7;
    asm volatile("std; insb; cld" : "+D"(to) : "d"(SERIAL_SCRATCH) : "memory");
    report(bytes[7] == 0xa7 && to == bytes + 6, "INSB goes down with the direction flag");
    to = bytes;
    asm volatile("insw; insl" : "+D"(to) : "d"(UNKNOWN_PORT) : "memory");
    report(to == bytes + 6 && bytes[5] == 0xff, "INSW and INSL step by their width");
}

/* A page fault in the middle of REP INS: what was read before stays, registers point at the
 * fault. */
static void check_string_fault(void)
{
    uint64_t to = TEST_AREA + PAGE_BYTES - 3, count = 6;
    struct trap trap;

    map_page(TEST_AREA, (uint64_t)alloc_page(), PTE_P | PTE_W);
    trap = TRY("rep insb", : "+D"(to), "+c"(count) : "d"(SERIAL_SCRATCH) : "memory");
    expect_trap(trap, PF, PF_WRITE, "REP INSB into a missing page faults");
    report(to == TEST_AREA + PAGE_BYTES && count == 3, "REP INSB stops at the fault");
    report(trap.cr2 == to && !trap.after, "REP INSB fault has CR2 and RIP right");
}

static void check_unbacked_memory(void)
{
    volatile void *at = (void *)UNBACKED;

    *(volatile uint32_t *)at = 0;
    expect_equal(*(volatile uint8_t *)at, 0xff, "unbacked memory reads all ones, byte");
    expect_equal(*(volatile uint16_t *)at, 0xffff, "unbacked memory reads all ones, word");
    expect_equal(*(volatile uint32_t *)at, 0xffffffff,
                 "unbacked memory reads all ones, doubleword");
    expect_equal(*(volatile uint64_t *)at, ~0ul, "unbacked memory reads all ones, quadword");
}

#define TRY_RDMSR(number)                                                        \
    ({                                                                           \
        uint32_t a, d;                                                           \
        TRY("rdmsr", : "=a"(a), "=d"(d) : "c"(number) : "memory");               \
    })
#define TRY_WRMSR(number, value)                                                 \
    TRY("wrmsr", : : "c"(number), "a"((uint32_t)(value)), "d"((uint32_t)((value) >> 32)) : "memory")

/* A write that must be refused; put right at once on a machine that takes it. */
static void refuse_wrmsr(uint32_t number, uint64_t value, const char *name)
{
    uint64_t before = rdmsr(number);
    struct trap trap = TRY_WRMSR(number, value);

    if (trap.vector == NO_TRAP)
        wrmsr(number, before);
    expect_trap(trap, GP, 0, name);
}

static void check_msrs(void)
{
    wrmsr(MSR_KERNEL_GS_BASE, 0xffff800012345678);
    expect_equal(rdmsr(MSR_KERNEL_GS_BASE), 0xffff800012345678, "KERNEL_GS_BASE keeps its value");
    wrmsr(MSR_LSTAR, 0x1234567890);
    expect_equal(rdmsr(MSR_LSTAR), 0x1234567890, "LSTAR keeps its value");
    expect_trap(TRY_RDMSR(UNKNOWN_MSR), GP, 0, "RDMSR of an unknown MSR");
    expect_trap(TRY_WRMSR(UNKNOWN_MSR, 0ul), GP, 0, "WRMSR of an unknown MSR");
    refuse_wrmsr(MSR_LSTAR, NON_CANONICAL, "WRMSR of a non-canonical LSTAR");
    refuse_wrmsr(MSR_GS_BASE, NON_CANONICAL, "WRMSR of a non-canonical GS base");
    refuse_wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1ul << 40, "WRMSR of a reserved EFER bit");
    refuse_wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_LME,
                 "WRMSR that clears EFER.LME with paging on");
    refuse_wrmsr(MSR_PAT, 0x0202020202020202ul, "WRMSR of a reserved PAT type");
}

static void on_wake(struct trap_frame *frame)
{
    (void)frame;
    wakes++;
    apic_end();
}

static void check_halt(void)
{
    trap_handle(WAKE_VECTOR, on_wake);
    apic_init();
    apic_timer(WAKE_VECTOR, 0, 100000);
    asm volatile("sti; hlt; cli" : : : "memory");
    expect_equal(wakes, 1, "HLT waits for the timer interrupt");
    trap_handle(WAKE_VECTOR, NULL);
}

/* Without a hypervisor that knows the call, silicon says #UD; with one, some answer comes in
 * RAX. */
static void check_hypercalls(void)
{
    uint64_t rax = 0xffff;
    struct trap trap = TRY("vmcall", : "+a"(rax) : : "memory");

    report(trap.vector == NO_TRAP || trap_is(trap, UD, 0), "VMCALL answers or raises #UD");
    rax = 0xffff;
    trap = TRY("vmmcall", : "+a"(rax) : : "memory");
    report(trap.vector == NO_TRAP || trap_is(trap, UD, 0), "VMMCALL answers or raises #UD");
}

static void check_time(void)
{
    uint64_t first = rdtsc(), second;
    uint32_t a, c, d;

    asm volatile("pause; wbinvd" : : : "memory");
    second = rdtsc();
    report(second > first, "RDTSC goes forward over PAUSE and WBINVD");
    if (cpuid(0x80000001, 0).edx & 1u << 27) {
        asm volatile("rdtscp" : "=a"(a), "=d"(d), "=c"(c));
        report(((uint64_t)d << 32 | a) >= second, "RDTSCP reads the same counter");
    } else
        report_skip("RDTSCP: not offered");
}

#define REFUSE(name, value, check)                                               \
    ({                                                                           \
        uint64_t before = read_##name();                                         \
        struct trap trap = TRY_WRITE(name, value);                               \
                                                                                 \
        if (trap.vector == NO_TRAP)                                              \
            write_##name(before);                                                \
        expect_trap(trap, GP, 0, check);                                         \
    })
#define TRY_WRITE(name, value) TRY("mov %0, %%" #name, : : "r"((uint64_t)(value)) : "memory")

static void check_control_registers(void)
{
    uint64_t cr0 = read_cr0();

    write_cr0(cr0 | CR0_TS);
    expect_equal(read_cr0(), cr0 | CR0_TS, "MOV CR0 sets TS");
    asm volatile("clts");
    expect_equal(read_cr0(), cr0, "CLTS clears TS");
    REFUSE(cr0, cr0 | 1ul << 40, "MOV CR0: upper half");
    REFUSE(cr0, (cr0 | 1ul << 29) & ~(1ul << 30), "MOV CR0: NW without CD");
    write_cr8(5);
    expect_equal(read_cr8(), 5, "MOV CR8 keeps its value");
    expect_equal(apic_read(APIC_TPR), 0x50, "MOV CR8 shows in the TPR");
    write_cr8(0);
    REFUSE(cr8, 16, "MOV CR8: reserved bits");
    expect_trap(TRY(".byte 0x0f, 0x22, 0xc8", : : : "memory"), UD, 0, "MOV CR1 does not exist");
}

/* QEMU 7.2 without acceleration falls into an endless loop at the first of these. */
static void check_refused_controls(void)
{
    uint64_t cr0 = read_cr0(), cr4 = read_cr4();

    if (spared("MOV CR: paging and reserved bits"))
        return;
    REFUSE(cr0, cr0 & ~CR0_PE, "MOV CR0: paging without protection");
    REFUSE(cr4, cr4 & ~CR4_PAE, "MOV CR4: clear PAE in long mode");
    REFUSE(cr4, cr4 | 1ul << 31, "MOV CR4: reserved bit 31");
    REFUSE(cr4, cr4 | 1ul << 15, "MOV CR4: reserved bit 15");
    REFUSE(cr4, cr4 ^ 1ul << 12, "MOV CR4: LA57 changed in long mode");
    REFUSE(cr3, read_cr3() | 1ul << 60, "MOV CR3: reserved bits");
    expect_equal(read_cr4(), cr4, "a refused MOV CR4 changes nothing");
}

static void check_debug_registers(void)
{
    uint64_t cr4 = read_cr4(), dr6;
    struct trap trap;

    write_dr0(0x123456789abc);
    write_dr3(0xffff800000001000);
    report(read_dr0() == 0x123456789abc && read_dr3() == 0xffff800000001000,
           "MOV DR keeps 64 bits");
    write_dr6(0);
    expect_equal(read_dr6(), 0xffff0ff0, "DR6 shows its fixed ones");
    write_dr7(0);
    expect_equal(read_dr7(), 0x400, "DR7 shows its fixed one");
    REFUSE(dr7, 1ul << 32, "MOV DR7: upper half");
    REFUSE(dr6, 1ul << 32, "MOV DR6: upper half");
    trap = TRY(".byte 0x0f, 0x21, 0xe0", : "=a"(dr6) : : "memory");   /* mov %dr4, %rax */
    report(trap.vector == NO_TRAP && dr6 == 0xffff0ff0, "DR4 is DR6 while CR4.DE is off");
    write_cr4(cr4 | CR4_DE);
    trap = TRY(".byte 0x0f, 0x21, 0xe0", : "=a"(dr6) : : "memory");
    expect_trap(trap, UD, 0, "DR4 is invalid while CR4.DE is on");
    write_cr4(cr4);
    write_dr0(0);
    write_dr3(0);
}

static struct trap try_xsetbv(uint64_t value)
{
    return TRY("xsetbv", : : "c"(0), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static void check_extended_control(void)
{
    uint64_t cr4 = read_cr4();
    uint32_t a, d;

    if (!(cpuid(1, 0).ecx & 1u << 26)) {
        expect_trap(TRY("xgetbv", : "=a"(a), "=d"(d) : "c"(0)), UD, 0,
                    "XGETBV: not offered, so #UD");
        return;
    }
    write_cr4(cr4 & ~CR4_OSXSAVE);
    expect_trap(TRY("xgetbv", : "=a"(a), "=d"(d) : "c"(0)), UD, 0, "XGETBV with CR4.OSXSAVE off");
    report(!(cpuid(1, 0).ecx & 1u << 27), "CPUID shows OSXSAVE off");
    write_cr4(cr4 | CR4_OSXSAVE);
    report(cpuid(1, 0).ecx & 1u << 27, "CPUID shows OSXSAVE on");
    expect_none(TRY("xgetbv", : "=a"(a), "=d"(d) : "c"(0)), "XGETBV of XCR0");
    expect_none(try_xsetbv(3), "XSETBV of x87 and SSE");
    expect_trap(try_xsetbv(2), GP, 0, "XSETBV without x87");
    expect_trap(try_xsetbv(1ul << 62 | 1), GP, 0, "XSETBV of an unknown component");
    write_cr4(cr4);
}

void test_main(void)
{
    paging_init();
    check_cpuid();
    check_ports();
    check_port_registers();
    check_string_output();
    check_string_input();
    check_string_fault();
    check_unbacked_memory();
    check_msrs();
    check_halt();
    check_hypercalls();
    check_time();
    check_control_registers();
    check_refused_controls();
    check_debug_registers();
    expect_none(TRY("invlpg (%0)", : : "r"(TEST_AREA) : "memory"), "INVLPG of a mapped page");
    expect_none(TRY("invlpg (%0)", : : "r"(NON_CANONICAL) : "memory"),
                "INVLPG of a non-canonical address does nothing");
    check_extended_control();
}
