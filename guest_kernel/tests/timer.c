/* Timer
 *
 * Interrupts from outside: the 8259 with the 8254, the local APIC and its timer, and the small
 * print of when an interrupt is taken: IF, priorities, nesting, the shadow of STI, waking from HLT,
 * NMI. */
#include "lib/apic.h"
#include "lib/pic.h"
#include "lib/pit.h"
#include "lib/test.h"

const char test_title[] = "Timer interrupts";

enum { LOW = 0x50, HIGH = 0x61, TICKS = 10, PERIOD = 1193, APIC_COUNTS = 20000 };

static volatile int ticks;

static void wait_for_ticks(int wanted)
{
    cli();
    while (ticks < wanted)
        asm volatile("sti; hlt; cli" : : : "memory");
}

static void on_pic_tick(struct trap_frame *frame)
{
    ticks++;
    pic_end((unsigned)frame->vector - PIC_VECTOR);
}

static void on_apic_tick(struct trap_frame *frame)
{
    (void)frame;
    ticks++;
    apic_end();
}

static void check_pit(void)
{
    uint16_t first, second;

    trap_handle(PIC_VECTOR + PIT_IRQ, on_pic_tick);
    pit_periodic(PERIOD);
    pic_unmask(PIT_IRQ);
    wait_for_ticks(TICKS);
    report(true, "PIT: %d periodic interrupts through the PIC", TICKS);
    pic_mask_all();
    ticks = 0;
    sti();
    for (int i = 0; i < 1000; i++)
        asm volatile("pause");
    cli();
    expect_equal((uint64_t)ticks, 0, "PIC: a masked line does not interrupt");
    pit_one_shot(PERIOD);
    pic_unmask(PIT_IRQ);
    ticks = 0;
    wait_for_ticks(1);
    report(true, "PIT: one shot");
    pic_mask_all();
    pit_periodic(0);
    first = pit_read();
    for (int i = 0; i < 10000; i++)
        asm volatile("pause");
    second = pit_read();
    report(first != second, "PIT: the count moves");
}

static void check_apic_timer(void)
{
    trap_handle(LOW, on_apic_tick);
    ticks = 0;
    apic_timer(LOW, 0, APIC_COUNTS);
    wait_for_ticks(1);
    expect_equal(apic_read(APIC_TIMER_CURRENT), 0, "APIC timer: one shot ends at zero");
    apic_timer(LOW, APIC_PERIODIC, APIC_COUNTS);
    wait_for_ticks(1 + TICKS);
    report(apic_read(APIC_TIMER_CURRENT) <= APIC_COUNTS, "APIC timer: %d periods", TICKS);
    apic_timer(LOW, APIC_MASKED, APIC_COUNTS);
    asm volatile("sti; nop; cli" : : : "memory");    /* one may have come before the mask */
    ticks = 0;
    sti();
    while (apic_read(APIC_TIMER_CURRENT))
        asm volatile("pause");
    cli();
    expect_equal((uint64_t)ticks, 0, "APIC timer: masked, it counts without interrupting");
    trap_handle(LOW, NULL);
}

static void check_pending(void)
{
    cli();
    apic_send_self(LOW);
    report(apic_bit(APIC_IRR, LOW), "IF clear: the interrupt waits in the IRR");
    expect_none(TRY("sti; cli", : : : "memory"), "STI; CLI lets nothing in");
    struct trap trap = TRY_WITHIN("sti", "nop", "cli", : : : "memory");
    expect_trap(trap, LOW, 0, "STI lets the pending interrupt in");
    report(trap.after, "STI: only after the next instruction");
    report(apic_bit(APIC_ISR, LOW) && !apic_bit(APIC_IRR, LOW), "taken: from IRR to ISR");
    apic_end();
    report(!apic_bit(APIC_ISR, LOW), "EOI clears the ISR");
}

static void check_without_shadow(void)
{
    apic_send_self(LOW);
    struct trap trap = TRY_WITHIN("pushf; orl $0x200, (%%rsp); popf", "nop", "cli",
                                  : : : "memory", "cc");
    report(trap.vector == LOW && !trap.after, "POPF has no shadow");
    apic_end();
    apic_send_self(LOW);
    trap = TRY_WITHIN("sti", "hlt", "cli", : : : "memory");
    report(trap.vector == LOW && trap.after, "STI; HLT with an interrupt pending wakes at once");
    apic_end();
}

