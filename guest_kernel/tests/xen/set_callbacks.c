/* The handlers of events and of failures. */
#include "xen/pv.h"

const char test_title[] = "set_callbacks";

void test_main(void)
{
    equal(CALL3(SET_CALLBACKS, 1ul << 62, 0, 0), INVAL, "a non-canonical event handler is EINVAL");
    equal(CALL3(SET_CALLBACKS, 0, 1ul << 62, 0), INVAL, "a non-canonical failsafe too");
    take_upcalls();
}
