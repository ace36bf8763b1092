/* The bases of FS and GS. */
#include "xen/pv.h"

const char test_title[] = "set_segment_base";

void test_main(void)
{
    uint64_t seen;

    ((uint64_t *)scratch[0])[0] = 0x1111;
    ((uint64_t *)scratch[1])[0] = 0x2222;
    equal(CALL2(SET_SEGMENT_BASE, 0, scratch[0]), 0, "FS has a base");
    asm volatile("mov %%fs:0, %0" : "=r"(seen));
    equal(seen, 0x1111, "and is seen through it");
    equal(CALL2(SET_SEGMENT_BASE, 2, scratch[1]), 0, "the kernel's GS has a base");
    asm volatile("mov %%gs:0, %0" : "=r"(seen));
    equal(seen, 0x2222, "and is seen through it");
    equal(CALL2(SET_SEGMENT_BASE, 1, scratch[2]), 0, "the programs' GS has a base");
    equal(CALL2(SET_SEGMENT_BASE, 3, 0), 0, "their GS selector is loaded");
    equal(CALL2(SET_SEGMENT_BASE, 0, 1ul << 62), INVAL, "a non-canonical base is EINVAL");
    equal(CALL2(SET_SEGMENT_BASE, 9, 0), INVAL, "another command is EINVAL");
}
