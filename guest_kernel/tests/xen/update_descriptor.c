/* One descriptor at a time. */
#include "xen/pv.h"

const char test_title[] = "update_descriptor";

void test_main(void)
{
    uint64_t frame = mfn_of(scratch[0]), at = frame << 12;
    const uint64_t code = 0x00affb000000fffful, data = 0x00cff3000000fffful;

    map(scratch[0], at | 0x65);
    equal(CALL2(SET_GDT, &frame, 512), 0, "the table is taken");
    equal(CALL2(UPDATE_DESCRIPTOR, at + 8 * 20, data), 0, "a data segment is written");
    equal(((uint64_t *)scratch[0])[20], (int64_t)data, "and is there");
    equal(CALL2(UPDATE_DESCRIPTOR, at + 8 * 21, code), 0, "a code segment is written");
    check(CALL2(UPDATE_DESCRIPTOR, at + 8 * 22, 0x00cfe9000000ffff) < 0, "a TSS is refused");
    check(CALL2(UPDATE_DESCRIPTOR, at + 8 * 22, 0x0000ee000000ffff) < 0, "a gate is refused");
    equal(CALL2(UPDATE_DESCRIPTOR, at + 3, data), INVAL, "an odd address is EINVAL");
    equal(CALL2(UPDATE_DESCRIPTOR, 1ul << 40, data), INVAL, "an address of nobody's is EINVAL");
    check(CALL2(UPDATE_DESCRIPTOR, start_info->shared_info, data) < 0, "the hypervisor's too");
}
