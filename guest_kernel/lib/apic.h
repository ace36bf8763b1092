/* The local APIC in xAPIC mode: registers in the page at 0xfee00000. */
#ifndef LIB_APIC_H
#define LIB_APIC_H
#include <stdbool.h>
#include <stdint.h>

enum apic_register {
    APIC_ID = 0x20, APIC_VERSION = 0x30, APIC_TPR = 0x80, APIC_PPR = 0xa0, APIC_EOI = 0xb0,
    APIC_SPURIOUS = 0xf0, APIC_ISR = 0x100, APIC_IRR = 0x200, APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320, APIC_LVT_LINT0 = 0x350, APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_CURRENT = 0x390, APIC_TIMER_DIVIDE = 0x3e0,
};

#define APIC_MASKED (1u << 16)
#define APIC_PERIODIC (1u << 17)
#define APIC_EXTINT 0x700u
#define ICR_NMI 0x400u
#define ICR_INIT 0x500u
#define ICR_STARTUP 0x600u
#define ICR_BUSY (1u << 12)
#define ICR_ASSERT (1u << 14)
#define ICR_SELF (1u << 18)
#define ICR_ALL_BUT_SELF (3u << 18)

uint32_t apic_read(enum apic_register where);
void apic_write(enum apic_register where, uint32_t value);
void apic_init(void);                    /* on, spurious vector 0xff, 8259 let through */
void apic_end(void);
uint32_t apic_id(void);
bool apic_bit(enum apic_register bank, unsigned vector);
void apic_send(uint32_t destination, uint32_t command);
void apic_send_self(unsigned vector);    /* and wait until it is pending */
void apic_timer(unsigned vector, uint32_t mode, uint32_t counts);
#endif
