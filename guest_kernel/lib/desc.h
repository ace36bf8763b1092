/* Descriptors: the GDT, the TSS, and how to write a segment descriptor.
 *
 * The order of the selectors is what SYSCALL/SYSRET and SYSENTER/SYSEXIT demand:
 *   SYSCALL   CS = STAR[47:32], SS = +8
 *   SYSRET    32-bit CS = STAR[63:48], SS = +8, 64-bit CS = +16
 *   SYSENTER  CS = MSR, SS = +8
 *   SYSEXIT   32-bit CS = MSR + 16, SS = +24; 64-bit CS = +32, SS = +40 */
#ifndef LIB_DESC_H
#define LIB_DESC_H
#define KERNEL_CS 0x08
#define KERNEL_SS 0x10
#define USER_CS32 0x1b
#define USER_SS 0x23
#define USER_CS64 0x2b
#define USER_SS_SYSEXIT 0x33
#define KERNEL_CS32 0x38
#define KERNEL_CS16 0x40
#define KERNEL_DS16 0x48
#define SCRATCH_SELECTOR 0x50            /* from here to 0x98: tests put in what they like */
#define TSS_SELECTOR 0xa0
#define GDT_ENTRIES 64

#ifndef __ASSEMBLER__
#include <stdint.h>

/* Access bytes (present, DPL, type) and the flags nibble of a segment descriptor. */
enum {
    ACCESS_CODE = 0x9b,
    ACCESS_DATA = 0x93,
    ACCESS_LDT = 0x82,
    ACCESS_TSS = 0x89,
    ACCESS_TSS_BUSY = 0x8b,
    ACCESS_CALL_GATE = 0x8c,
    ACCESS_PRESENT = 0x80,
    ACCESS_DPL1 = 0x20,
    ACCESS_DPL2 = 0x40,
    ACCESS_DPL3 = 0x60,
    FLAGS_16BIT = 0x0,
    FLAGS_LONG = 0xa,
    FLAGS_32BIT = 0xc,                   /* with 4 KiB granularity, as FLAGS_LONG */
    FLAGS_32BIT_BYTES = 0x4,
    SCRATCH = SCRATCH_SELECTOR / 8,      /* index of the first scratch entry */
};

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t ist[8];                     /* numbered as in a gate: 1 to 7; ist[0] is reserved */
    uint16_t reserved1[5];
    uint16_t io_map_base;
    uint8_t io_map[8192 + 1];            /* one bit a port; the byte after it must be all ones */
} __attribute__((packed));

enum { IST_DOUBLE_FAULT = 1, IST_NMI = 2, IST_TEST = 3, IST_STACK_BYTES = 4096 };

extern uint64_t gdt[GDT_ENTRIES];
extern struct tss tss;
extern uint8_t ring0_stack[16384], ist_stacks[4][IST_STACK_BYTES];

uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags);
void gdt_load(uint16_t limit);
void desc_init(void);
#endif
#endif
