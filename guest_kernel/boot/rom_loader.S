/* The last 4 KiB of a firmware ROM whose only job is to start one guest image, as a multiboot
 * loader would.  It lets Bochs (or `qemu -bios`) judge our kernels without any BIOS: whoever makes
 * the ROM puts the image, flattened, before this page and fills in the parameters and the
 * information below. */
#define INFORMATION 0x9000

        .text
        .globl _start
        .code32
/* 0xfffff000: parameters */
image:       .long 0                     /* where the flattened image lies in the ROM */
image_words: .long 0
target:      .long 0                     /* where it belongs */
entry:       .long 0
magic:       .long 0                     /* for EAX: which loader we pretend to be */
        .org 0x100
information: .skip 0x700                 /* copied to INFORMATION */

        .org 0x800
gdt:    .quad 0
        .quad 0x00cf9b000000ffff         /* 0x08: 32-bit code */
        .quad 0x00cf93000000ffff         /* 0x10: data */
gdt_pointer:
        .short . - gdt - 1
        .long gdt

in_protected_mode:
        mov $0x10, %eax
        mov %eax, %ds
        mov %eax, %es
        mov %eax, %ss
        mov %eax, %fs
        mov %eax, %gs
        cld
        mov image, %esi
        mov target, %edi
        mov image_words, %ecx
        rep movsl
        mov $information, %esi
        mov $INFORMATION, %edi
        mov $0x700 / 4, %ecx
        rep movsl
        mov magic, %eax
        mov $INFORMATION, %ebx
        jmp *entry

        .code16
in_real_mode:
        cli
        data32 lgdt %cs:gdt_pointer - 0xffff0000
        mov %cr0, %eax
        or $1, %al
        mov %eax, %cr0
        data32 ljmp $0x08, $in_protected_mode

        .org 0xff0                       /* 0xfffffff0: where the processor starts */
_start: jmp in_real_mode
        .org 0xfff
        .byte 0
