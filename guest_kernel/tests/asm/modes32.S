/* The 32-bit half of tests/modes.c: functions for legacy_call(), flat segments, ring 0, no
 * paging. */
#include "lib/desc.h"
#include "lib/legacy.h"
#include "tests/asm/modes.h"
#define TSS32 0x90                       /* selectors that modes.c fills in; 0x50 on are scratch */
#define DATA_WITH_BASE 0x50
#define CODE_WITH_BASE 0x58
#define GATE_ASK 0x68
#define GATE_LEAVE 0x70
#define RING_CS 0x78
#define RING_SS 0x80
#define FLAGS_VM 0x20000

        .text
        .code32
        .globl modes32_segments, modes32_traps, modes32_ring, modes32_v86, modes32_big_real
        .globl modes32_ask, modes32_leave, modes32_v86_leave, modes32_based

/* Results in order at `seen`: data through a base, CS in based code, selectors. */
modes32_segments:
        mov %cs, %eax
        mov %eax, seen
        mov $DATA_WITH_BASE, %eax
        mov %eax, %fs
        mov %fs:4, %eax
        mov %eax, seen + 4
        lcall $CODE_WITH_BASE, $0x10     /* modes32_based, at its segment's base + 16 */
        mov %eax, seen + 8
        lcall *far_pointer16
        mov $KERNEL_SS, %eax
        mov %eax, %ds
        lcall $KERNEL_CS32, $1f
        jmp 2f
1:      mov 4(%esp), %eax
        mov %eax, seen + 12
        lret
2:      ret

        .balign 16
        .skip 16
modes32_based:                           /* modes.c sets the base of CODE_WITH_BASE 16 before this */
        mov %cs, %eax
        lret

/* INT and a fault with error code in 32-bit mode, noted by legacy.S. */
modes32_traps:
        movl $1f, legacy_resume
        mov %esp, seen + 4
        int $0x70
1:      mov $legacy_trap, %esi
        mov $seen + 16, %edi
        mov $9, %ecx
        rep movsl
        movl $1b, seen + 8
        mov $0xfff8, %eax
        movl $3f, legacy_resume
2:      mov %eax, %fs
3:      movl $2b, seen + 12
        ret

/* Into ring 1, 2 or 3 (argument: ring | EFLAGS << 8), ask ring 0 by a call gate, come back, try
 * CLI. */
modes32_ring:
        mov %eax, %ebx
        and $3, %ebx
        shr $8, %eax
        mov %eax, %edx
        mov $TSS32, %eax
        ltr %ax
        mov %esp, saved_esp
        lea RING_SS(%ebx), %eax
        push %eax
        push $ring_stack_top
        push %edx
        lea RING_CS(%ebx), %eax
        push %eax
        push $in_ring
        iretl
in_ring:
        mov %cs, %eax
        mov %ss, %ecx
        mov %ecx, %ds                    /* IRET took ring 0's away */
        mov %ecx, %es
        mov %eax, seen
        mov %ecx, seen + 4
        pushl $0x5151                    /* one parameter, copied by the gate */
        lcall $GATE_ASK + 3, $0
        mov %eax, seen + 8
        mov %esp, seen + 12
        movl $1f, legacy_resume
        movl $-1, legacy_trap
        cli
1:      movl $0, legacy_resume
        mov legacy_trap, %eax
        mov %eax, seen + 16
        mov legacy_trap + 12, %eax
        mov %eax, seen + 20
        lcall $GATE_LEAVE + 3, $0

/* Ring 0's end of the gate: EIP, CS, the parameter, ESP, SS are on its stack. */
modes32_ask:
        mov %cs, %eax
        mov %eax, seen + 24
        mov 4(%esp), %eax
        mov %eax, seen + 28
        mov 8(%esp), %eax
        lret $4
modes32_leave:
        mov saved_esp, %esp
        mov $KERNEL_SS, %eax
        mov %eax, %ds
        mov %eax, %es
        ret

/* Into V8086 mode (argument: EFLAGS); whatever trap comes first comes back here. */
modes32_v86:
        mov %eax, %edx
        mov $TSS32, %eax
        ltr %ax
        mov %esp, saved_esp
        pushl $0x4444                    /* GS, FS, DS, ES */
        pushl $0x3333
        pushl $0x2222
        pushl $0x1111
        pushl $0                         /* SS:SP */
        pushl $LOW_STACK
        or $FLAGS_VM, %edx
        push %edx
        pushl $LOW_CODE / 16
        mov v86_entry, %eax
        push %eax
        iretl
/* The frame that V8086 mode leaves: [error code,] EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS. */
modes32_v86_leave:
        mov $KERNEL_SS, %eax
        mov %ds, %ebx                    /* null: the processor cleared them */
        mov %eax, %ds
        mov %eax, %es
        mov %esp, %esi
        mov $seen, %edi
        mov $10, %ecx
        cld
        rep movsl
        mov %ebx, seen + 40
        mov saved_esp, %esp
        ret

/* Give FS base 0 and limit 4 GiB, then go to real mode. */
modes32_big_real:
        mov $KERNEL_SS, %eax
        mov %eax, %fs
        jmp real_mode_call

        .bss
        .balign 16
        .globl seen, ring_stack_top, v86_entry, far_pointer16
far_pointer16:  .skip 8
seen:           .skip 128
saved_esp:      .skip 4
v86_entry:      .skip 4
ring_stack:     .skip 1024
ring_stack_top: .skip 16
