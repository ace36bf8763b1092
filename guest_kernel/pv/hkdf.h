/* SHA-256 (FIPS 180-4), HMAC (RFC 2104) and HKDF (RFC 5869), small enough to be read. */
#ifndef PV_HKDF_H
#define PV_HKDF_H
#include <stddef.h>
#include <stdint.h>

enum { HASH_BYTES = 32 };

void sha256(uint8_t out[HASH_BYTES], const void *data, size_t size);
void hmac_sha256(uint8_t out[HASH_BYTES], const void *key, size_t key_size, const void *data, size_t size);

/* Extract: one key of full strength from material of any kind. */
void hkdf_extract(uint8_t key[HASH_BYTES], const void *salt, size_t salt_size, const void *material, size_t size);

/* Expand: up to 32 * 255 bytes from a key; another `info` gives others. */
void hkdf_expand(uint8_t *out, size_t out_size, const uint8_t key[HASH_BYTES], const void *info, size_t info_size);
#endif
