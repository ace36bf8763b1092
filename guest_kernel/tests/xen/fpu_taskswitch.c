/* The lazy switch of the floating-point state. */
#include "xen/pv.h"

const char test_title[] = "fpu_taskswitch";

void test_main(void)
{
    take_traps();
    equal(CALL1(FPU_TASKSWITCH, 1), 0, "TS is set");
    TRYING("fnop", "i"(0));
    equal(trap_vector, 7, "the next instruction of the unit is #NM");
    TRYING("fnop", "i"(0));
    equal(trap_vector, 0, "which clears TS");
    equal(CALL1(FPU_TASKSWITCH, 1), 0, "TS is set again");
    equal(CALL1(FPU_TASKSWITCH, 0), 0, "and cleared");
    TRYING("fnop", "i"(0));
    equal(trap_vector, 0, "nothing traps");
}
