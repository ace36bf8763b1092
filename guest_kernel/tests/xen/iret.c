/* The way back from a trap, which no privilege leaves by. */
#include "xen/pv.h"

const char test_title[] = "iret";

void test_main(void)
{
    uint64_t flags, cs;

    flags = resume_with(0x246 | 1);
    check(flags & 1, "the carry flag is what the frame says");
    flags = resume_with(0x246);
    check(!(flags & 1), "and is not when it does not");
    check(flags & 0x200, "interrupts look enabled");
    flags = resume_with(0x3246);
    check((flags & 0x3000) == 0, "IOPL cannot be forged");
    flags = resume_with(0x20246);
    check(!(flags & 0x20000), "nor virtual-8086 mode");
    asm volatile("mov %%cs, %0" : "=r"(cs));
    equal(cs & 3, 3, "the code segment shows RPL 3");
}
