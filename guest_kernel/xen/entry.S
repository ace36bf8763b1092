/* A PV guest's first instructions, its traps and its upcall (public/arch-x86/xen-x86_64.h). */

#define XEN_IRET 23

/* public/elfnote.h: entry, virt_base. */
.section .note.xen, "a"
.macro note kind, value
    .balign 4
    .long 4, 8, \kind
    .asciz "Xen"
    .quad \value
.endm
    note 1, xen_start
    note 3, 0

.text
.globl xen_start
xen_start:
    cld
    lea stack_top(%rip), %rsp
    mov %rsi, %rdi                       /* start_info */
    xor %ebp, %ebp
    call xen_main
    ud2

/* Behind the words of the frame: return by hypercall.  iret_context: rax, r11, rcx, flags, then rip,
 * cs, rflags, rsp, ss as they are. */
.macro return
    pushq $0
    push %rcx
    push %r11
    push %rax
    mov $XEN_IRET, %eax
    syscall
.endm

/* A trap: rcx and r11 on top, an error code where the vector has one.  Goes on at trap_resume. */
.macro entry vector, has_error
.globl trap_\vector
trap_\vector:
    pop %rcx
    pop %r11
    .if \has_error
    popq trap_error(%rip)
    .endif
    movl $\vector, trap_vector(%rip)
    push %rax
    mov 8(%rsp), %rax
    mov %rax, trap_rip(%rip)
    mov trap_resume(%rip), %rax
    mov %rax, 8(%rsp)
    pop %rax
    return
.endm

    entry 1, 0
    entry 3, 0
    entry 6, 0
    entry 7, 0
    entry 13, 1
    entry 14, 1

.globl xen_upcall
xen_upcall:
    pop %rcx
    pop %r11
    push %rax
    incl upcalls(%rip)
    mov vcpu_info(%rip), %rax
    movb $0, (%rax)                      /* evtchn_upcall_pending */
    movq $0, 8(%rax)                     /* evtchn_pending_sel */
    pop %rax
    return

/* long resume_with(uint64_t flags): iret to the next instruction with these flags; what it pushes is
 * given back.  Returns the flags that are there then. */
.globl resume_with
resume_with:
    mov %rsp, %rdx
    pushq $0xe02b                        /* ss */
    push %rdx
    push %rdi                            /* rflags */
    pushq $0xe030                        /* cs with RPL 0, which becomes 3 */
    lea 1f(%rip), %rcx
    push %rcx
    return
1:  pushf
    pop %rax
    ret

.bss
.balign 16
    .skip 16384
stack_top:
