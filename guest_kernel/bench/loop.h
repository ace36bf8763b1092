/* The loops: plain functions without any privileged instruction, so that a bare translator can be given
 * the same bytes. Their results depend on nothing but the count. */
#ifndef BENCH_LOOP_H
#define BENCH_LOOP_H
#include <stdint.h>

typedef uint64_t (*loop_function)(uint64_t count);

void fill_area(void);                    /* 64 MiB from 32 MiB on: call it first */
uint64_t mixed_loop(uint64_t count);     /* arithmetic, branches, calls, loads, a store */
uint64_t tight_loop(uint64_t count);     /* five instructions */
uint64_t load_loop(uint64_t count);      /* each load on another page of the 64 MiB */
#endif
