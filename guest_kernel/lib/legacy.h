/* Out of long mode and back: run 32-bit code in legacy protected mode, or 16-bit code in real mode.
 *
 * The way out is the way in, backwards: compatibility mode, CR0.PG off, EFER.LME off; for real mode
 * then a 16-bit code segment and CR0.PE off.  All of the image lies below 4 GiB and is mapped one
 * to one, so 32-bit code runs where it is linked; 16-bit code is copied to LOW_CODE.
 *
 * Traps in 32-bit code are noted in legacy_trap and resume at legacy_resume. */
#ifndef LIB_LEGACY_H
#define LIB_LEGACY_H
#define LOW_CODE 0x8000                  /* 16-bit code and its data, up to 0x8fff */
#define LOW_STACK 0x7000                 /* grows down */

#ifndef __ASSEMBLER__
#include <stdint.h>

/* Read by legacy.S: keep the order. */
struct legacy_call {
    uint32_t code, argument;             /* 32-bit function; it finds the argument in EAX */
    uint32_t cr0, cr3, cr4;              /* to run it with */
};

struct legacy_trap {
    uint32_t vector, error_code, eip, cs, eflags, esp, ss, cr2, frame;
};

extern struct legacy_trap legacy_trap;
extern uint32_t legacy_resume;
extern uint64_t idt32[256];

void legacy_init(void);
void legacy_call(const struct legacy_call *call);
void real_call(uint32_t low_address);
uint64_t gate32(uint32_t offset, uint16_t selector, unsigned type);
#endif
#endif
