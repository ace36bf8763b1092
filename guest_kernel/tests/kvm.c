/* KVM's dialect
 *
 * Leaves, clock, end of interrupt without an exit, hypercalls and their errors, and what garbage in
 * a dialect's registers gets.  Judged by Linux Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst. */
#include "lib/apic.h"
#include "lib/kvm.h"
#include "lib/test.h"
#include "lib/user.h"

const char test_title[] = "KVM's dialect";

enum { VECTOR = 0x61, LOWER = 0x51, STABLE = 1, NOWHERE = 0x7ffffff000 };

static struct pvclock_time time_page;
static struct pvclock_wall wall;
static struct kvm_steal steal;
static volatile uint32_t eoi_word __attribute__((aligned(4)));
static volatile int lazy, ended, interrupts, order;

#define PHYSICAL(object) ((uint64_t)(uintptr_t)&(object))

static bool wrmsr_faults(uint32_t number, uint64_t value)
{
    return trap_is(TRY("wrmsr", : : "c"(number), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                       : "memory"), GP, 0);
}

static bool rdmsr_faults(uint32_t number)
{
    uint32_t low, high;

    return trap_is(TRY("rdmsr", : "=a"(low), "=d"(high) : "c"(number) : "memory"), GP, 0);
}

static void check_leaves(void)
{
    struct cpuid first = cpuid(0x40000000, 0);

    report(cpuid(1, 0).ecx >> 31, "the hypervisor bit is set");
    report(first.ebx == 0x4b4d564b && first.ecx == 0x564b4d56 && first.edx == 0x4d,
           "the signature is KVMKVMKVM");
    report(first.eax >= 0x40000001, "there is a feature leaf");
    report(kvm_has(KVM_FEATURE_CLOCKSOURCE2), "clocksource2 is offered");
    expect_equal(cpuid(0x40000000 + KVM_TIMING_LEAF, 0).eax, 2500000, "timing leaf: TSC in kHz");
    struct cpuid crystal = cpuid(0x15, 0);
    expect_equal((uint64_t)crystal.ecx * crystal.ebx / crystal.eax, 2500000000ul,
                 "leaf 0x15: the same in Hz");
    report(!(cpuid(0x80000007, 0).edx & 1u << 8), "no invariant TSC beside kvm-clock");
    expect_equal(cpuid(0x40000100, 0).ebx, 0, "no second dialect");
}

static void check_clock(uint32_t msr)
{
    memset(&time_page, 0xff, sizeof time_page);
    wrmsr(msr, PHYSICAL(time_page) | 1);
    report(!(time_page.version & 1), "MSR 0x%x: the version is even", msr);
    report(time_page.flags & STABLE, "MSR 0x%x: the stable bit is set", msr);
    expect_equal(rdmsr(msr), PHYSICAL(time_page) | 1, "the MSR reads back");
    uint64_t before = pvclock_read(&time_page), start = rdtsc();
    for (int i = 0; i < 100000; i++)
        asm volatile("pause");
    uint64_t ns = pvclock_read(&time_page) - before, ticks = rdtsc() - start;
    report(ns > ticks * 4 / 10 - 100 && ns < ticks * 4 / 10 + 100,
           "MSR 0x%x: 0.4 ns a tick at 2.5 GHz", msr);
    uint64_t then = pvclock_read(&time_page);
    wrmsr(MSR_TSC, 1ul << 50);
    uint64_t now = pvclock_read(&time_page);
    report(now >= then && now - then < 1000000, "MSR 0x%x: a written TSC does not move time", msr);
    wrmsr(MSR_TSC, rdtsc() - (1ul << 50));
    uint32_t version = time_page.version;
    wrmsr(msr, 0);
    wrmsr(MSR_TSC, rdtsc());
    expect_equal(time_page.version, version, "a page that was taken back is left alone");
}

static void check_wall(uint32_t msr)
{
    memset(&wall, 0, sizeof wall);
    wrmsr(msr, PHYSICAL(wall));
    report(wall.version && !(wall.version & 1), "MSR 0x%x: wall clock has an even version", msr);
    report(wall.sec > 1700000000u && wall.nsec < 1000000000u, "MSR 0x%x: wall clock is a date", msr);
}

