/* Frames given back and taken again. */
#include "xen/pv.h"

const char test_title[] = "memory_op";

static uint64_t extent;
static struct { uint64_t extents, count; uint32_t order, flags; uint16_t domain, pad[3]; } reserve;

void test_main(void)
{
    uint16_t self = SELF, other = 5;
    long frames = CALL2(MEMORY_OP, 3, &self);

    extent = mfn_of(scratch[0]);
    reserve.extents = (uint64_t)&extent;
    reserve.count = 1;
    reserve.domain = SELF;
    equal(frames, (long)start_info->nr_pages, "the reservation is what start_info says");
    equal(CALL2(MEMORY_OP, 3, &other), SRCH, "of another domain it is ESRCH");
    equal(CALL2(MEMORY_OP, 3, BAD), FAULT, "a pointer to nothing is EFAULT");
    equal(map(scratch[0], 0), 0, "a frame is unmapped");
    equal(CALL2(MEMORY_OP, 1, &reserve), 1, "and given back");
    equal(CALL2(MEMORY_OP, 1, &reserve), 0, "but not twice");
    equal(CALL2(MEMORY_OP, 3, &self), frames - 1, "the reservation is smaller");
    check(map(scratch[0], extent << 12 | 0x67) < 0, "and the frame is not the guest's any more");
    extent = (uint64_t)scratch[0] / PAGE;
    equal(CALL2(MEMORY_OP, 6, &reserve), 1, "a frame is taken for the same place");
    equal(map(scratch[0], extent << 12 | 0x67), 0, "and can be mapped");
    equal(CALL2(MEMORY_OP, 63, 0), NOSYS, "another command is ENOSYS");
}
