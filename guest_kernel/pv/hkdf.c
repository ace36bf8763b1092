/* SHA-256, HMAC, HKDF.  Nothing here depends on secrets in its timing but the lengths. */
#include "pv/hkdf.h"
#include "lib/string.h"

enum { BLOCK = 64, ROUNDS = 64, MOST_INPUT = 1024 };

/* FIPS 180-4, 4.2.2: the first 32 bits of the fractional parts of the cube roots of primes. */
static const uint32_t constants[ROUNDS] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, unsigned by)
{
    return x >> by | x << (32 - by);
}

/* 6.2.2: the schedule, 64 rounds, and the sum with what was before. */
static void compress(uint32_t state[8], const uint8_t block[BLOCK])
{
    uint32_t w[ROUNDS], v[8];

    for (int t = 0; t < 16; t++)
        w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16
               | (uint32_t)block[4 * t + 2] << 8 | block[4 * t + 3];
    for (int t = 16; t < ROUNDS; t++) {
        uint32_t s0 = rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ w[t - 15] >> 3;
        uint32_t s1 = rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ w[t - 2] >> 10;

        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    memcpy(v, state, sizeof v);
    for (int t = 0; t < ROUNDS; t++) {
        uint32_t s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
        uint32_t s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
        uint32_t chosen = (v[4] & v[5]) ^ (~v[4] & v[6]);
        uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        uint32_t one = v[7] + s1 + chosen + constants[t] + w[t], two = s0 + majority;

        for (int i = 7; i > 0; i--)
            v[i] = v[i - 1];
        v[4] += one;
        v[0] = one + two;
    }
    for (int i = 0; i < 8; i++)
        state[i] += v[i];
}

void sha256(uint8_t out[HASH_BYTES], const void *data, size_t size)
{
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    const uint8_t *at = data;
    uint8_t last[2 * BLOCK] = {0};
    size_t left = size, end;

    for (; left >= BLOCK; left -= BLOCK, at += BLOCK)
        compress(state, at);
    memcpy(last, at, left);
    last[left] = 0x80;                   /* 5.1.1: a one, zeros, and the length in bits */
    end = left < BLOCK - 8 ? BLOCK : 2 * BLOCK;
    for (int i = 0; i < 8; i++)
        last[end - 1 - i] = (uint8_t)((uint64_t)size * 8 >> 8 * i);
    for (size_t i = 0; i < end; i += BLOCK)
        compress(state, last + i);
    for (int i = 0; i < HASH_BYTES; i++)
        out[i] = (uint8_t)(state[i / 4] >> (24 - i % 4 * 8));
}

/* H(key ^ outer || H(key ^ inner || data)); `data` is MOST_INPUT bytes at most. */
void hmac_sha256(uint8_t out[HASH_BYTES], const void *key, size_t key_size, const void *data, size_t size)
{
    uint8_t pad[BLOCK] = {0}, whole[BLOCK + MOST_INPUT];

    if (size > MOST_INPUT)
        size = MOST_INPUT;
    if (key_size > BLOCK)
        sha256(pad, key, key_size);
    else
        memcpy(pad, key, key_size);
    for (int i = 0; i < BLOCK; i++)
        whole[i] = pad[i] ^ 0x36;
    memcpy(whole + BLOCK, data, size);
    sha256(out, whole, BLOCK + size);
    for (int i = 0; i < BLOCK; i++)
        whole[i] = pad[i] ^ 0x5c;
    memcpy(whole + BLOCK, out, HASH_BYTES);
    sha256(out, whole, BLOCK + HASH_BYTES);
}

void hkdf_extract(uint8_t key[HASH_BYTES], const void *salt, size_t salt_size, const void *material, size_t size)
{
    hmac_sha256(key, salt, salt_size, material, size);
}

/* T(n) = HMAC(key, T(n - 1) || info || n), one after another. */
void hkdf_expand(uint8_t *out, size_t out_size, const uint8_t key[HASH_BYTES], const void *info, size_t info_size)
{
    uint8_t block[HASH_BYTES], input[HASH_BYTES + 256 + 1];
    size_t before = 0;

    if (info_size > 256)
        info_size = 256;
    for (uint8_t n = 1; out_size; n++) {
        size_t part = out_size < HASH_BYTES ? out_size : HASH_BYTES;

        memcpy(input, block, before);
        memcpy(input + before, info, info_size);
        input[before + info_size] = n;
        hmac_sha256(block, key, HASH_BYTES, input, before + info_size + 1);
        memcpy(out, block, part);
        out += part;
        out_size -= part;
        before = HASH_BYTES;
    }
}
