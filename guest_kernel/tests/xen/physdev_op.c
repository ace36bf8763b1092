/* I/O privilege, which opens nothing. */
#include "xen/pv.h"

const char test_title[] = "physdev_op";

void test_main(void)
{
    uint32_t level = 4;

    take_traps();
    TRYING("in $0x70, %%al", "i"(0));
    equal(trap_vector, 13, "a port is #GP");
    equal(CALL2(PHYSDEV_OP, 6, &level), INVAL, "IOPL 4 is EINVAL");
    level = 1;
    equal(CALL2(PHYSDEV_OP, 6, &level), 0, "IOPL 1 is taken");
    TRYING("in $0x70, %%al", "i"(0));
    equal(trap_vector, 0, "then a port reads");
    equal(CALL2(PHYSDEV_OP, 6, BAD), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL2(PHYSDEV_OP, 13, scratch), PERM, "a physical interrupt is EPERM");
    equal(CALL2(PHYSDEV_OP, 99, 0), NOSYS, "another command is ENOSYS");
}
