/* Virtual processors and their timers. */
#include "xen/pv.h"

const char test_title[] = "vcpu_op";

static struct { uint64_t when; uint32_t flags, pad; } single = { 1, 1, 0 };
static struct { uint64_t mfn; uint32_t offset, pad; } area;
static uint64_t runstate[6];

void test_main(void)
{
    uint64_t period = 5;

    equal(CALL2(VCPU_OP, 3, 0), 1, "the first is up");
    equal(CALL2(VCPU_OP, 3, 1), NOENT, "there is no second");
    equal(CALL3(VCPU_OP, 0, 0, BAD), EXIST, "the first is initialised");
    equal(CALL3(VCPU_OP, 4, 0, runstate), 0, "its run state is told");
    equal(runstate[0], 0, "it runs");
    check(runstate[2] > 0, "and has run");
    equal(CALL3(VCPU_OP, 8, 0, &single), TIME, "a past time is ETIME, if it must be future");
    single.flags = 0;
    equal(CALL3(VCPU_OP, 8, 0, &single), 0, "else it is taken");
    equal(CALL2(VCPU_OP, 9, 0), 0, "and stopped");
    equal(CALL3(VCPU_OP, 6, 0, &period), INVAL, "a period of 5 ns is EINVAL");
    equal(CALL2(VCPU_OP, 7, 0), 0, "the periodic timer is stopped");
    area.mfn = mfn_of(scratch[3]);
    area.offset = 4090;
    equal(CALL3(VCPU_OP, 10, 0, &area), INVAL, "an area across a page's end is EINVAL");
    area.offset = 64;
    equal(CALL3(VCPU_OP, 10, 0, &area), 0, "another place for vcpu_info is taken");
    check(scratch[3][64 + 32] != 0, "its time is there");
    equal(CALL3(VCPU_OP, 10, 0, &area), INVAL, "once only");
    equal(CALL3(VCPU_OP, 5, 0, BAD), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL2(VCPU_OP, 99, 0), NOSYS, "another command is ENOSYS");
}
