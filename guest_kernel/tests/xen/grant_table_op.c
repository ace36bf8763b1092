/* The grant table in both versions. */
#include "xen/pv.h"

const char test_title[] = "grant_table_op";

static uint64_t frames[64];
static struct { uint16_t domain, pad; uint32_t count; int16_t status, pad1[3]; uint64_t list; } setup;
static struct { uint32_t count; uint16_t domain; int16_t status; uint64_t list; } states;
static struct { uint16_t domain, pad; uint32_t frames, most; int16_t status, pad1; } size;
static struct { uint16_t domain, pad; uint32_t version; } get = { SELF, 0, 0 };

void test_main(void)
{
    uint32_t version = 3;

    setup.domain = size.domain = states.domain = SELF;
    setup.count = states.count = 1;
    setup.list = states.list = (uint64_t)frames;
    equal(CALL3(GRANT_TABLE_OP, 2, &setup, 1), 0, "a table is set up");
    equal(setup.status, 0, "its status is okay");
    equal(map(scratch[0], frames[0] << 12 | 0x67), 0, "its frame can be mapped");
    *(volatile uint64_t *)scratch[0] = 7;
    equal(CALL3(GRANT_TABLE_OP, 6, &size, 1), 0, "its size is told");
    equal(size.most, 32, "at most 32 frames");
    setup.count = 33;
    equal(CALL3(GRANT_TABLE_OP, 2, &setup, 1), 0, "more are asked for");
    equal(setup.status, -1, "and refused in the status");
    setup.domain = 9;
    CALL3(GRANT_TABLE_OP, 2, &setup, 1);
    equal(setup.status, -2, "another domain's is GNTST_bad_domain");
    equal(CALL3(GRANT_TABLE_OP, 9, &states, 1), 0, "status frames are asked for");
    check(states.status < 0, "version 1 has none");
    equal(CALL3(GRANT_TABLE_OP, 8, &version, 1), INVAL, "version 3 is EINVAL");
    version = 2;
    equal(CALL3(GRANT_TABLE_OP, 8, &version, 1), 0, "version 2 is taken");
    equal(CALL3(GRANT_TABLE_OP, 10, &get, 1), 0, "the version is told");
    equal(get.version, 2, "it is 2");
    equal(CALL3(GRANT_TABLE_OP, 9, &states, 1), 0, "status frames are asked for again");
    equal(states.status, 0, "and there are some");
    equal(CALL3(GRANT_TABLE_OP, 2, &setup, 2), INVAL, "two at once are EINVAL");
    equal(CALL3(GRANT_TABLE_OP, 2, BAD, 1), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL3(GRANT_TABLE_OP, 99, 0, 1), NOSYS, "another command is ENOSYS");
}