static void check_garbage(void)
{
    static const uint64_t addresses[] = {NOWHERE, ~0ul, 0x8000000000000000, 0xfee00000, 0xfffffffffffff000};
    bool quiet = true;

    for (unsigned i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        quiet &= !wrmsr_faults(MSR_KVM_SYSTEM_TIME_NEW, addresses[i] | 1);
        quiet &= !wrmsr_faults(MSR_KVM_WALL_CLOCK_NEW, addresses[i]);
    }
    wrmsr(MSR_KVM_SYSTEM_TIME_NEW, 0);
    report(quiet, "clock: addresses without memory are taken and nothing is written");
    report(wrmsr_faults(MSR_KVM_STEAL_TIME, PHYSICAL(steal) | 3), "steal time: reserved bits are #GP");
    report(!wrmsr_faults(MSR_KVM_STEAL_TIME, NOWHERE | 1), "steal time: nowhere is taken");
    report(wrmsr_faults(MSR_KVM_PV_EOI_EN, PHYSICAL(eoi_word) | 3), "PV EOI: misaligned is #GP");
    report(wrmsr_faults(MSR_KVM_PV_EOI_EN, NOWHERE | 1), "PV EOI: nowhere is #GP");
    report(wrmsr_faults(MSR_KVM_POLL_CONTROL, 2), "poll control: reserved bits are #GP");
    report(wrmsr_faults(MSR_KVM_ASYNC_PF_EN, 0x30), "async page fault: reserved bits are #GP");
    report(wrmsr_faults(MSR_KVM_ASYNC_PF_EN, NOWHERE | 9), "async page fault: nowhere is #GP");
    report(wrmsr_faults(MSR_KVM_ASYNC_PF_INT, 0x100), "async page fault: a vector has eight bits");
    report(rdmsr_faults(MSR_KVM_MIGRATION_CONTROL), "an MSR of a feature not offered is #GP");
    expect_equal(rdmsr(MSR_KVM_POLL_CONTROL), 1, "poll control is on at power-on");
    expect_equal(rdmsr(MSR_KVM_ASYNC_PF_ACK), 0, "the acknowledgement reads zero");
    wrmsr(MSR_KVM_STEAL_TIME, 0);
}

USER(user_vmcall, "mov $1, %eax; vmcall; " USER_RETURN);

static void check_calls(void)
{
    long result;

    expect_equal((uint64_t)kvm_call(KVM_HC_VAPIC_POLL_IRQ, 0, 0, 0, 0), 0, "a known call returns 0");
    expect_equal((uint64_t)kvm_call(0x1234, 0, 0, 0, 0), (uint64_t)-KVM_E_NOSYS, "an unknown call: -ENOSYS");
    expect_equal((uint64_t)kvm_call(-1, -1, -1, -1, -1), (uint64_t)-KVM_E_NOSYS, "all ones: -ENOSYS");
    asm volatile("vmmcall" : "=a"(result) : "a"(KVM_HC_VAPIC_POLL_IRQ) : "rbx", "rcx", "rdx", "rsi", "memory");
    expect_equal((uint64_t)result, 0, "VMMCALL is the same call");
    struct trap trap = user_call(user_vmcall, 0, 0);
    report(trap.vector == RETURNED && (int64_t)trap.rax == -KVM_E_PERM, "ring 3 gets -EPERM");
    expect_equal((uint64_t)kvm_call(KVM_HC_SEND_IPI, 1, 0, 0, 0x800 | VECTOR), (uint64_t)-KVM_E_INVAL,
                 "SEND_IPI to a logical destination: -EINVAL");
    expect_equal((uint64_t)kvm_call(KVM_HC_SEND_IPI, -2, -1, 0, VECTOR), 0, "SEND_IPI to nobody: 0");
    expect_equal((uint64_t)kvm_call(KVM_HC_SEND_IPI, -1, -1, -1, VECTOR), 0, "SEND_IPI beyond all: 0");
    expect_equal((uint64_t)kvm_call(KVM_HC_KICK_CPU, 0, 999, 0, 0), 0, "KICK_CPU of nobody: 0");
    expect_equal((uint64_t)kvm_call(KVM_HC_SCHED_YIELD, -1, 0, 0, 0), 0, "SCHED_YIELD to nobody: 0");
    expect_equal((uint64_t)kvm_call(KVM_HC_CLOCK_PAIRING, NOWHERE, 0, 0, 0), (uint64_t)-KVM_E_FAULT,
                 "CLOCK_PAIRING nowhere: -EFAULT");
    expect_equal((uint64_t)kvm_call(KVM_HC_CLOCK_PAIRING, 0, 7, 0, 0), (uint64_t)-KVM_E_OPNOTSUPP,
                 "CLOCK_PAIRING of another clock: -EOPNOTSUPP");
    static uint64_t pair[8];
    uint64_t before = rdtsc();
    expect_equal((uint64_t)kvm_call(KVM_HC_CLOCK_PAIRING, (long)PHYSICAL(pair), 0, 0, 0), 0,
                 "CLOCK_PAIRING is answered");
    report(pair[0] >= wall.sec && pair[2] >= before && pair[2] <= rdtsc(), "with date and TSC of now");
    sti();
    wrmsr(MSR_KVM_POLL_CONTROL, 0);
    expect_equal((uint64_t)kvm_call(KVM_HC_SEND_IPI, 1, 0, 0, VECTOR), 1, "SEND_IPI to oneself");
    cli();
    expect_equal((uint64_t)interrupts, 1, "it arrives");
    kvm_call(KVM_HC_KICK_CPU, 0, 0, 0, 0);
    asm volatile("hlt");                 /* with interrupts off: only the kick can end it */
    report(true, "a kick ends the next HLT, interrupts or not");
}

