/* sequence_run(record rdi): into ring 3 with the record's state; the trap that ends it stores the state and returns.
 * The offsets are those of struct seq_record. */
#include "lib/desc.h"
#define BITS 0
#define VECTOR 4
#define ERROR 8
#define RAN 12
#define ADDRESS 16
#define RIP 24
#define GPR(n) 32 + 8 * n
#define RFLAGS 160
#define FX 192
#define TSS_RSP0 tss + 4

        .text
        .globl sequence_run, sequence_stubs
sequence_run:
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsp, home
        mov %rsp, TSS_RSP0
        mov %rdi, current
        fxrstor FX(%rdi)
        pushq $USER_SS
        pushq GPR(4)(%rdi)
        pushq RFLAGS(%rdi)
        mov $USER_CS64, %eax
        mov $USER_CS32, %ecx
        cmpl $32, BITS(%rdi)
        cmove %ecx, %eax
        push %rax
        pushq RIP(%rdi)
        mov GPR(0)(%rdi), %rax
        mov GPR(1)(%rdi), %rcx
        mov GPR(2)(%rdi), %rdx
        mov GPR(3)(%rdi), %rbx
        mov GPR(5)(%rdi), %rbp
        mov GPR(6)(%rdi), %rsi
        mov GPR(8)(%rdi), %r8
        mov GPR(9)(%rdi), %r9
        mov GPR(10)(%rdi), %r10
        mov GPR(11)(%rdi), %r11
        mov GPR(12)(%rdi), %r12
        mov GPR(13)(%rdi), %r13
        mov GPR(14)(%rdi), %r14
        mov GPR(15)(%rdi), %r15
        mov GPR(7)(%rdi), %rdi
        iretq

/* One stub a vector, sixteen bytes apart, of the 32 exceptions. */
        .balign 16
sequence_stubs:
        vector = 0
        .rept 32
        .balign 16
        .if (0x27d00 >> vector) & 1
        .else
        pushq $0
        .endif
        pushq $vector
        jmp 1f
        vector = vector + 1
        .endr

/* RDI, vector, error code, RIP, CS, RFLAGS, RSP, SS are on the stack. */
1:      push %rdi
        mov current, %rdi
        testl $3, 32(%rsp)
        jz 2f
        mov %rax, GPR(0)(%rdi)
        mov %rcx, GPR(1)(%rdi)
        mov %rdx, GPR(2)(%rdi)
        mov %rbx, GPR(3)(%rdi)
        mov %rbp, GPR(5)(%rdi)
        mov %rsi, GPR(6)(%rdi)
        mov %r8, GPR(8)(%rdi)
        mov %r9, GPR(9)(%rdi)
        mov %r10, GPR(10)(%rdi)
        mov %r11, GPR(11)(%rdi)
        mov %r12, GPR(12)(%rdi)
        mov %r13, GPR(13)(%rdi)
        mov %r14, GPR(14)(%rdi)
        mov %r15, GPR(15)(%rdi)
        pop GPR(7)(%rdi)
        pop %rax
        mov %eax, VECTOR(%rdi)
        pop %rax
        mov %eax, ERROR(%rdi)
        pop RIP(%rdi)
        add $8, %rsp
        pop RFLAGS(%rdi)
        pop GPR(4)(%rdi)
        mov %cr2, %rax
        mov %rax, ADDRESS(%rdi)
        movl $2, RAN(%rdi)
2:      fxsave FX(%rdi)                  /* a trap of ring 0 leaves the record "started" */
        cld
        mov home, %rsp
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        ret

        .bss
        .balign 8
home:   .skip 8
current: .skip 8
