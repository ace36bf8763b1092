/* From the 32-bit entry that both multiboot versions promise to long mode.
 *
 * On entry: protected mode, flat segments, paging off, interrupts off, EAX = which loader this is,
 * EBX = address of its information.  We need, in this order: page tables, CR4.PAE, CR3, EFER.LME,
 * CR0.PG, and a far jump to a 64-bit code segment. */
#define CR0_PE 1
#define CR0_MP 2
#define CR0_ET 0x10
#define CR0_NE 0x20
#define CR0_WP 0x10000
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define CR4_OSFXSR 0x200
#define CR4_OSXMMEXCPT 0x400
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define PRESENT_WRITE 3
#define PRESENT_WRITE_LARGE 0x83

        .code32
        .text
        .globl _start
_start: cli
        cld
        mov $boot_stack_top, %esp
        mov %eax, boot_magic
        mov %ebx, boot_information
        call fill_page_tables
        call enter_long_mode             /* never returns */

/* Identity-map the first 4 GiB: 4 page directories of 512 pages of 2 MiB. */
fill_page_tables:
        movl $boot_pdpt + PRESENT_WRITE, boot_pml4
        mov $boot_pdpt, %edi
        mov $boot_directories + PRESENT_WRITE, %eax
        mov $4, %ecx
1:      mov %eax, (%edi)
        add $0x1000, %eax
        add $8, %edi
        loop 1b
        mov $boot_directories, %edi
        mov $PRESENT_WRITE_LARGE, %eax
        mov $4 * 512, %ecx
2:      mov %eax, (%edi)
        add $0x200000, %eax
        add $8, %edi
        loop 2b
        ret

enter_long_mode:
        mov %cr4, %eax
        or $CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT, %eax
        mov %eax, %cr4
        mov $boot_pml4, %eax
        mov %eax, %cr3
        mov $MSR_EFER, %ecx
        rdmsr
        or $EFER_LME, %eax
        wrmsr
        mov $CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG, %eax
        mov %eax, %cr0                   /* now in compatibility mode: 32-bit code, 64-bit paging */
        lgdt boot_gdt_pointer
        ljmp $0x08, $in_long_mode

        .code64
in_long_mode:
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        xor %eax, %eax
        mov %eax, %fs
        mov %eax, %gs
        mov $boot_stack_top, %rsp
        call kernel_main
1:      cli
        hlt
        jmp 1b

        .section .rodata
        .balign 8
boot_gdt:
        .quad 0
        .quad 0x00af9b000000ffff         /* 0x08: 64-bit code, DPL 0 */
        .quad 0x00cf93000000ffff         /* 0x10: data, DPL 0 */
boot_gdt_pointer:
        .short . - boot_gdt - 1
        .quad boot_gdt

        .bss
        .balign 4096
        .globl boot_pml4, boot_directories, boot_stack_top, boot_magic, boot_information
boot_pml4:        .skip 4096
boot_pdpt:        .skip 4096
boot_directories: .skip 4 * 4096
boot_stack:       .skip 64 * 1024
boot_stack_top:
boot_magic:       .skip 4
boot_information: .skip 4
