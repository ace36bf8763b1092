/* Yield, sleep, poll. */
#include "xen/pv.h"

const char test_title[] = "sched_op";

static struct { uint32_t virq, vcpu, port; } bind;
static struct { uint64_t ports; uint32_t count, pad; uint64_t timeout; } poll;

static uint64_t now(void)
{
    return *(volatile uint64_t *)(vcpu_info + 32 + 16);
}

void test_main(void)
{
    uint32_t reason = 0, ports[2] = { 5000, 0 };

    take_upcalls();
    equal(CALL2(SCHED_OP, 0, 0), 0, "the turn is given away");
    CALL2(EVENT_CHANNEL_OP, 1, &bind);
    CALL2(EVENT_CHANNEL_OP, 9, &bind.port);
    equal(CALL1(SET_TIMER_OP, now() + 50000000), 0, "a timer is set");
    equal(CALL2(SCHED_OP, 1, 0), 0, "sleep ends");
    check(upcalls >= 1, "by its upcall");
    poll.ports = (uint64_t)ports;
    poll.count = 1;
    equal(CALL2(SCHED_OP, 3, &poll), INVAL, "a poll of port 5000 is EINVAL");
    poll.count = 200;
    equal(CALL2(SCHED_OP, 3, &poll), INVAL, "a poll of 200 ports is EINVAL");
    ports[0] = 2;
    poll.count = 1;
    poll.timeout = now() + 100000000;
    equal(CALL2(SCHED_OP, 3, &poll), 0, "a poll ends by its time-out");
    equal(CALL2(SCHED_OP, 3, BAD), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL2(SCHED_OP, 5, &reason), 0, "a reason for later is taken");
    equal(CALL2(SCHED_OP, 4, 0), PERM, "another domain's shutdown is EPERM");
    equal(CALL2(SCHED_OP, 99, 0), NOSYS, "another command is ENOSYS");
}
