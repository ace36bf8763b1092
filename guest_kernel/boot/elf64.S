/* Entry of a plain ELF64 image: the loader enters in long mode, the first 4 GiB mapped one to one,
 * interrupts off; nothing else is promised, not even a stack.  We keep the loader's page tables and
 * bring our own GDT, since nothing says where the loader's lies. */
        .text
        .globl _start
_start: cli
        cld
        mov $boot_stack_top, %rsp
        lgdt boot_gdt_pointer
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov %cr0, %rax
        and $~4, %eax                    /* EM off, MP on: SSE is ours to use */
        or $2, %eax
        mov %rax, %cr0
        mov %cr4, %rax
        or $0x600, %eax                  /* OSFXSR, OSXMMEXCPT */
        mov %rax, %cr4
        pushq $0x08
        pushq $1f
        lretq
1:      call kernel_main
2:      cli
        hlt
        jmp 2b

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
        .balign 16
        .globl boot_stack_top, boot_magic, boot_information
boot_stack:       .skip 64 * 1024
boot_stack_top:
boot_magic:       .skip 4
boot_information: .skip 4
