/* The stack that traps of programs come on. */
#include "xen/pv.h"

const char test_title[] = "stack_switch";

void test_main(void)
{
    take_traps();
    equal(CALL2(STACK_SWITCH, 0xe02b, scratch[1]), 0, "a stack is taken");
    equal(CALL2(STACK_SWITCH, 0xe02b, scratch[2]), 0, "and another one");
    TRYING("int3", "i"(0));
    equal(trap_vector, 3, "traps of the kernel stay on its own stack");
}
