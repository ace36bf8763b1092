/* KVM's dialect as a guest sees it: structures it shares with the hypervisor, and the hypercall.
 * Layouts: Linux asm/pvclock-abi.h and uapi/asm/kvm_para.h. */
#ifndef LIB_KVM_H
#define LIB_KVM_H
#include <stdbool.h>
#include <stdint.h>
#include "abi/kvm.h"
#include "lib/cpu.h"

struct pvclock_time {
    volatile uint32_t version;
    uint32_t pad;
    uint64_t tsc_timestamp, system_time;
    uint32_t mul;
    int8_t shift;
    uint8_t flags;
    uint8_t padding[2];
} __attribute__((aligned(32)));

struct pvclock_wall {
    volatile uint32_t version;
    uint32_t sec, nsec;
} __attribute__((aligned(4)));

struct kvm_steal {
    volatile uint64_t steal;
    volatile uint32_t version;
    uint32_t flags;
    volatile uint8_t preempted;
    uint8_t padding[47];
} __attribute__((aligned(64)));

struct kvm_fault {
    volatile uint32_t flags, token;
    uint8_t padding[56];
} __attribute__((aligned(64)));

static inline long kvm_call(long number, long a0, long a1, long a2, long a3)
{
    long result;

    asm volatile("vmcall" : "=a"(result) : "a"(number), "b"(a0), "c"(a1), "d"(a2), "S"(a3) : "memory");
    return result;
}

static inline bool kvm_has(unsigned feature)
{
    return cpuid(0x40000001, 0).eax >> feature & 1;
}

/* Nanoseconds, by the formula of the ABI. */
static inline uint64_t pvclock_read(const struct pvclock_time *page)
{
    uint32_t version;
    uint64_t ns;

    do {
        version = page->version & ~1u;
        asm volatile("" : : : "memory");
        uint64_t ticks = rdtsc() - page->tsc_timestamp;
        ticks = page->shift >= 0 ? ticks << page->shift : ticks >> -page->shift;
        ns = page->system_time + (uint64_t)(((unsigned __int128)ticks * page->mul) >> 32);
        asm volatile("" : : : "memory");
    } while (page->version != version);
    return ns;
}
#endif
