/* Going back: every page in the dirty log becomes what it was, in one call. Test resets stand on it. */
#include "state.h"

static void put_back(struct engine *e, const uint8_t *mirror, uint64_t page)
{
    uint8_t *now = e->ram + (page << 12);
    const uint8_t *was = mirror + (page << 12);
    if (memcmp(now, was, 4096) == 0)   /* code that was loaded again and is the same keeps its translation */
        return;
    memcpy(now, was, 4096);
    host_wrote(e, page << 12, 4096);
}

uint64_t engine_revert(struct engine *e, const uint8_t *mirror, uint64_t pages)
{
    uint64_t count = 0, words = ((e->ram_size >> 12) + 63) / 64;
    for (uint64_t n = 0; n < words; n++) {
        for (uint64_t word = e->dirty[n]; word; word &= word - 1) {
            uint64_t page = n * 64 + (uint64_t)__builtin_ctzll(word);
            if (page < pages) {
                put_back(e, mirror, page);
                count++;
            }
        }
        e->dirty[n] = 0;
    }
    micro_flush(e);
    peers_flush(e);
    return count;
}
