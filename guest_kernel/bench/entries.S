/* The handlers of costs.h. */
        .text
        .globl page_fault_entry, page_fault_back, interrupt_entry
page_fault_back:
        add $48, %rsp
        jmp *%r15
page_fault_entry:
        add $8, %rsp
        mov %r15, (%rsp)
interrupt_entry:
        iretq
