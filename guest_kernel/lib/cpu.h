/* The processor's own registers and instructions, as C sees them. */
#ifndef LIB_CPU_H
#define LIB_CPU_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CR0_PE (1ul << 0)
#define CR0_MP (1ul << 1)
#define CR0_EM (1ul << 2)
#define CR0_TS (1ul << 3)
#define CR0_NE (1ul << 5)
#define CR0_WP (1ul << 16)
#define CR0_AM (1ul << 18)
#define CR0_PG (1ul << 31)
#define CR4_PSE (1ul << 4)
#define CR4_DE (1ul << 3)
#define CR4_PAE (1ul << 5)
#define CR4_PGE (1ul << 7)
#define CR4_OSFXSR (1ul << 9)
#define CR4_UMIP (1ul << 11)
#define CR4_OSXSAVE (1ul << 18)
#define EFER_SCE (1ul << 0)
#define EFER_LME (1ul << 8)
#define EFER_LMA (1ul << 10)
#define EFER_NXE (1ul << 11)
#define FLAG_CF (1ul << 0)
#define FLAG_ZF (1ul << 6)
#define FLAG_TF (1ul << 8)
#define FLAG_IF (1ul << 9)
#define FLAG_DF (1ul << 10)
#define FLAG_IOPL (3ul << 12)
#define FLAG_NT (1ul << 14)
#define FLAG_RF (1ul << 16)
#define FLAG_VM (1ul << 17)
#define FLAG_AC (1ul << 18)
#define FLAG_ID (1ul << 21)

enum {
    MSR_TSC = 0x10,
    MSR_APIC_BASE = 0x1b,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_PAT = 0x277,
    MSR_EFER = 0xc0000080,
    MSR_STAR = 0xc0000081,
    MSR_LSTAR = 0xc0000082,
    MSR_CSTAR = 0xc0000083,
    MSR_FMASK = 0xc0000084,
    MSR_FS_BASE = 0xc0000100,
    MSR_GS_BASE = 0xc0000101,
    MSR_KERNEL_GS_BASE = 0xc0000102,
};

/* The operand of LGDT, LIDT, SGDT and SIDT in 64-bit code. */
struct table_pointer {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};

#define DEFINE_REGISTER(name)                                                    \
    static inline uint64_t read_##name(void)                                     \
    {                                                                            \
        uint64_t value;                                                          \
        asm volatile("mov %%" #name ", %0" : "=r"(value) : : "memory");          \
        return value;                                                            \
    }                                                                            \
    static inline void write_##name(uint64_t value)                              \
    {                                                                            \
        asm volatile("mov %0, %%" #name : : "r"(value) : "memory");              \
    }
DEFINE_REGISTER(cr0)
DEFINE_REGISTER(cr2)
DEFINE_REGISTER(cr3)
DEFINE_REGISTER(cr4)
DEFINE_REGISTER(cr8)
DEFINE_REGISTER(dr0)
DEFINE_REGISTER(dr1)
DEFINE_REGISTER(dr2)
DEFINE_REGISTER(dr3)
DEFINE_REGISTER(dr6)
DEFINE_REGISTER(dr7)

#define DEFINE_SEGMENT(name)                                                     \
    static inline uint16_t read_##name(void)                                     \
    {                                                                            \
        uint16_t value;                                                          \
        asm volatile("mov %%" #name ", %0" : "=r"(value));                       \
        return value;                                                            \
    }
DEFINE_SEGMENT(cs)
DEFINE_SEGMENT(ss)
DEFINE_SEGMENT(ds)
DEFINE_SEGMENT(es)
DEFINE_SEGMENT(fs)
DEFINE_SEGMENT(gs)

static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct cpuid r;

    asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                 : "a"(leaf), "c"(subleaf));
    return r;
}

static inline uint64_t rdmsr(uint32_t number)
{
    uint32_t low, high;

    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(number) : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t number, uint64_t value)
{
    asm volatile("wrmsr" : : "c"(number), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                 : "memory");
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;

    asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static inline uint64_t read_rflags(void)
{
    uint64_t value;

    asm volatile("pushf; pop %0" : "=r"(value) : : "memory");
    return value;
}

static inline void write_rflags(uint64_t value)
{
    asm volatile("push %0; popf" : : "r"(value) : "memory", "cc");
}

static inline void invlpg(uint64_t address)
{
    asm volatile("invlpg (%0)" : : "r"(address) : "memory");
}

static inline void cli(void)
{
    asm volatile("cli" : : : "memory");
}

static inline void sti(void)
{
    asm volatile("sti" : : : "memory");
}

static inline bool has_nx(void)
{
    return cpuid(0x80000000, 0).eax >= 0x80000001 && cpuid(0x80000001, 0).edx & 1u << 20;
}
#endif
