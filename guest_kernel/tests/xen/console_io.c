/* Writing to the hypervisor's console. */
#include "xen/pv.h"

const char test_title[] = "console_io";

void test_main(void)
{
    equal(CALL3(CONSOLE_IO, 0, 6, "hello\n"), 0, "a line is written");
    equal(CALL3(CONSOLE_IO, 1, 6, scratch), 0, "nothing is there to read");
    equal(CALL3(CONSOLE_IO, 0, 6, BAD), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL3(CONSOLE_IO, 0, 6, HOLE), FAULT, "a pointer into the hole is EFAULT");
    equal(CALL3(CONSOLE_IO, 7, 0, 0), NOSYS, "another command is ENOSYS");
}
