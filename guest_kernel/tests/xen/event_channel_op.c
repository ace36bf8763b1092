/* Ports are bound, sent to, closed. */
#include "xen/pv.h"

const char test_title[] = "event_channel_op";

static struct { uint16_t domain, remote; uint32_t port; } unbound = { SELF, SELF, 0 };
static struct { uint32_t virq, vcpu, port; } virq, wrong = { 24, 0, 0 }, nobody = { 0, 5, 0 };
static struct { uint32_t vcpu, port; } ipi;
static struct { uint16_t domain, pad; uint32_t remote, local; } pair = { SELF, 0, 0, 0 };
static struct { uint16_t domain, pad; uint32_t port, status, vcpu, data[2]; } status = { .domain = SELF };

static bool pending(uint32_t port)
{
    return shared_info[2048 + port / 8] & 1 << port % 8;
}

void test_main(void)
{
    uint32_t none = 900;

    equal(CALL2(EVENT_CHANNEL_OP, 6, &unbound), 0, "a port is allocated");
    pair.remote = unbound.port;
    equal(CALL2(EVENT_CHANNEL_OP, 0, &pair), 0, "and bound to another");
    equal(CALL2(EVENT_CHANNEL_OP, 4, &unbound.port), 0, "a send goes");
    check(pending(pair.local), "to the other end");
    equal(CALL2(EVENT_CHANNEL_OP, 0, &pair), INVAL, "a bound port is not bound again");
    equal(CALL2(EVENT_CHANNEL_OP, 1, &virq), 0, "a VIRQ is bound");
    equal(CALL2(EVENT_CHANNEL_OP, 1, &virq), EXIST, "twice is EEXIST");
    equal(CALL2(EVENT_CHANNEL_OP, 1, &wrong), INVAL, "VIRQ 24 is EINVAL");
    equal(CALL2(EVENT_CHANNEL_OP, 1, &nobody), NOENT, "vCPU 5 is ENOENT");
    equal(CALL2(EVENT_CHANNEL_OP, 7, &ipi), 0, "an IPI is bound");
    equal(CALL2(EVENT_CHANNEL_OP, 4, &ipi.port), 0, "and sent");
    check(pending(ipi.port), "to itself");
    status.port = ipi.port;
    equal(CALL2(EVENT_CHANNEL_OP, 5, &status), 0, "its status is told");
    equal(status.status, 5, "an IPI");
    equal(CALL2(EVENT_CHANNEL_OP, 9, &ipi.port), 0, "it is unmasked");
    equal(CALL2(EVENT_CHANNEL_OP, 3, &ipi.port), 0, "and closed");
    equal(CALL2(EVENT_CHANNEL_OP, 3, &ipi.port), INVAL, "twice is EINVAL");
    equal(CALL2(EVENT_CHANNEL_OP, 4, &none), INVAL, "a send to no port is EINVAL");
    equal(CALL2(EVENT_CHANNEL_OP, 4, BAD), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL2(EVENT_CHANNEL_OP, 2, &virq), PERM, "a physical interrupt is EPERM");
    equal(CALL2(EVENT_CHANNEL_OP, 99, 0), NOSYS, "another command is ENOSYS");
}
