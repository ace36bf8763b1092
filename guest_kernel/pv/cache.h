/* A page cache that knows how much memory the host has to spare.
 *
 * File pages are kept in frames; the least recently used go first (a clock hand passes over frames
 * that were used since it came by).  Three ways to live with a host that has promised too much:
 *
 *   CACHE_GREEDY    grow until all frames are full, and let the host swap
 *   CACHE_BALLOON   the same, but give frames away when the balloon's target says so
 *   CACHE_GAUGE     read the pressure before growing; above one half give frames away */
#ifndef PV_CACHE_H
#define PV_CACHE_H
#include <stdint.h>
#include "pv/native.h"

enum cache_way { CACHE_GREEDY, CACHE_BALLOON, CACHE_GAUGE };
enum { CACHE_FRAMES = 512, CACHE_FILE = 768 };

struct cache {
    enum cache_way way;
    const struct native_pressure *gauge;
    uint8_t *frames;                     /* CACHE_FRAMES pages */
    void (*read)(uint32_t page, void *to);           /* the disk */
    uint32_t used, hand, given, misses;
    int16_t frame_of[CACHE_FILE];        /* -1: not cached */
    int16_t page_in[CACHE_FRAMES];       /* -1: free; -2: given away */
    uint8_t recent[CACHE_FRAMES];
};

void cache_init(struct cache *cache, enum cache_way way, uint8_t *frames,
                const struct native_pressure *gauge, void (*read)(uint32_t page, void *to));
void *cache_page(struct cache *cache, uint32_t page);
void cache_adapt(struct cache *cache);   /* follow the balloon's target or the gauge */
#endif
