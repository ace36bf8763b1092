/* The guest's half of the native dialect: finding it, and agreeing on features.
 *
 *     if (!native_find())                       nobody here speaks it
 *         ...
 *     native_use(1u << NATIVE_FEATURE_TIMER)    accept and activate; the features that now work
 *
 * The hypercalls themselves are functions in abi/native_calls.h, made from the same table as the
 * hypervisor's: native_set_timer(), native_wait_on_value() ... */
#ifndef PV_NATIVE_H
#define PV_NATIVE_H
#include <stdbool.h>
#include <stdint.h>
#include "abi/native_calls.h"

#define PHYSICAL(object) ((uint64_t)(uintptr_t)&(object))  /* the boot code maps one to one */

bool native_find(void);
uint32_t native_leaf(void);              /* the number of its first CPUID leaf, 0: none */
uint64_t native_offered(void);           /* mask of features, as CPUID says */
uint64_t native_tsc_hz(void);
uint64_t native_use(uint64_t features);  /* the mask of those that are active now */
bool native_use_page(void);              /* calls go through the hypercall page from now on */
#endif
