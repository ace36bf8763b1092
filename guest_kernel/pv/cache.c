/* The page cache. */
#include "pv/cache.h"
#include "lib/string.h"

enum { FRAME_BYTES = 4096, FREE = -1, GIVEN = -2, AT_ONCE = 16 };
enum { GROW_BELOW = NATIVE_PRESSURE_FULL * 3 / 8, SHRINK_ABOVE = NATIVE_PRESSURE_FULL / 2 };

void cache_init(struct cache *cache, enum cache_way way, uint8_t *frames,
                const struct native_pressure *gauge, void (*read)(uint32_t page, void *to))
{
    memset(cache, 0, sizeof *cache);
    memset(cache->frame_of, 0xff, sizeof cache->frame_of);
    memset(cache->page_in, 0xff, sizeof cache->page_in);
    cache->way = way;
    cache->frames = frames;
    cache->gauge = gauge;
    cache->read = read;
}

static void *frame_at(const struct cache *cache, uint32_t frame)
{
    return cache->frames + (uint64_t)frame * FRAME_BYTES;
}

/* Drop the first page that was not used since the hand came by; its frame is free then. */
static uint32_t evict(struct cache *cache)
{
    for (;;) {
        uint32_t at = cache->hand;

        cache->hand = (at + 1) % CACHE_FRAMES;
        if (cache->page_in[at] < 0)
            continue;
        if (!cache->recent[at]) {
            cache->frame_of[cache->page_in[at]] = FREE;
            cache->page_in[at] = FREE;
            cache->used--;
            return at;
        }
        cache->recent[at] = 0;
    }
}

static bool give(struct cache *cache)
{
    if (cache->used < 32)
        return false;                    /* something must be left to work with */
    uint32_t frame = evict(cache);

    if (native_balloon_give((uint64_t)(uintptr_t)frame_at(cache, frame)))
        return false;
    cache->page_in[frame] = GIVEN;
    cache->given++;
    return true;
}

static int32_t find(const struct cache *cache, int16_t what)
{
    for (uint32_t frame = 0; frame < CACHE_FRAMES; frame++)
        if (cache->page_in[frame] == what)
            return (int32_t)frame;
    return -1;
}

static bool take(struct cache *cache)
{
    int32_t frame = find(cache, GIVEN);

    if (frame < 0 || native_balloon_take((uint64_t)(uintptr_t)frame_at(cache, (uint32_t)frame)))
        return false;
    cache->page_in[frame] = FREE;
    cache->given--;
    return true;
}

/* A frame for one page more: a free one if we may grow, else the least useful of those in use. */
static uint32_t frame_for_one_more(struct cache *cache)
{
    bool grow = cache->way != CACHE_GAUGE || cache->gauge->pressure < GROW_BELOW;
    int32_t frame = grow || cache->used < 32 ? find(cache, FREE) : -1;

    if (frame < 0 && grow && cache->way == CACHE_GAUGE && take(cache))
        frame = find(cache, FREE);
    return frame < 0 ? evict(cache) : (uint32_t)frame;
}

void cache_adapt(struct cache *cache)
{
    if (cache->way == CACHE_BALLOON) {
        while (cache->given < cache->gauge->target_pages && give(cache))
            ;
        while (cache->given > cache->gauge->target_pages && take(cache))
            ;
    }
    for (int i = 0; i < AT_ONCE && cache->way == CACHE_GAUGE && cache->gauge->pressure > SHRINK_ABOVE; i++)
        if (!give(cache))
            break;
}

void *cache_page(struct cache *cache, uint32_t page)
{
    int32_t frame = cache->frame_of[page];

    if (frame < 0) {
        cache->misses++;
        cache_adapt(cache);
        frame = (int32_t)frame_for_one_more(cache);
        cache->read(page, frame_at(cache, (uint32_t)frame));
        cache->frame_of[page] = (int16_t)frame;
        cache->page_in[frame] = (int16_t)page;
        cache->used++;
    }
    cache->recent[frame] = 1;
    return frame_at(cache, (uint32_t)frame);
}
