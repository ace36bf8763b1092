/* What a benchmark tells whoever measures it, through the debug port, since a guest's own clock is not
 * the host's:  "@NAME COUNT\n" right before COUNT repetitions of something, "@\n" right after.  The last
 * word of the command line multiplies counts, in percent, so that a slow machine can do less. */
#ifndef BENCH_MARKS_H
#define BENCH_MARKS_H
#include <stdint.h>

void mark_begin(const char *name, uint64_t count);
void mark_end(void);
void mark_figure(const char *name, uint64_t count, uint64_t figure);     /* "=NAME COUNT FIGURE\n" */
uint64_t scaled(uint64_t count);         /* by the command line's percentage; at least 1 */
#endif
