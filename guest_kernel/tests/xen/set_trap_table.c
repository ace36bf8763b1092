/* Traps bounce to the guest with their frames and error codes. */
#include "xen/pv.h"

const char test_title[] = "set_trap_table";

void test_main(void)
{
    equal(CALL1(SET_TRAP_TABLE, BAD), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL1(SET_TRAP_TABLE, HOLE), FAULT, "a pointer into the hole is EFAULT");
    take_traps();
    TRYING("int3", "i"(0));
    equal(trap_vector, 3, "INT3 is #BP");
    TRYING("ud2", "i"(0));
    equal(trap_vector, 6, "UD2 is #UD");
    TRYING("mov (%0), %%rax", "r"(BAD));
    equal(trap_vector, 14, "a read of nothing is #PF");
    equal(trap_error & 3, 0, "its code says: not present, read");
    TRYING("mov %%rax, (%0)", "r"(BAD));
    equal(trap_error & 3, 2, "a write's says: write");
    TRYING("int $0x40", "i"(0));
    equal(trap_vector, 13, "INT n without a handler is #GP");
    equal(trap_error, 0x40 * 8 + 2, "its code names the vector");
    equal(CALL1(SET_TRAP_TABLE, 0), 0, "no table takes every handler away");
}
