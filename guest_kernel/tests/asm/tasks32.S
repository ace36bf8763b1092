/* The 32-bit half of tests/tasks.c: functions for legacy_call(), and the tasks they switch to. */
#include "lib/desc.h"
#include "tests/asm/tasks.h"

        .text
        .code32
        .globl tasks32_run, tasks32_other, tasks32_fault, tasks32_back, tasks16, tasks16_end

/* What a task finds: at `where`, in the order of tests/asm/tasks.h. Uses EAX; EBP, EDI, FS stay. */
.macro note where
        mov %eax, \where + 4 * SEEN_EAX
        mov %esp, \where + 4 * SEEN_ESP
        mov %ebp, \where + 4 * SEEN_EBP
        mov %edi, \where + 4 * SEEN_EDI
        mov (%esp), %eax
        mov %eax, \where + 4 * SEEN_TOP
        pushfl
        popl \where + 4 * SEEN_EFLAGS
        str %eax
        movzx %ax, %eax
        mov %eax, \where + 4 * SEEN_TR
        sldt %eax
        movzx %ax, %eax
        mov %eax, \where + 4 * SEEN_LDT
        mov %cr0, %eax
        mov %eax, \where + 4 * SEEN_CR0
        mov %cr3, %eax
        mov %eax, \where + 4 * SEEN_CR3
        mov %fs, %eax
        mov %eax, \where + 4 * SEEN_FS
        mov %dr7, %eax
        mov %eax, \where + 4 * SEEN_DR7
.endm

/* Argument: what to do, from tasks.h. EBP and EDI must come back. */
tasks32_run:
        push %ebp
        push %edi
        push %ebx
        mov %eax, %ebx
        mov $TASK_MAIN, %eax
        ltr %ax
        mov $0x11111111, %ebp
        mov $0x22222222, %edi
        mov %esp, before_switch
        mov resume_at, %eax
        test %eax, %eax
        jnz 2f
        mov $1f, %eax
2:      mov %eax, legacy_resume
        mov $0x401, %eax                 /* L0 on an address nobody runs; a switch clears it */
        mov %eax, %dr7
        mov $0xe0000000, %eax
        mov %eax, %dr0
        mov $0x33333333, %eax
        cmp $BY_CALL, %ebx
        je by_call
        cmp $BY_JMP, %ebx
        je by_jmp
        cmp $BY_GATE, %ebx
        je by_gate
        cmp $BY_INT, %ebx
        je by_int
        cmp $BY_FAULT, %ebx
        je by_fault
        cmp $BY_CALL16, %ebx
        je by_call16
        cmp $BY_IRET, %ebx
        je by_iret
        jmp 1f
by_call:
        lcall $TASK_OTHER, $0
        jmp 1f
by_jmp: ljmp $TASK_OTHER, $0
        jmp 1f
by_gate:
        lcall $TASK_GATE, $0
        jmp 1f
by_int: int $TASK_VECTOR
        jmp 1f
by_call16:
        lcall $TASK_16, $0
        jmp 1f
by_iret:                                 /* the back link is what tasks.c put there */
        pushfl
        orl $0x4000, (%esp)
        popfl
        iretl
        jmp 1f
by_fault:
        mov $0xfff8, %eax
tasks32_fault:
        mov %eax, %gs
1:      note after_switch
        clts
        movl $0, legacy_resume
        pushfl
        andl $~0x4000, (%esp)            /* whatever happened: no nested task */
        popfl
        xor %eax, %eax
        mov %eax, %dr7
        pop %ebx
        pop %edi
        pop %ebp
        ret

/* The other task: notes what it finds and goes back as its EBX says. */
tasks32_other:
        note in_other
        mov %gs:0, %eax
        mov %eax, in_other + 4 * SEEN_GS_DATA
        mov task_main + 0x24, %eax       /* the old task's EFLAGS, as saved */
        mov %eax, in_other + 4 * SEEN_SAVED_EFLAGS
        mov task_main + 0x20, %eax
        mov %eax, in_other + 4 * SEEN_SAVED_EIP
        cmp $BACK_BY_JMP, %ebx
        je tasks32_back
        cmp $BACK_AFTER_FAULT, %ebx
        jne 2f
        movl $1b, task_main + 0x20
        add $4, %esp
2:      iretl
tasks32_back:
        mov $KERNEL_SS, %eax
        mov %eax, %ds
        ljmp $TASK_MAIN, $0

/* A 16-bit task; its code segment begins here, its data segment is flat. */
        .code16
tasks16:
        movl $in_other, %esi
        movw %ax, 4 * SEEN_EAX(%esi)
        movw %sp, 4 * SEEN_ESP(%esi)
        movw %di, 4 * SEEN_EDI(%esi)
        pushfw
        popw 4 * SEEN_EFLAGS(%esi)
        str %ax
        movw %ax, 4 * SEEN_TR(%esi)
        movw %fs, %ax
        movw %ax, 4 * SEEN_FS(%esi)
        iretw
tasks16_end:

        .bss
        .balign 4
        .globl in_other, after_switch, before_switch, resume_at
in_other:       .skip 4 * SEEN_WORDS
after_switch:   .skip 4 * SEEN_WORDS
before_switch:  .skip 4
resume_at:      .skip 4
