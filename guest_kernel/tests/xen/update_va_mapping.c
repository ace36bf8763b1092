/* The entry of a linear address. */
#include "xen/pv.h"

const char test_title[] = "update_va_mapping";

void test_main(void)
{
    uint64_t own = mfn_of(scratch[0]) << 12, other = mfn_of(scratch[1]) << 12;

    take_traps();
    scratch[1][0] = 42;
    equal(map(scratch[0], other | 0x67), 0, "another page is mapped");
    equal(scratch[0][0], 42, "and is seen at once");
    equal(map(scratch[0], own | 0x65), 0, "its own is mapped read-only");
    TRYING("movb $1, (%0)", "r"(scratch[0]));
    equal(trap_vector, 14, "a write is #PF");
    equal(trap_error & 3, 3, "its code says: protection, write");
    equal(map(scratch[0], 0), 0, "nothing is mapped");
    TRYING("movb (%0), %%al", "r"(scratch[0]));
    equal(trap_error & 1, 0, "a read finds nothing");
    equal(map((void *)BAD, own | 0x67), INVAL, "where no table is it is EINVAL");
    equal(map((void *)HOLE, own | 0x67), INVAL, "in the hole too");
    check(map(scratch[0], 1ul << 51 | 0x67) < 0, "a frame of nobody's is refused");
    check(map(scratch[0], own | 0x1e7) < 0, "bits that make no 4 KiB page are refused");
    equal(CALL4(UPDATE_VA_MAPPING_OTHERDOMAIN, scratch[0], own, 0, 5), NOSYS,
          "other domains' are not offered");
}
