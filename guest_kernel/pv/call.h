/* The native dialect's hypercall: one instruction, or an entry of the page that the hypervisor
 * filled with the right one. */
#ifndef PV_CALL_H
#define PV_CALL_H
#include <stdint.h>
#include "abi/native.h"

extern const uint8_t *native_page;       /* 0 until native_use_page() */

static inline int64_t native_call(uint64_t number, uint64_t a0, uint64_t a1, uint64_t a2,
                                  uint64_t a3, uint64_t a4, uint64_t a5)
{
    register uint64_t r8 asm("r8") = a5;
    int64_t result;

    if (native_page)
        asm volatile("call *%[entry]"
                     : "=a"(result)
                     : [entry] "r"(native_page + (number - NATIVE_TAG) * NATIVE_ENTRY_BYTES), "b"(a0), "c"(a1),
                       "d"(a2), "S"(a3), "D"(a4), "r"(r8)
                     : "memory");
    else
        asm volatile("vmcall"
                     : "=a"(result)
                     : "a"(number), "b"(a0), "c"(a1), "d"(a2), "S"(a3), "D"(a4), "r"(r8)
                     : "memory");
    return result;
}
#endif
