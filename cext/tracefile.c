/* The file of a trace: it grows by segments, each allocated on the disk before it is mapped: a disk that is full is an
 * answer of the system then, and no signal at a store later. Without room for the next segment the newest records are
 * lost and counted, and the guest goes on.
 */
#define _GNU_SOURCE
#include "trace.h"
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

enum { SEGMENT_HEAD = 16, ALLOCATED_AT_ONCE = 4 };

void trace_unmap(struct tracer *t)
{
    if (t->map)
        munmap(t->map, TRACE_SEGMENT);
    t->map = NULL;
    t->idle = NULL;
}

static int allocate(struct tracer *t, uint64_t segment)
{
    uint64_t at = TRACE_HEADER + (segment - 1) * TRACE_SEGMENT, several = ALLOCATED_AT_ONCE;
    if (segment <= t->allocated)
        return 0;
    if (t->limit && several > t->limit - t->allocated)
        several = t->limit - t->allocated;
    int error = several > 1 ? posix_fallocate(t->descriptor, (off_t)at, (off_t)(several * TRACE_SEGMENT)) : ENOSPC;
    if (error) {
        several = 1;
        error = posix_fallocate(t->descriptor, (off_t)at, TRACE_SEGMENT);
    }
    if (!error)
        t->allocated = segment - 1 + several;
    return error;
}

static void put_word(struct tracer *t, uint64_t at, uint64_t value) { memcpy(t->map + at, &value, sizeof value); }

/* Go on in segment `number`; where the file may not grow, in the place of the oldest. */
int trace_segment(struct tracer *t, uint64_t number)
{
    uint64_t place = t->limit ? (number - 1) % t->limit + 1 : number;
    int error = allocate(t, place);
    trace_unmap(t);
    if (error)
        return error;
    void *map = mmap(NULL, TRACE_SEGMENT, PROT_READ | PROT_WRITE, MAP_SHARED, t->descriptor, (off_t)(TRACE_HEADER + (place - 1) * TRACE_SEGMENT));
    if (map == MAP_FAILED)
        return errno;
#ifdef MADV_POPULATE_WRITE         /* Linux 5.14: a page fault less for every ten exits */
    madvise(map, TRACE_SEGMENT, MADV_POPULATE_WRITE);
#endif
    t->map = map;
    t->segment = t->counters.segments = number;
    t->used = SEGMENT_HEAD;
    put_word(t, 8, t->used);
    put_word(t, 0, number);
    return 0;
}

/* Room for a record, or NULL. It counts when commit() says so. */
uint64_t *trace_room(struct tracer *t, unsigned words)
{
    if (!t->writes)
        return NULL;
    if (!t->counters.error && (!t->map || t->used + words * 8 > TRACE_SEGMENT))
        t->counters.error = (uint64_t)trace_segment(t, t->segment + 1);
    if (!t->counters.error)
        return (uint64_t *)(void *)(t->map + t->used);
    t->counters.lost++;
    return NULL;
}

void trace_commit(struct tracer *t, unsigned words)
{
    t->idle = NULL;
    t->used += words * 8;
    t->counters.records++;
    __atomic_store_n((uint64_t *)(void *)(t->map + 8), t->used, __ATOMIC_RELEASE);
}
