/* The same updates one by one, in one mmu_update, in one multicall; what each costs by the TSC. */
#include "xen/pv.h"

const char test_title[] = "Batches";

enum { MOST = 256 };
static struct { uint64_t at, value; } request[MOST];
static struct { uint64_t call; int64_t result; uint64_t argument[6]; } batch[MOST];

static uint64_t tsc(void)
{
    uint32_t low, high;

    asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static void prepare(unsigned count, uint64_t value)
{
    for (unsigned k = 0; k < count; k++) {
        request[k].at = entry_address(scratch[0]);
        request[k].value = value ^ (k & 1) << 1;
        batch[k].call = UPDATE_VA_MAPPING;
        batch[k].argument[0] = (uint64_t)scratch[0];
        batch[k].argument[1] = request[k].value;
        batch[k].argument[2] = 0;
    }
}

void test_main(void)
{
    uint64_t value = mfn_of(scratch[0]) << 12 | 0x67, start;
    long failed = 0;

    for (unsigned count = 1; count <= MOST; count *= 4) {
        prepare(count, value);
        start = tsc();
        for (unsigned k = 0; k < count; k++)
            failed |= CALL3(UPDATE_VA_MAPPING, scratch[0], request[k].value, 0);
        figure("single", count, tsc() - start);
        start = tsc();
        failed |= CALL4(MMU_UPDATE, request, count, 0, SELF);
        figure("mmu_update", count, tsc() - start);
        start = tsc();
        failed |= CALL2(MULTICALL, batch, count);
        figure("multicall", count, tsc() - start);
    }
    equal(failed, 0, "every update is carried out");
}
