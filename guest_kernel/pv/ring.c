/* The guest's end of the native ring. */
#include "pv/ring.h"

int64_t ring_init(struct ring *ring, uint64_t device, uint64_t vector)
{
    ring->device = device;
    ring->failed = 0;
    return native_ring_setup(device, (uint64_t)(uintptr_t)ring, RING_ORDER, vector);
}

void ring_put(struct ring *ring, const void *buffer, uint32_t length, uint64_t offset, uint32_t flags)
{
    if (ring->shared.tail - ring->shared.head == RING_SIZE)
        ring_kick(ring);
    struct native_descriptor *one = &ring->descriptors[ring->shared.tail % RING_SIZE];

    one->gpa = (uint64_t)(uintptr_t)buffer;
    one->offset = offset;
    one->length = length;
    one->flags = flags;
    ring->shared.tail++;                 /* last: the descriptor is whole now */
}

int64_t ring_kick(struct ring *ring)
{
    uint32_t first = ring->shared.head;
    int64_t done = native_ring_kick(ring->device);

    for (uint32_t at = first; at != ring->shared.head; at++)
        ring->failed += ring->descriptors[at % RING_SIZE].status < 0;
    return done;
}
