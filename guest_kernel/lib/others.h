/* Starting the other processors of a machine with several. */
#ifndef LIB_OTHERS_H
#define LIB_OTHERS_H
#include <stdbool.h>
#include <stdint.h>

enum { MAX_CPUS = 16 };

/* Each other processor runs this on a stack of its own, in long mode with interrupts off; `index`
 * counts from 1 in the order in which they arrive.  When it returns, the processor sleeps for
 * good. */
typedef void (*other_main)(uint64_t index);

void others_start(other_main entry);
uint32_t others_running(void);
bool others_wait(volatile uint32_t *word, uint32_t wanted);
#endif
