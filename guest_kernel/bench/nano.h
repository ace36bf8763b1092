/* The shortest handlers there can be: what is measured is the way there and back. */
#ifndef BENCH_NANO_H
#define BENCH_NANO_H
#include "lib/desc.h"
#include "lib/paging.h"

#define NON_PRESENT (TEST_AREA + (32ul << 12))

extern char nano_page_fault[];           /* drops the error code, returns to R15 */
extern char nano_divide[];               /* returns to R15 */
extern char nano_syscall[];
#endif
