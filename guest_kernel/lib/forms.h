/* Instruction forms: a piece of assembly run with known registers on known memory, and all that it
 * may have changed.  Two runs of one form, on two kinds of memory, must end alike.
 *
 *   FORM("add %eax, (%rdi)", ARITHMETIC, 0)
 *
 * On entry RDI points at the subject, RSI at ordinary memory, RAX RCX RDX RBX hold patterns. */
#ifndef LIB_FORMS_H
#define LIB_FORMS_H
#include <stdint.h>

/* Which flags a form defines; what the manual leaves undefined is not compared. */
#define ARITHMETIC 0x8d5
#define LOGIC 0x8c5                      /* not AF */
#define SHIFT 0x0c5                      /* not AF, not OF: counts above one */
#define CARRY 0x041
#define ZERO 0x040
#define MULTIPLY 0x801                   /* CF and OF */
#define NOTHING 0

/* What a form needs of CPUID. */
enum need { NEED_NOTHING, NEED_MOVBE, NEED_BMI, NEED_SSE42, NEED_CX16 };

#define FORM_NUMBER(value) FORM_TEXT(value)
#define FORM_TEXT(value) #value
#define FORM(text, flags, need)                                                  \
    asm(".pushsection .text\n771:\t" text "\n\tret\n\t.popsection\n\t"           \
        ".pushsection .rodata\n772:\t.asciz \"" text "\"\n\t.popsection\n\t"     \
        ".pushsection .forms, \"a\"\n\t.quad 771b, 772b, " FORM_NUMBER(flags) ", " #need "\n\t"     \
        ".popsection\n");

struct form {
    const void *code;
    const char *text;
    uint64_t flags, need;
};

struct form_state {
    uint64_t rax, rcx, rdx, rbx, rsi, rdi, rflags, reserved;
    uint8_t xmm[2][16];
};

extern const struct form forms_start[], forms_end[];
void form_run(const void *code, struct form_state *state);
#endif
