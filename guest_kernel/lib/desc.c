/* Our GDT and TSS, and their loading. */
#include "desc.h"
#include "cpu.h"

uint64_t gdt[GDT_ENTRIES] __attribute__((aligned(16)));
struct tss tss __attribute__((aligned(4096)));
uint8_t ring0_stack[16384] __attribute__((aligned(16)));
uint8_t ist_stacks[4][IST_STACK_BYTES] __attribute__((aligned(16)));

/* The base and the limit lie scattered over a descriptor for the sake of the 80286. */
uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
    return (limit & 0xffffull) | (base & 0xffffffull) << 16 | (uint64_t)access << 40
           | (limit >> 16 & 0xfull) << 48 | (uint64_t)flags << 52
           | (uint64_t)(base >> 24) << 56;
}

static void fill_gdt(void)
{
    gdt[KERNEL_CS / 8] = descriptor(0, 0xfffff, ACCESS_CODE, FLAGS_LONG);
    gdt[KERNEL_SS / 8] = descriptor(0, 0xfffff, ACCESS_DATA, FLAGS_32BIT);
    gdt[USER_CS32 / 8] = descriptor(0, 0xfffff, ACCESS_CODE | ACCESS_DPL3, FLAGS_32BIT);
    gdt[USER_SS / 8] = descriptor(0, 0xfffff, ACCESS_DATA | ACCESS_DPL3, FLAGS_32BIT);
    gdt[USER_CS64 / 8] = descriptor(0, 0xfffff, ACCESS_CODE | ACCESS_DPL3, FLAGS_LONG);
    gdt[USER_SS_SYSEXIT / 8] = gdt[USER_SS / 8];
    gdt[KERNEL_CS32 / 8] = descriptor(0, 0xfffff, ACCESS_CODE, FLAGS_32BIT);
    gdt[KERNEL_CS16 / 8] = descriptor(0, 0xffff, ACCESS_CODE, FLAGS_16BIT);
    gdt[KERNEL_DS16 / 8] = descriptor(0, 0xffff, ACCESS_DATA, FLAGS_16BIT);
}

static void fill_tss(void)
{
    uint64_t base = (uint64_t)&tss;

    gdt[TSS_SELECTOR / 8] = descriptor((uint32_t)base, sizeof tss - 1, ACCESS_TSS, 0);
    gdt[TSS_SELECTOR / 8 + 1] = base >> 32;
    tss.rsp[0] = (uint64_t)ring0_stack + sizeof ring0_stack;
    for (int i = 1; i <= 3; i++)
        tss.ist[i] = (uint64_t)ist_stacks[i] + IST_STACK_BYTES;
    tss.io_map_base = sizeof tss;        /* no map: every port is refused outside IOPL */
}

/* Load the GDT with this limit and reload every segment register from it. */
void gdt_load(uint16_t limit)
{
    struct table_pointer pointer = { limit, (uint64_t)gdt };

    asm volatile("lgdt %0\n\t"
                 "pushq %1\n\t"
                 "lea 1f(%%rip), %%rax\n\t"
                 "push %%rax\n\t"
                 "lretq\n"
                 "1:\tmov %2, %%ds\n\t"
                 "mov %2, %%es\n\t"
                 "mov %2, %%ss\n\t"
                 : : "m"(pointer), "i"(KERNEL_CS), "r"(KERNEL_SS) : "rax", "memory");
}

void desc_init(void)
{
    fill_gdt();
    fill_tss();
    gdt_load(sizeof gdt - 1);
    asm volatile("lldt %w0" : : "r"(0));
    asm volatile("ltr %w0" : : "r"(TSS_SELECTOR));
}
