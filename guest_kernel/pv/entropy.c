/* The guest's pool. */
#include "pv/entropy.h"
#include "lib/cpu.h"
#include "lib/string.h"
#include "pv/hkdf.h"

enum { MOST_OWN = 512 };

static uint8_t pool[HASH_BYTES];
static uint64_t generation, outputs;
static const volatile struct native_contract *contract;

void entropy_mix(const void *own, size_t size)
{
    static uint8_t from_host[HASH_BYTES] __attribute__((aligned(8)));
    uint8_t material[MOST_OWN + HASH_BYTES + 16];
    uint64_t tsc = rdtsc();
    size_t at = size < MOST_OWN ? size : MOST_OWN;

    memcpy(material, own, at);
    if (!native_entropy((uint64_t)(uintptr_t)from_host)) {
        memcpy(material + at, from_host, HASH_BYTES);
        at += HASH_BYTES;
    }
    generation = contract->generation;
    memcpy(material + at, &generation, 8);
    memcpy(material + at + 8, &tsc, 8);
    hkdf_extract(pool, pool, HASH_BYTES, material, at + 16);
    memset(from_host, 0, sizeof from_host);
}

void entropy_init(const volatile struct native_contract *page, const void *own, size_t size)
{
    contract = page;
    memset(pool, 0, sizeof pool);
    outputs = 0;
    entropy_mix(own, size);
}

/* What is given out says nothing of what was given out before or will be: the pool moves on. */
void entropy_get(void *out, size_t size)
{
    if (contract->generation != generation)
        entropy_mix("", 0);
    outputs++;
    hkdf_expand(out, size, pool, &outputs, sizeof outputs);
    hkdf_expand(pool, HASH_BYTES, pool, "next", 4);
}
