/* The loops of loop.h. Assembly, so that every compiler gives the same instructions. */
#define AREA 0x2000000
#define AREA_BYTES 0x4000000
#define AREA_WORDS (AREA_BYTES - 8)      /* mask of an eight-byte aligned offset */
#define TABLE_WORDS 511
#define SEED 0x9e3779b97f4a7c15
#define STRIDE 200                       /* a new page every twentieth step, never the same line twice */

/* xorshift64: the next pseudo-random number in rax */
.macro NEXT_RANDOM
        mov %rax, %rdx
        shl $13, %rdx
        xor %rdx, %rax
        mov %rax, %rdx
        shr $7, %rdx
        xor %rdx, %rax
        mov %rax, %rdx
        shl $17, %rdx
        xor %rdx, %rax
.endm

        .text
        .globl fill_area, mixed_loop, tight_loop, load_loop

fill_area:
        cld
        mov $AREA, %edi
        mov $AREA_BYTES / 8, %ecx
        movabs $SEED, %rax
        rep stosq
        ret

/* r8 the sum, r9 offset of the sweep, r10 the table, rsi the area */
        .balign 64
mixed_loop:
        movabs $SEED, %rax
        xor %r8d, %r8d
        xor %r9d, %r9d
        lea table(%rip), %r10
        mov $AREA, %esi
1:      NEXT_RANDOM
        add (%rsi,%r9), %r8              /* the sweep over 64 MiB */
        add $STRIDE, %r9
        and $AREA_WORDS, %r9
        mov %eax, %ecx
        and $TABLE_WORDS, %ecx
        add (%r10,%rcx,8), %r8           /* a table that stays in reach */
        test $0x400, %eax                /* half of the time, in no order */
        jz 2f
        imul $0x5bd1e995, %r8, %r8
        ror $11, %r8
        jmp 3f
2:      lea 1(%r8,%rax,4), %r8
        not %r8
3:      test $0x1800, %eax
        jnz 4f
        call helper                      /* a quarter of the time */
4:      test $0x1e000, %eax
        jnz 5f
        mov %rax, %rdx                   /* a sixteenth: anywhere in the 64 MiB */
        shr $24, %rdx
        and $AREA_WORDS, %rdx
        add (%rsi,%rdx), %r8
5:      mov %r8, (%r10,%rcx,8)
        dec %rdi
        jnz 1b
        mov %r8, %rax
        ret

helper: push %rcx
        mov %r8d, %ecx
        shr %cl, %r8
        adc %rax, %r8
        pop %rcx
        ret

        .balign 64
tight_loop:
        xor %eax, %eax
1:      add %rdi, %rax
        rol $3, %rax
        xor %rdi, %rax
        dec %rdi
        jnz 1b
        ret

        .balign 64
load_loop:
        movabs $SEED, %rax
        xor %r8d, %r8d
        mov $AREA, %esi
1:      NEXT_RANDOM
        mov %rax, %rdx
        shr $24, %rdx
        and $AREA_WORDS, %rdx
        add (%rsi,%rdx), %r8
        dec %rdi
        jnz 1b
        mov %r8, %rax
        ret

        .bss
        .balign 4096                     /* a page without code */
table:  .skip (TABLE_WORDS + 1) * 8