static void check_priority(void)
{
    apic_send_self(LOW);
    apic_send_self(HIGH);
    struct trap trap = TRY_WITHIN("sti", "nop", "cli", : : : "memory");
    expect_equal((uint64_t)trap.vector, HIGH, "of two pending the higher vector comes first");
    expect_none(TRY("sti; nop; nop; cli", : : : "memory"), "the lower one waits for the EOI");
    apic_end();
    trap = TRY_WITHIN("sti", "nop", "cli", : : : "memory");
    expect_equal((uint64_t)trap.vector, LOW, "after the EOI the lower one comes");
    apic_end();
    apic_write(APIC_TPR, 0x50);
    apic_send_self(LOW);
    expect_none(TRY("sti; nop; nop; cli", : : : "memory"), "TPR of the same class holds it back");
    apic_write(APIC_TPR, 0x40);
    trap = TRY_WITHIN("sti", "nop", "cli", : : : "memory");
    expect_equal((uint64_t)trap.vector, LOW, "a lower TPR lets it in");
    apic_end();
}

static int depth, deepest, order[4], taken;

static void on_nested(struct trap_frame *frame)
{
    depth++;
    deepest = depth > deepest ? depth : deepest;
    order[taken++ & 3] = (int)frame->vector;
    if (frame->vector == LOW) {
        apic_send_self(HIGH);
        asm volatile("sti; nop; cli" : : : "memory");
    }
    depth--;
    apic_end();
}

static void check_nesting(void)
{
    trap_handle(LOW, on_nested);
    trap_handle(HIGH, on_nested);
    apic_send_self(LOW);
    asm volatile("sti; nop; cli" : : : "memory");
    trap_handle(LOW, NULL);
    trap_handle(HIGH, NULL);
    report(taken == 2 && deepest == 2 && order[1] == HIGH, "a handler with IF set is interrupted");
}

static volatile int nmis, nmi_depth, nmi_deepest;

static void on_nmi(struct trap_frame *frame)
{
    (void)frame;
    nmi_depth++;
    nmi_deepest = nmi_depth > nmi_deepest ? nmi_depth : nmi_deepest;
    if (nmis++ == 0) {
        apic_send(apic_id(), ICR_NMI | ICR_ASSERT);
        for (int i = 0; i < 1000; i++)
            asm volatile("pause");
    }
    nmi_depth--;
}

static void check_nmi(void)
{
    trap_handle(NMI, on_nmi);
    cli();
    apic_send(apic_id(), ICR_NMI | ICR_ASSERT);
    for (int i = 0; i < 100000 && nmis < 2; i++)
        asm volatile("pause");
    expect_equal((uint64_t)nmis, 2, "NMI comes with IF clear, and a second one after it");
    expect_equal((uint64_t)nmi_deepest, 1, "NMI is blocked until IRET");
    trap_handle(NMI, NULL);
}

/* Many sleeps, each ended by one timer shot: a lost wake-up would hang here. */
static void check_sleeps(void)
{
    trap_handle(LOW, on_apic_tick);
    ticks = 0;
    for (int i = 0; i < 200; i++) {
        apic_timer(LOW, 0, 500);
        wait_for_ticks(i + 1);
    }
    expect_equal((uint64_t)ticks, 200, "200 sleeps, none lost");
    trap_handle(LOW, NULL);
}

static void check_time_goes_on(void)
{
    uint64_t before = rdtsc();

    trap_handle(LOW, on_apic_tick);
    ticks = 0;
    apic_timer(LOW, 0, APIC_COUNTS);
    wait_for_ticks(1);
    report(rdtsc() > before + 1000, "the TSC goes on during HLT");
    trap_handle(LOW, NULL);
}

void test_main(void)
{
    apic_init();
    check_pit();
    check_apic_timer();
    check_pending();
    check_without_shadow();
    check_priority();
    check_nesting();
    check_nmi();
    check_sleeps();
    check_time_goes_on();
}
