/* Pinning, flushing, and what may not be pinned. */
#include "xen/pv.h"

const char test_title[] = "mmuext_op";

static struct { uint32_t command, pad; uint64_t one, two; } op;

static long extended(uint32_t command, uint64_t one)
{
    op.command = command;
    op.one = one;
    return CALL4(MMUEXT_OP, &op, 1, 0, SELF);
}

void test_main(void)
{
    uint64_t mfn = mfn_of(scratch[0]), root = mfn_of((void *)start_info->pt_base);

    check(extended(0, mfn) < 0, "a page that is mapped writable is not pinned");
    map(scratch[0], mfn << 12 | 0x65);
    equal(extended(0, mfn), 0, "read-only it is pinned as an L1 table");
    equal(extended(0, mfn), INVAL, "twice is EINVAL");
    check(extended(2, mfn) < 0, "an L1 table is no L3 table");
    equal(map(scratch[0], mfn << 12 | 0x67), BUSY, "it may not be mapped writable");
    equal(extended(4, mfn), 0, "it is unpinned");
    equal(extended(4, mfn), INVAL, "twice is EINVAL");
    equal(map(scratch[0], mfn << 12 | 0x67), 0, "then it is an ordinary page");
    ((uint64_t *)scratch[0])[0] = 1ul << 51 | 0x67;
    map(scratch[0], mfn << 12 | 0x65);
    check(extended(0, mfn) < 0, "a page of garbage is not pinned");
    equal(extended(5, root), 0, "the base pointer is loaded");
    check(extended(5, mfn) < 0, "but not with a page that is no L4 table");
    equal(extended(6, 0), 0, "the local TLB is flushed");
    equal(extended(7, (uint64_t)scratch[0]), 0, "one page of it is flushed");
    check(extended(0, 1ul << 40) < 0, "a frame of nobody's is not pinned");
    equal(extended(99, 0), NOSYS, "another command is ENOSYS");
    equal(CALL4(MMUEXT_OP, BAD, 1, 0, SELF), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL4(MMUEXT_OP, &op, 0, 0, 9), SRCH, "another domain is ESRCH");
}
