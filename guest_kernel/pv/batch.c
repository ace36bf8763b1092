/* The guest's end of the multicall ring.  `tail` is ours, `head` the hypervisor's; both count
 * freely, so that a full ring and an empty one differ. */
#include "pv/batch.h"
#include "lib/string.h"

void batch_init(struct batch *batch, uint32_t flags)
{
    memset(batch, 0, sizeof *batch);
    batch->ring.entries = BATCH_ENTRIES;
    batch->ring.flags = flags;
}

uint32_t batch_waiting(const struct batch *batch)
{
    return batch->ring.tail - batch->ring.head;
}

void batch_put(struct batch *batch, uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2)
{
    if (batch_waiting(batch) == BATCH_ENTRIES)
        batch_run(batch);
    struct native_multicall_entry *entry = &batch->entries[batch->ring.tail % BATCH_ENTRIES];

    entry->number = number;
    entry->arguments[0] = a0;
    entry->arguments[1] = a1;
    entry->arguments[2] = a2;
    batch->ring.tail++;                  /* last: from here on it is the hypervisor's to read */
}

/* Carry out what waits; the number of entries that failed, or the call's own error. */
int64_t batch_run(struct batch *batch)
{
    int64_t done = batch_waiting(batch) ? native_multicall((uint64_t)(uintptr_t)batch) : 0;

    return done < 0 ? done : batch->ring.failed;
}

int64_t batch_result(const struct batch *batch, uint32_t index)
{
    return batch->entries[index % BATCH_ENTRIES].result;
}
