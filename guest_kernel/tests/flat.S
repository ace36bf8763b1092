/* Flat
 *
 * A flat binary, entered in real mode at 0:0x7c00.  With the signature of a boot sector behind it a
 * BIOS would start it likewise, and that is how QEMU judges it.  Says so, checks that it is in real
 * mode, sets and takes a software interrupt through the interrupt vector table, and ends the
 * machine. */
        .code16
        .text
        .globl _start
_start: ljmp $0, $1f                     /* a BIOS may come with CS:IP 07c0:0000 */
1:      xor %ax, %ax
        mov %ax, %ds
        mov %ax, %es
        mov %ax, %ss
        mov $0x7c00, %sp
        cld
        mov $greeting, %si
        call print
        smsw %ax
        test $1, %al
        jnz failed
        movw $on_interrupt, 4 * 0x77
        movw $0, 4 * 0x77 + 2
        sti
        int $0x77
        pushf
        pop %ax
        test $0x200, %ax                 /* IRET brought IF back */
        jz failed
        cmpw $0x1234, answer
        jne failed
        mov $passed_text, %si
        call print
        xor %eax, %eax
finish: mov $0x3fd, %dx
2:      in %dx, %al
        test $0x40, %al
        jz 2b
        mov %ecx, %eax
        mov $0xf4, %dx
        out %eax, %dx
        mov $shutdown, %si
        mov $0x8900, %dx
3:      lodsb
        out %al, %dx
        test %al, %al
        jnz 3b
4:      cli
        hlt
        jmp 4b

failed: mov $failed_text, %si
        call print
        mov $1, %ecx
        jmp finish

on_interrupt:
        pushf
        pop %ax
        test $0x200, %ax                 /* INT clears IF */
        jnz 5f
        movw $0x1234, answer
5:      iret

print:  mov $0x3fd, %dx
6:      in %dx, %al
        test $0x20, %al
        jz 6b
        lodsb
        test %al, %al
        jz 7f
        mov $0x3f8, %dx
        out %al, %dx
        jmp print
7:      xor %ecx, %ecx
        ret

greeting:    .asciz "TEST: Flat binary in real mode at 0:0x7c00\n"
passed_text: .asciz "PASS: INT and IRET through the vector table\nSUMMARY: 1 tests\n"
failed_text: .asciz "FAIL: INT and IRET through the vector table\nSUMMARY: 1 tests, 1 unexpected failures\n"
shutdown:    .asciz "Shutdown"
answer:      .short 0
