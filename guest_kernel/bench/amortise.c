/* The amortisation law
 *
 * n interrupts to processors that are not there: by n writes of the x2APIC's command register, each
 * an exit, and by one hypercall that takes n in a bitmap (KVM_HC_SEND_IPI). The guest reads its own
 * TSC, caches are warm; each line is "=NAME N CYCLES", cycles of the quickest of several tries. */
#include "bench/marks.h"
#include "lib/kvm.h"
#include "lib/test.h"

const char test_title[] = "Benchmark: amortise";

enum { TRIES = 5, FIRST_ABSENT = 100, X2APIC_ENABLE = 0xc00, MSR_X2APIC_ICR = 0x830, SEND_IPI = 10,
       VECTOR = 0x90 };

static void by_traps(unsigned n)
{
    for (unsigned k = 0; k < n; k++)
        wrmsr(MSR_X2APIC_ICR, (uint64_t)(FIRST_ABSENT + k) << 32 | VECTOR);
}

static void by_hypercall(unsigned n)
{
    uint64_t low = 0, high = 0;

    for (unsigned k = 0; k < n; k++)
        *(k < 64 ? &low : &high) |= 1ul << k % 64;
    asm volatile("vmcall" : "+a"((uint64_t){SEND_IPI}) : "b"(low), "c"(high), "d"(FIRST_ABSENT),
                 "S"(VECTOR) : "memory");
}

static uint64_t quickest(void (*how)(unsigned), unsigned n)
{
    uint64_t least = ~0ul;

    for (unsigned k = 0; k < TRIES; k++) {
        uint64_t began = rdtsc();

        how(n);
        uint64_t took = rdtsc() - began;
        least = took < least ? took : least;
    }
    return least;
}

void test_main(void)
{
    static const unsigned counts[] = { 1, 2, 3, 4, 8, 16, 32, 64, 128 };

    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | X2APIC_ENABLE);
    mark_figure("clock", 0, quickest(by_traps, 0));
    for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
        mark_figure("traps", counts[i], quickest(by_traps, counts[i]));
        mark_figure("hypercall", counts[i], quickest(by_hypercall, counts[i]));
    }
    exit_with(0);
}
