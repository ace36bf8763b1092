/* Collecting hypercalls: put them in the ring, and let one exit carry them all out.
 *
 *     batch_put(NATIVE_CALL_MMU_UPDATE, entry, value, address);
 *     ...
 *     batch_run();                      one exit; how many failed
 *
 * One ring a processor.  A full ring runs by itself. */
#ifndef PV_BATCH_H
#define PV_BATCH_H
#include <stdbool.h>
#include <stdint.h>
#include "pv/native.h"

enum { BATCH_ENTRIES = 256 };

struct batch {
    struct native_multicall_ring ring;
    struct native_multicall_entry entries[BATCH_ENTRIES];
};

void batch_init(struct batch *batch, uint32_t flags);
void batch_put(struct batch *batch, uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2);
int64_t batch_run(struct batch *batch);
int64_t batch_result(const struct batch *batch, uint32_t index);  /* of the entry put as index-th */
uint32_t batch_waiting(const struct batch *batch);
#endif
