/* The compute loop
 *
 * Nothing here leaves the guest: what is measured is translated code and memory. Three loops: the mixed
 * one that all comparisons quote, a tight one that never leaves its block, and nothing but loads spread over
 * 64 MiB, where every machine that translates addresses in software pays most. */
#include "bench/loop.h"
#include "bench/marks.h"
#include "lib/test.h"

const char test_title[] = "Benchmark: loops";

enum { MIXED = 10000000, TIGHT = 200000000, LOADS = 10000000 };

static void measure(const char *name, loop_function loop, uint64_t count)
{
    mark_begin(name, count);
    loop(count);
    mark_end();
}

void test_main(void)
{
    fill_area();
    measure("mixed", mixed_loop, scaled(MIXED));
    measure("tight", tight_loop, scaled(TIGHT));
    measure("loads", load_loop, scaled(LOADS));
    exit_with(0);
}
