/* Each rule that the referee looks after, broken once, in the order of its numbers. */
#include "xen/pv.h"

const char test_title[] = "Breaches of the ABI";

struct operation { uint32_t command, pad; uint64_t one, two; };
struct entry { uint16_t flags, domain; uint32_t frame; };

static struct { uint32_t vcpu, port; } ipi;
static struct { uint32_t virq, vcpu, port; } timer;
static struct { uint16_t domain, pad; uint32_t count; int16_t status, pad1[3]; uint64_t list; } setup = { .domain = SELF, .count = 1 };
static struct { uint64_t address; uint32_t flags, reference; uint16_t domain; int16_t status; uint32_t handle; uint64_t bus; } m;
static struct { uint64_t address, other; uint32_t handle; int16_t status; } u;
static uint64_t frames[1];

static long extended(uint32_t command, uint64_t mfn)
{
    struct operation op = { command, 0, mfn, 0 };
    return CALL4(MMUEXT_OP, &op, 1, 0, SELF);
}

/* The pending byte and the selector are cleared by somebody who does not look at what they tell of. */
static void lose_an_event(void)
{
    take_upcalls();
    for (unsigned k = 0; k < 512; k++)
        shared_info[2560 + k] = 0xff;
    vcpu_info[1] = 1;
    CALL2(EVENT_CHANNEL_OP, 7, &ipi);
    CALL2(EVENT_CHANNEL_OP, 1, &timer);
    shared_info[2560] = 0;
    equal(CALL2(EVENT_CHANNEL_OP, 4, &ipi.port), 0, "an event is sent");
    check(vcpu_info[0], "and told of");
    vcpu_info[0] = 0;
    *(volatile uint64_t *)(vcpu_info + 8) = 0;
    CALL1(SET_TIMER_OP, *(volatile uint64_t *)(vcpu_info + 48) + 50000000);
    equal(CALL2(SCHED_OP, 1, 0), 0, "sleep ends, by a timer");
}

static void end_a_grant(void)
{
    volatile struct entry *table = (volatile struct entry *)scratch[0];
    setup.list = (uint64_t)frames;
    CALL3(GRANT_TABLE_OP, 2, &setup, 1);
    map(scratch[0], frames[0] << 12 | 0x67);
    table[8] = (struct entry){ .flags = 1, .domain = 1, .frame = (uint32_t)mfn_of(scratch[1]) };
    m = (__typeof__(m)){ .address = (uint64_t)scratch[2], .flags = 2, .reference = 8, .domain = 1 };
    CALL3(GRANT_TABLE_OP, 0, &m, 1);
    equal(m.status, 0, "a grant is mapped");
    table[8].flags = 0;
    u = (__typeof__(u)){ .address = (uint64_t)scratch[2], .handle = m.handle };
    CALL3(GRANT_TABLE_OP, 1, &u, 1);
    equal(u.status, 0, "and ended before it is unmapped");
    m.reference = 9;
    CALL3(GRANT_TABLE_OP, 0, &m, 1);
    equal(m.status, -1, "another was never given");
}

void test_main(void)
{
    uint64_t root = mfn_of((void *)start_info->pt_base) << 12;
    uint64_t *entry = entry_of(scratch[3]);

    take_traps();
    equal(extended(0, mfn_of(scratch[3])), INVAL, "a writable page is no L1 table");
    check(map(scratch[3], root | 0x67) < 0, "a page table is not mapped writable");
    equal(extended(5, mfn_of(scratch[3])), INVAL, "a plain page is no root");
    equal(extended(4, mfn_of(scratch[3])), INVAL, "what was not pinned is not unpinned");
    equal(CALL2(UPDATE_DESCRIPTOR, root, 0), INVAL, "a page table is no descriptor table");
    equal(CALL2(MULTICALL, HOLE, 1), FAULT, "the hole is no list");
    resume_with(0x3246);
    TRYING("mov %0, (%1)", "r"(root | 0x67), "r"(entry));
    equal(trap_vector, 14, "nor is it mapped by a store");
    lose_an_event();
    end_a_grant();
}
