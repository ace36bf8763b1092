/* Starting the other processors: INIT and SIPI, real mode in a page below 1 MiB, long mode. */
#include "others.h"
#include "apic.h"
#include "cpu.h"
#include "desc.h"
#include "string.h"
#include "trap.h"

enum { TRAMPOLINE = 0x8000, STACK_BYTES = 8192 };

extern char ap_start[], ap_end[];
volatile uint32_t ap_count;
uint8_t ap_stacks[MAX_CPUS][STACK_BYTES] __attribute__((aligned(16)));
void ap_main(uint64_t index);
static other_main other_entry;

/* The trampoline is copied to 0x8000 and runs there, so it names its own parts relative to
 * ap_start. */
asm(".pushsection .text\n"
    ".globl ap_start, ap_end\n"
    "ap_start: .code16\n\t"
    "cli\n\tcld\n\t"
    "mov %cs, %ax\n\tmov %ax, %ds\n\t"
    "lgdtl ap_pointer - ap_start\n\t"
    "mov %cr0, %eax\n\tor $1, %al\n\tmov %eax, %cr0\n\t"
    "ljmpl $0x18, $0x8000 + ap_protected - ap_start\n"
    "ap_protected: .code32\n\t"
    "mov $0x10, %eax\n\tmov %eax, %ds\n\tmov %eax, %es\n\tmov %eax, %ss\n\t"
    "mov %cr4, %eax\n\tor $0x620, %eax\n\tmov %eax, %cr4\n\t"
    "mov $boot_pml4, %eax\n\tmov %eax, %cr3\n\t"
    "mov $0xc0000080, %ecx\n\trdmsr\n\tor $0x100, %eax\n\twrmsr\n\t"
    "mov $0x80010033, %eax\n\tmov %eax, %cr0\n\t"
    "ljmpl $0x08, $ap_long\n\t"
    ".balign 8\n"
    "ap_gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff\n"
    "ap_pointer: .short 31\n\t.long 0x8000 + ap_gdt - ap_start\n"
    "ap_end: .code64\n"
    "ap_long:\n\t"
    "mov $1, %eax\n\tlock xadd %eax, ap_count(%rip)\n\t"
    "mov %eax, %edi\n\t"
    "inc %eax\n\timul $8192, %rax, %rax\n\tlea ap_stacks(%rax), %rsp\n\t"
    "call ap_main\n"
    "1:\tcli\n\thlt\n\tjmp 1b\n"
    ".popsection\n");

void ap_main(uint64_t index)
{
    gdt_load(sizeof gdt - 1);
    idt_load();
    apic_init();
    other_entry(index + 1);
}

uint32_t others_running(void)
{
    return ap_count;
}

bool others_wait(volatile uint32_t *word, uint32_t wanted)
{
    for (uint64_t i = 0; i < 20000000 && *word != wanted; i++)
        asm volatile("pause");
    return *word == wanted;
}

void others_start(other_main entry)
{
    other_entry = entry;
    memcpy((void *)TRAMPOLINE, ap_start, (size_t)(ap_end - ap_start));
    apic_write(APIC_ICR, ICR_ALL_BUT_SELF | ICR_INIT | ICR_ASSERT);
    while (apic_read(APIC_ICR) & ICR_BUSY)
        asm volatile("pause");
    for (int i = 0; i < 100000; i++)
        asm volatile("pause");
    apic_write(APIC_ICR, ICR_ALL_BUT_SELF | ICR_STARTUP | ICR_ASSERT | TRAMPOLINE >> 12);
}
