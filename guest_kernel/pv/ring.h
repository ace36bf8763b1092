/* The native ring: descriptors that a device carries out at one kick.
 *
 *     ring_put(ring, buffer, length, offset, 0);      queue; no exit
 *     ring_kick(ring);                                one exit; all of them are done */
#ifndef PV_RING_H
#define PV_RING_H
#include <stdbool.h>
#include <stdint.h>
#include "pv/native.h"

enum { RING_ORDER = 6, RING_SIZE = 1 << RING_ORDER };

struct ring {
    struct native_ring shared;
    struct native_descriptor descriptors[RING_SIZE];
    uint64_t device;                     /* from here on the guest's alone */
    uint32_t failed;
};

int64_t ring_init(struct ring *ring, uint64_t device, uint64_t vector);
void ring_put(struct ring *ring, const void *buffer, uint32_t length, uint64_t offset, uint32_t flags);
int64_t ring_kick(struct ring *ring);    /* how many were completed, or a negative error */
#endif
