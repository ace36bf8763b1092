/* Channel 0 of the 8254 timer: IRQ 0, 1,193,182 counts a second. */
#ifndef LIB_PIT_H
#define LIB_PIT_H
#include <stdint.h>

enum { PIT_HZ = 1193182, PIT_IRQ = 0 };

void pit_periodic(uint16_t counts);
void pit_one_shot(uint16_t counts);
uint16_t pit_read(void);
#endif
