/* One handler at a time. */
#include "xen/pv.h"

const char test_title[] = "callback_op";

static struct { uint16_t type, flags; uint32_t pad; uint64_t address; } registration;

static long take(int command, uint16_t type, uint64_t address)
{
    registration.type = type;
    registration.address = address;
    return CALL2(CALLBACK_OP, command, &registration);
}

void test_main(void)
{
    equal(take(0, 0, (uint64_t)xen_upcall), 0, "an event handler is taken");
    equal(take(0, 1, (uint64_t)xen_upcall), 0, "a failsafe handler is taken");
    equal(take(0, 2, (uint64_t)xen_upcall), 0, "a SYSCALL handler is taken");
    equal(take(0, 0, 1ul << 62), INVAL, "a non-canonical one is EINVAL");
    equal(take(0, 99, 0), NOSYS, "another type is ENOSYS");
    equal(take(7, 0, 0), NOSYS, "another command is ENOSYS");
    equal(CALL2(CALLBACK_OP, 0, BAD), FAULT, "a pointer to nothing is EFAULT");
}
