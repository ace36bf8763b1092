/* Long mode to legacy protected mode and back, and from there to real mode and back. */
#include "desc.h"
#include "legacy.h"
#define CR0_PE 1
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define PUSHES_ERROR_CODE 0x27d00

        .text
        .globl legacy_call, legacy_stubs, real_mode_call
legacy_call:
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        pushfq
        cli
        mov %rsp, saved_rsp
        mov %cr0, %rax
        mov %rax, saved_cr0
        mov %cr3, %rax
        mov %rax, saved_cr3
        mov %cr4, %rax
        mov %rax, saved_cr4
        sidt saved_idt
        mov %rdi, %rsi
        mov $call_copy, %edi
        mov $20, %ecx
        cld
        rep movsb
        ljmpl *to_compat
to_compat:
        .long in_compat
        .short KERNEL_CS32

        .code32
in_compat:
        mov %cr0, %eax
        and $~CR0_PG, %eax
        mov %eax, %cr0                   /* the next line runs in legacy protected mode */
        mov $MSR_EFER, %ecx
        rdmsr
        and $~EFER_LME, %eax
        wrmsr
        lidt legacy_idt_pointer
        mov call_copy + 16, %eax
        mov %eax, %cr4
        mov call_copy + 12, %eax
        mov %eax, %cr3
        mov call_copy + 8, %eax
        mov %eax, %cr0
        mov $legacy_stack_top, %esp
        mov $KERNEL_SS, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov call_copy + 4, %eax
        call *call_copy

        cli
        mov %cr0, %eax
        and $~CR0_PG, %eax
        or $CR0_PE, %eax
        mov %eax, %cr0
        mov saved_cr4, %eax
        mov %eax, %cr4
        mov saved_cr3, %eax
        mov %eax, %cr3
        mov $MSR_EFER, %ecx
        rdmsr
        or $EFER_LME, %eax
        wrmsr
        mov saved_cr0, %eax
        mov %eax, %cr0
        ljmp $KERNEL_CS, $back_in_long
        .code64
back_in_long:
        lidt saved_idt
        mov $KERNEL_SS, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        xor %eax, %eax
        mov %eax, %fs
        mov %eax, %gs
        mov saved_rsp, %rsp
        popfq
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        ret

/* One stub a vector, as in trap_entry.S; all meet in note_trap. */
        .code32
        .balign 16
legacy_stubs:
        vector = 0
        .rept 256
        .balign 16
        .if vector < 32 && ((PUSHES_ERROR_CODE >> (vector & 31)) & 1)
        .else
        pushl $0
        .endif
        pushl $vector
        jmp note_trap
        vector = vector + 1
        .endr

/* struct legacy_trap: vector, error code, EIP, CS, EFLAGS, ESP, SS (if the ring changed), CR2,
 * frame. */
note_trap:
        pushal
        push %ds
        push %es
        mov $KERNEL_SS, %eax
        mov %eax, %ds
        mov %eax, %es
        lea 40(%esp), %esi               /* past 2 selectors and 8 registers: the vector */
        mov $legacy_trap, %edi
        mov $7, %ecx
        cld
        rep movsl
        mov %cr2, %eax
        stosl
        lea 48(%esp), %eax
        stosl
        mov legacy_resume, %eax
        test %eax, %eax
        jz 1f
        mov %eax, 48(%esp)               /* EIP */
        movl $0, legacy_resume
1:      pop %es
        pop %ds
        popal
        add $8, %esp
        iretl

/* Protected mode to real mode: through 16-bit segments, so that the hidden parts have 64 KiB
 * limits. */
real_mode_call:
        mov %esp, saved_esp32
        mov $real_entry, %esi
        mov $LOW_CODE + 0xf00, %edi      /* the last part of the page: ours */
        mov $real_entry_end - real_entry, %ecx
        cld
        rep movsb
        mov real_target, %ebx
        lidt real_idt_pointer
        mov $KERNEL_DS16, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        ljmp $KERNEL_CS16, $LOW_CODE + 0xf00
back_in_protected:
        mov $KERNEL_SS, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov saved_esp32, %esp
        lidt legacy_idt_pointer
        ret

        .code16
real_entry:
        mov %cr0, %eax
        and $~CR0_PE, %eax
        mov %eax, %cr0
        ljmp $0, $LOW_CODE + 0xf00 + 1f - real_entry
1:      xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $LOW_STACK, %esp
        call *%bx
        cli
        mov %cr0, %eax
        or $CR0_PE, %eax
        mov %eax, %cr0
        ljmpl $KERNEL_CS32, $back_in_protected
real_entry_end:

        .section .rodata
legacy_idt_pointer:
        .short 256 * 8 - 1
        .long idt32
real_idt_pointer:
        .short 0x3ff
        .long 0

        .bss
        .balign 16
saved_rsp:      .skip 8
saved_cr0:      .skip 8
saved_cr3:      .skip 8
saved_cr4:      .skip 8
saved_idt:      .skip 16
saved_esp32:    .skip 4
call_copy:      .skip 20
                .balign 16
legacy_stack:   .skip 4096
legacy_stack_top:
