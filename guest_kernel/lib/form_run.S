/* form_run(code rdi, state rsi): load the state, call, store the state. */
        .text
        .globl form_run
form_run:
        push %rbx
        push %rbp
        push %rsi
        mov %rdi, %rbp
        movups 64(%rsi), %xmm0
        movups 80(%rsi), %xmm1
        mov (%rsi), %rax
        mov 8(%rsi), %rcx
        mov 16(%rsi), %rdx
        mov 24(%rsi), %rbx
        mov 40(%rsi), %rdi
        pushq 48(%rsi)
        mov 32(%rsi), %rsi
        popfq
        call *%rbp
        pushfq
        cld
        mov 8(%rsp), %rbp                /* the state */
        popq 48(%rbp)
        mov %rax, (%rbp)
        mov %rcx, 8(%rbp)
        mov %rdx, 16(%rbp)
        mov %rbx, 24(%rbp)
        mov %rsi, 32(%rbp)
        mov %rdi, 40(%rbp)
        movups %xmm0, 64(%rbp)
        movups %xmm1, 80(%rbp)
        pop %rsi
        pop %rbp
        pop %rbx
        ret
