/* One stub a vector, sixteen bytes apart; they meet in trap_common with the same frame, whether the
 * processor pushed an error code or not. */
#define PUSHES_ERROR_CODE 0x27d00        /* vectors 8, 10 to 14, 17 */

        .text
        .globl trap_stubs
        .balign 16
trap_stubs:
        vector = 0
        .rept 256
        .balign 16
        .if vector < 32 && ((PUSHES_ERROR_CODE >> (vector & 31)) & 1)
        .else
        pushq $0
        .endif
        pushq $vector
        jmp trap_common
        vector = vector + 1
        .endr

trap_common:
        push %rax
        push %rbx
        push %rcx
        push %rdx
        push %rsi
        push %rdi
        push %rbp
        push %r8
        push %r9
        push %r10
        push %r11
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsp, %rdi
        pushfq
        pop %rsi                         /* what the gate made of IF, TF, NT and RF */
        cld
        mov %rsp, %rbx
        and $~15, %rsp                   /* compatibility-mode traps come with any alignment */
        call trap_dispatch
        mov %rbx, %rsp
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %r11
        pop %r10
        pop %r9
        pop %r8
        pop %rbp
        pop %rdi
        pop %rsi
        pop %rdx
        pop %rcx
        pop %rbx
        pop %rax
        add $16, %rsp
        iretq

/* try_enter(saved_rsp *rdi, function rsi, argument rdx): call; a trap may cut it short at
 * try_landing. */
        .globl try_enter, try_landing, try_user
try_enter:
        call save_registers
        mov %rdx, %rdi
        call *%rsi
try_landing:
        pop %r15
        pop %r14
        pop %r13
        pop %r12
        pop %rbp
        pop %rbx
        ret

/* try_user(saved_rsp *rdi, struct user_start *rsi): the same, but into another ring. */
try_user:
        call save_registers
        mov %rsi, %rax
        pushq 32(%rax)                   /* SS */
        pushq 24(%rax)                   /* RSP */
        pushq 16(%rax)                   /* RFLAGS */
        pushq 8(%rax)                    /* CS */
        pushq (%rax)                     /* RIP */
        mov 40(%rax), %rdi
        xor %eax, %eax
        iretq

save_registers:
        pop %rax
        push %rbx
        push %rbp
        push %r12
        push %r13
        push %r14
        push %r15
        mov %rsp, (%rdi)
        jmp *%rax
