/* The handlers of costs.h. */
        .text
        .globl page_fault_entry, interrupt_entry
page_fault_entry:
        add $8, %rsp
        mov %r15, (%rsp)
interrupt_entry:
        iretq
