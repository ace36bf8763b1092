/* Local APIC: register access and the few commands tests need. */
#include "apic.h"
#include "cpu.h"

enum { BASE = 0xfee00000, ENABLED = 1 << 8, SPURIOUS_VECTOR = 0xff, DIVIDE_BY_1 = 0xb };

static volatile uint32_t *address_of(enum apic_register where)
{
    return (volatile uint32_t *)(uintptr_t)(BASE + (unsigned)where);
}

uint32_t apic_read(enum apic_register where)
{
    return *address_of(where);
}

void apic_write(enum apic_register where, uint32_t value)
{
    *address_of(where) = value;
}

void apic_init(void)
{
    apic_write(APIC_TPR, 0);
    apic_write(APIC_SPURIOUS, ENABLED | SPURIOUS_VECTOR);
    apic_write(APIC_LVT_LINT0, APIC_EXTINT);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
}

void apic_end(void)
{
    apic_write(APIC_EOI, 0);
}

uint32_t apic_id(void)
{
    return apic_read(APIC_ID) >> 24;
}

/* A bit of one of the 256-bit banks: eight registers of 32 bits, sixteen bytes apart. */
bool apic_bit(enum apic_register bank, unsigned vector)
{
    return apic_read((enum apic_register)(bank + vector / 32 * 16)) >> vector % 32 & 1;
}

void apic_send(uint32_t destination, uint32_t command)
{
    apic_write(APIC_ICR_HIGH, destination << 24);
    apic_write(APIC_ICR, command);
    while (apic_read(APIC_ICR) & ICR_BUSY)
        asm volatile("pause");
}

void apic_send_self(unsigned vector)
{
    apic_write(APIC_ICR, ICR_SELF | ICR_ASSERT | vector);
    while (!apic_bit(APIC_IRR, vector) && !(read_rflags() & FLAG_IF))
        asm volatile("pause");
}

void apic_timer(unsigned vector, uint32_t mode, uint32_t counts)
{
    apic_write(APIC_LVT_TIMER, mode | vector);
    apic_write(APIC_TIMER_INITIAL, counts);
}
