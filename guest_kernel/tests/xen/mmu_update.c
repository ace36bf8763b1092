/* Entries are changed one by one, as far as they are allowed. */
#include "xen/pv.h"

const char test_title[] = "mmu_update";

static struct { uint64_t at, value; } request[3];

static long update(uint64_t at, uint64_t value)
{
    request[0].at = at;
    request[0].value = value;
    return CALL4(MMU_UPDATE, request, 1, 0, SELF);
}

void test_main(void)
{
    uint64_t at = entry_address(scratch[0]), other = mfn_of(scratch[1]) << 12;
    uint64_t root = mfn_of((void *)start_info->pt_base) << 12;
    uint32_t done = 77;

    scratch[1][5] = 99;
    map(scratch[2], other | 0x67);
    equal(update(at, other | 0x67), 0, "an L1 entry is changed");
    CALL3(UPDATE_VA_MAPPING, scratch[0], other | 0x67, 2);
    equal(scratch[0][5], 99, "and maps the other page");
    equal(update(at | 2, other | 0x65), 0, "changed again, keeping accessed and dirty");
    equal(update(at | 1, 1234), 0, "the machine-to-physical table is changed");
    equal(update(at | 1, (uint64_t)scratch[0] / PAGE), 0, "and changed back");
    equal(update(other | 3, 4711), 0, "a page that is no table is written");
    equal(*(int64_t *)scratch[2], 4711, "as plain memory");
    equal(update(root + 8 * 260, 0), INVAL, "the hypervisor's slots of an L4 are EINVAL");
    equal(update(1ul << 40, 0x67), INVAL, "a frame of nobody's is EINVAL");
    check(update(at, root | 0x67) < 0, "a table is not mapped writable");
    equal(update(at, root | 0x65), 0, "but readable");
    check(update(at, 1ul << 51 | 0x67) < 0, "a frame beyond all memory is refused");
    request[0].at = at;
    request[0].value = other | 0x67;
    request[1].at = at;
    request[1].value = root | 0x67;
    check(CALL4(MMU_UPDATE, request, 2, &done, SELF) < 0, "the second of two is refused");
    equal(done, 1, "one was done");
    equal(CALL4(MMU_UPDATE, BAD, 1, 0, SELF), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL4(MMU_UPDATE, request, 1, 0, 77), SRCH, "another domain is ESRCH");
    equal(CALL4(MMU_UPDATE, request, 0, 0, SELF), 0, "no update is no error");
}
