/* A timer, an event, an upcall. */
#include "xen/pv.h"

const char test_title[] = "set_timer_op";

static struct { uint32_t virq, vcpu, port; } bind;

void test_main(void)
{
    take_upcalls();
    equal(CALL2(EVENT_CHANNEL_OP, 1, &bind), 0, "VIRQ_TIMER is bound");
    equal(CALL2(EVENT_CHANNEL_OP, 9, &bind.port), 0, "and unmasked");
    equal(CALL1(SET_TIMER_OP, 1), 0, "a time that is past is taken");
    CALL2(SCHED_OP, 0, 0);
    check(upcalls == 1, "and an upcall comes");
    check(shared_info[2048 + bind.port / 8] & 1 << bind.port % 8, "its bit is set");
    shared_info[2048 + bind.port / 8] = 0;
    equal(CALL1(SET_TIMER_OP, 0), 0, "no timer is taken");
    CALL2(SCHED_OP, 0, 0);
    check(upcalls == 1, "and no upcall comes");
}