/* What Linux does: clear the bit if it is set, else write EOI. */
static void end(void)
{
    bool was;

    asm volatile("btrl $0, %0; setc %1" : "+m"(eoi_word), "=q"(was) : : "memory", "cc");
    if (was)
        lazy++;
    else
        apic_end();
    ended++;
}

static void on_interrupt(struct trap_frame *frame)
{
    (void)frame;
    interrupts++;
    end();
}

static void on_nested(struct trap_frame *frame)
{
    (void)frame;
    interrupts++;
    apic_send_self(LOWER);               /* has to wait, so its end must be seen */
    kvm_call(KVM_HC_VAPIC_POLL_IRQ, 0, 0, 0, 0);
    end();
}

static void on_lower(struct trap_frame *frame)
{
    (void)frame;
    order = order * 10 + interrupts;
    end();
}

static void check_eoi(void)
{
    trap_handle(VECTOR, on_interrupt);
    lazy = ended = interrupts = 0;
    wrmsr(MSR_KVM_PV_EOI_EN, PHYSICAL(eoi_word) | 1);
    for (int i = 0; i < 5; i++) {
        apic_send_self(VECTOR);
        sti();
        asm volatile("nop");
        cli();
        report(!apic_bit(APIC_ISR, VECTOR), "PV EOI %d: out of service", i);
    }
    expect_equal((uint64_t)ended, 5, "PV EOI: each interrupt arrives");
    expect_equal((uint64_t)lazy, 5, "PV EOI: each end is a bit in memory");
    trap_handle(VECTOR, on_nested);
    trap_handle(LOWER, on_lower);
    lazy = ended = interrupts = 0;
    apic_send_self(VECTOR);
    sti();
    asm volatile("nop; nop");
    cli();
    expect_equal((uint64_t)ended, 2, "PV EOI: one that waits is let in by the end of the first");
    expect_equal((uint64_t)lazy, 1, "PV EOI: whose end is an exit");
    expect_equal((uint64_t)order, 1, "PV EOI: afterwards");
    wrmsr(MSR_KVM_PV_EOI_EN, 0);
    trap_handle(VECTOR, on_interrupt);
    lazy = ended = 0;
    apic_send_self(VECTOR);
    sti();
    asm volatile("nop");
    cli();
    report(ended == 1 && !lazy, "PV EOI switched off: ends by the register");
}

void test_main(void)
{
    paging_init();
    user_init();
    apic_init();
    trap_handle(VECTOR, on_interrupt);
    check_leaves();
    check_clock(MSR_KVM_SYSTEM_TIME_NEW);
    check_clock(MSR_KVM_SYSTEM_TIME);
    check_wall(MSR_KVM_WALL_CLOCK_NEW);
    check_wall(MSR_KVM_WALL_CLOCK);
    check_garbage();
    check_calls();
    check_eoi();
}
