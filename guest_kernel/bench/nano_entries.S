/* The handlers of nano.h, and a subroutine. */
        .text
        .globl nano_page_fault, nano_divide, nano_syscall, just_return
nano_page_fault:
        add $8, %rsp
nano_divide:
        mov %r15, (%rsp)
        iretq
nano_syscall:
        sysretq
just_return:
        ret
