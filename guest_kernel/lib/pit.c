/* 8254, channel 0, low byte then high byte. */
#include "pit.h"
#include "io.h"

enum { CHANNEL0 = 0x40, CONTROL = 0x43, LATCH0 = 0x00, ONE_SHOT = 0x30, RATE = 0x34 };

static void start(uint8_t mode, uint16_t counts)
{
    outb(mode, CONTROL);
    outb((uint8_t)counts, CHANNEL0);
    outb((uint8_t)(counts >> 8), CHANNEL0);
}

void pit_periodic(uint16_t counts)
{
    start(RATE, counts);
}

void pit_one_shot(uint16_t counts)
{
    start(ONE_SHOT, counts);
}

uint16_t pit_read(void)
{
    uint8_t low;

    outb(LATCH0, CONTROL);
    low = inb(CHANNEL0);
    return (uint16_t)(low | inb(CHANNEL0) << 8);
}
