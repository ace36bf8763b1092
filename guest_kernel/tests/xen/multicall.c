/* Several hypercalls in one. */
#include "xen/pv.h"

const char test_title[] = "multicall";

static struct { uint64_t call; int64_t result; uint64_t argument[6]; } batch[4];

void test_main(void)
{
    batch[0].call = batch[1].call = XEN_VERSION;
    batch[1].argument[0] = 7;
    batch[2].call = 99;
    batch[3].call = VM_ASSIST;
    equal(CALL2(MULTICALL, batch, 4), 0, "four are made");
    equal(batch[0].result >> 16, 4, "the first has its result");
    equal(batch[1].result, PAGE, "so has the second");
    equal(batch[2].result, NOSYS, "an unknown one has ENOSYS");
    equal(batch[3].result, 0, "and the one behind it was made");
    equal(CALL2(MULTICALL, BAD, 1), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL2(MULTICALL, BAD, 0), 0, "none is no error");
}
