/* Exceptions and interrupts: the IDT, and three ways to meet a trap.
 *
 * 1. A handler: trap_handle(vector, function).
 * 2. TRY("instruction", : outputs : inputs): run one instruction and return the trap it caused.
 *    The exception table pairs its address with the address after it, where a fault resumes.
 * 3. try_call(function, argument): run anything, also code that jumps into nowhere; the first trap
 *    that no handler and no table entry wants abandons the call.  enter_user() does the same from
 *    ring 3.
 * A trap that nobody wants ends the test: registers are printed, status 127. */
#ifndef LIB_TRAP_H
#define LIB_TRAP_H
#include <stdbool.h>
#include <stdint.h>

enum vector {
    DE = 0, DB = 1, NMI = 2, BP = 3, OF = 4, BR = 5, UD = 6, NM = 7, DF = 8, TS = 10, NP = 11,
    SS = 12, GP = 13, PF = 14, MF = 16, AC = 17, MC = 18, XM = 19,
    NO_TRAP = -1,
};

/* As trap_entry.S pushes it; the last five words are the processor's. */
struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error_code;
    uint64_t rip, cs, rflags, rsp, ss;
};

/* The last trap that TRY, try_call or enter_user caught. */
struct trap {
    int vector;
    uint64_t error_code, rip, cs, rflags, rsp, ss, cr2;
    uint64_t rax, rcx, rdx, r11;
    uint64_t handler_flags;              /* RFLAGS as the handler found them */
    uint64_t frame;                      /* address of the processor's part of the frame */
    bool after;                          /* saved RIP was after the instruction, not at it */
};

typedef void (*trap_handler)(struct trap_frame *frame);

struct gate {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

enum { GATE_INTERRUPT = 0x8e, GATE_TRAP = 0x8f, GATE_DPL3 = 0x60 };

extern struct gate idt[256];
extern volatile struct trap caught;

void trap_init(void);
void idt_load(void);
void idt_load_limit(uint16_t limit);
trap_handler trap_handle(unsigned vector, trap_handler handler);
void gate_set(unsigned vector, void *target, uint8_t type, uint8_t ist);
void gate_reset(unsigned vector);
void *trap_stub(unsigned vector);
struct trap try_call(void (*function)(void *), void *argument);

/* What ring 3 starts with.  It comes back by a trap: an exception, INT, or try_abandon(). */
struct user_start {
    uint64_t rip, cs, rflags, rsp, ss, argument;
};
struct trap enter_user(const struct user_start *start);

void trap_forget(void);
void trap_note(const struct trap_frame *frame);
void try_abandon(struct trap_frame *frame);

#define FIXUP(from, to)                                                          \
    ".pushsection .fixups, \"a\"\n\t.quad " from ", " to "\n\t.popsection\n\t"

#define TRY(instruction, ...)                                                    \
    ({                                                                           \
        trap_forget();                                                           \
        asm volatile("771:\t" instruction "\n772:\n\t" FIXUP("771b", "772b")    \
                     __VA_ARGS__);                                               \
        caught;                                                                  \
    })

/* The same with something before and after the instruction that is tried (label 771 to 772). */
#define TRY_WITHIN(before, instruction, after, ...)                              \
    ({                                                                           \
        trap_forget();                                                           \
        asm volatile(before "\n771:\t" instruction "\n772:\t" after "\n\t"        \
                     FIXUP("771b", "772b") __VA_ARGS__);                         \
        caught;                                                                  \
    })

/* The same in 32-bit code: through a far jump to compatibility mode and another one back. */
#define TRY_COMPAT(instruction, ...)                                             \
    TRY_WITHIN("ljmpl *773f(%%rip)\n773:\t.long 774f\n\t.short 0x38\n774:\t.code32", \
               instruction, "ljmpl $8, $775f\n\t.code64\n775:", __VA_ARGS__)

static inline bool trap_is(struct trap trap, int vector, uint64_t error_code)
{
    return trap.vector == vector && trap.error_code == error_code;
}
#endif
