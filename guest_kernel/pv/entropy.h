/* Random bytes: the guest's own pool, with what the hypervisor contributes mixed in.
 *
 * Neither side can make the other's contribution worthless: the pool becomes
 * HKDF-Extract(salt = pool, own || the host's || generation), so that it is unpredictable if any of
 * them is.  A guest that was restored from a snapshot sees another generation, and mixes anew before
 * it gives anything out. */
#ifndef PV_ENTROPY_H
#define PV_ENTROPY_H
#include <stddef.h>
#include <stdint.h>
#include "pv/native.h"

void entropy_init(const volatile struct native_contract *contract, const void *own, size_t size);
void entropy_mix(const void *own, size_t size);      /* own: interrupt times, a seed on disk ... */
void entropy_get(void *out, size_t size);
#endif
