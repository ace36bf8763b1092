/* The debug registers. */
#include "xen/pv.h"

const char test_title[] = "set_debugreg and get_debugreg";

void test_main(void)
{
    equal(CALL2(SET_DEBUGREG, 1, 0x1000), 0, "DR1 is set");
    equal(CALL1(GET_DEBUGREG, 1), 0x1000, "and read");
    equal(CALL1(GET_DEBUGREG, 6), 0xffff0ff0, "DR6 has its fixed bits");
    equal(CALL2(SET_DEBUGREG, 0, HOLE), PERM, "an address in the hole is EPERM");
    equal(CALL2(SET_DEBUGREG, 7, 0x20002), PERM, "a port's breakpoint without CR4.DE is EPERM");
    equal(CALL2(SET_DEBUGREG, 7, 0x20000), 0, "unless it is off");
    equal(CALL2(SET_DEBUGREG, 4, 0), INVAL, "DR4 is EINVAL");
    equal(CALL1(GET_DEBUGREG, 5), INVAL, "so is DR5");
    equal(CALL1(GET_DEBUGREG, 99), INVAL, "and DR99");
}
