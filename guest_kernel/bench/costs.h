/* The shortest handlers there can be: what is measured is delivery and return. */
#ifndef BENCH_COSTS_H
#define BENCH_COSTS_H
#include "lib/paging.h"

#define NON_PRESENT (TEST_AREA + (32ul << 12))

extern char page_fault_entry[];          /* drops the error code, returns to R15 */
extern char page_fault_back[];           /* the same by a jump: delivery alone */
extern char interrupt_entry[];
#endif
