/* A descriptor table of the guest's frames. */
#include "xen/pv.h"

const char test_title[] = "set_gdt";

void test_main(void)
{
    uint64_t frame = mfn_of(scratch[0]);

    equal(CALL2(SET_GDT, &frame, 7169), INVAL, "more than 14 pages are EINVAL");
    equal(CALL2(SET_GDT, BAD, 512), FAULT, "a pointer to nothing is EFAULT");
    check(CALL2(SET_GDT, &frame, 512) < 0, "a page that is mapped writable is refused");
    equal(map(scratch[0], frame << 12 | 0x65), 0, "it is made read-only");
    equal(CALL2(SET_GDT, &frame, 512), 0, "then it is taken");
    equal(map(scratch[0], frame << 12 | 0x67), BUSY, "and may not be mapped writable");
    equal(CALL2(SET_GDT, 0, 0), 0, "no table is taken");
    equal(map(scratch[0], frame << 12 | 0x67), 0, "then the page is free again");
    equal(map(scratch[0], frame << 12 | 0x65), 0, "read-only again");
    equal(CALL2(SET_GDT, &frame, 512), 0, "it is taken again, and stays to the end");
}
