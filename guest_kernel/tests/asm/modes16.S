/* The 16-bit half of tests/modes.c, copied to LOW_CODE.  Addresses inside it are LOW(symbol).
 * Results go to the words at RESULTS, which modes.c reads by the same names. */
#include "lib/desc.h"
#include "lib/legacy.h"
#include "tests/asm/modes.h"
#define LOW(symbol) (LOW_CODE + symbol - modes16_start)
#define VECTOR(n) (4 * (n))

        .text
        .code16
        .globl modes16_start, modes16_end, modes16_real, modes16_unreal, modes16_segment, modes16_v86
        .globl modes16_v86_int
modes16_start:

/* Real mode, called by real_call(). */
modes16_real:
        smsw %ax
        mov %ax, RESULT_MSW
        mov %cs, %ax
        mov %ax, RESULT_CS
        call interrupts
        call divide_error
        call far_transfers
        call segments
        call operand_sizes
        call to_protected_and_back
        movw $DONE, RESULT_DONE
        ret

interrupts:
        movw $LOW(on_interrupt), VECTOR(0x77)
        movw $0, VECTOR(0x77) + 2
        sti
        int $0x77
after_interrupt:
        pushf
        pop %ax
        mov %ax, RESULT_FLAGS_AFTER
        cli
        ret

on_interrupt:
        pushf
        pop %ax
        mov %ax, RESULT_FLAGS_INSIDE
        mov %sp, %bp
        mov (%bp), %ax
        sub $LOW(after_interrupt), %ax
        mov %ax, RESULT_RETURN_IP        /* 0 when right */
        mov 2(%bp), %ax
        mov %ax, RESULT_RETURN_CS
        mov 4(%bp), %ax
        mov %ax, RESULT_FLAGS_SAVED
        iret

/* In real mode, too, the saved IP of #DE is that of the instruction; there is no error code. */
divide_error:
        movw $LOW(on_divide_error), VECTOR(0)
        movw $0, VECTOR(0) + 2
        xor %cx, %cx
        mov $1, %ax
        xor %dx, %dx
divide: div %cx
after_divide:
        ret

on_divide_error:
        mov %sp, %bp
        mov (%bp), %ax
        sub $LOW(divide), %ax
        mov %ax, RESULT_DIVIDE_IP        /* 0 when right */
        movw $LOW(after_divide), (%bp)
        iret

/* The same bytes are reached as 0:LOW_CODE and as LOW_CODE/16:0. */
far_transfers:
        lcall $LOW_CODE / 16, $far_callee - modes16_start
        mov %cs, %ax
        mov %ax, RESULT_CS_BACK
        ljmp $LOW_CODE / 16, $far_jumped - modes16_start
far_jumped:
        mov %cs, %ax
        mov %ax, RESULT_CS_JUMPED
        pushw $0
        pushw $LOW(far_returned)
        lret
far_returned:
        ret

far_callee:
        mov %cs, %ax
        mov %ax, RESULT_CS_CALLED
        mov %sp, %bp
        mov 2(%bp), %ax
        mov %ax, RESULT_CS_PUSHED
        lret

segments:
        mov $LOW_CODE / 16, %ax
        mov %ax, %es
        mov %es:pattern - modes16_start, %eax
        mov %eax, RESULT_BY_SEGMENT
        mov $0xffff, %ax                 /* ffff:0010 + LOW_CODE - 0x100000 would be the first MiB's end */
        mov %ax, %es
        mov %es:0x10, %eax               /* physical 0x100000: our image, with A20 on */
        mov %eax, RESULT_ABOVE_MIB
        xor %ax, %ax
        mov %ax, %es
        mov $0xffff, %si
        lodsb                            /* SI wraps at 64 KiB */
        mov %si, RESULT_SI
        ret

operand_sizes:
        mov %sp, %bx
        pushl $0x12345678
        mov %sp, %ax
        sub %ax, %bx
        mov %bx, RESULT_PUSHL
        pop %ax
        pop %dx
        mov %ax, RESULT_POP_LOW
        mov $LOW(pattern), %ebx
        mov (%ebx), %eax                 /* 32-bit address and operand in 16-bit code */
        mov %eax, RESULT_ADDR32
        ret

/* Real mode to 16-bit protected mode and back, without passing through 32-bit code. */
to_protected_and_back:
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        ljmp $KERNEL_CS16, $LOW(in_protected)
in_protected:
        mov $KERNEL_DS16, %ax
        mov %ax, %ds
        mov %ds, %bx
        mov %cs, %cx
        mov pattern_address, %ax
        mov %cr0, %eax
        and $~1, %al
        mov %eax, %cr0
        ljmp $0, $LOW(in_real_again)
in_real_again:
        xor %ax, %ax
        mov %ax, %ds
        mov %bx, RESULT_DS_PROTECTED
        mov %cx, RESULT_CS_PROTECTED
        ret

/* "Unreal": FS keeps the base and the 4 GiB limit that protected mode gave it. */
modes16_unreal:
        mov $0x100000, %esi
        mov %fs:(%esi), %eax
        mov %eax, RESULT_UNREAL
        ret

/* 16-bit protected mode: entered by a far CALL from 32-bit code, left by a 32-bit far RET. */
modes16_segment:
        mov %cs, %ax
        mov %ax, RESULT_CS16
        mov %sp, %bx
        push %ax
        mov %sp, %cx
        sub %cx, %bx
        pop %ax
        mov %bx, RESULT_PUSH16           /* PUSH takes two bytes here */
        data32 lret

/* V8086 mode, entered by IRET: it sees real-mode segments; CLI at IOPL 0 is the monitor's
 * affair. */
modes16_v86:
        mov %cs, %ax
        mov %ax, %cs:RESULT_V86_CS - LOW_CODE
        mov $LOW_CODE / 16, %ax
        mov %ax, %ds
        mov pattern - modes16_start, %eax
        mov %eax, RESULT_V86_LOAD - LOW_CODE
        cli
modes16_v86_int:
        mov %cs, %ax
        int $0x72

        .balign 4
pattern:
        .long PATTERN
pattern_address = LOW(pattern)
modes16_end:
