/* Events through the IDT, and what faults on the way become. */
#include "deliver_machine.h"

static void events_in_long_mode(void)
{
    machine(LONG64, 3);
    core()->regs[RSP] = USTACK + 4;
    set_idt_gate(14, K64, HANDLER, 14, 0, 0);
    struct event pf = {.type = EVENT_HARDWARE_EXCEPTION, .vector = 14, .has_error = true, .error = 6, .cr2 = 0xdead000};
    DONE(deliver_event(engine, &pf));
    EQ(core()->cr[2], 0xdead000);
    EQ(vcpu_of(engine)->cr2, 0xdead000);
    EQ(rsp(), INNER - 48);
    EQ(get(INNER - 8, 8), UD);
    EQ(get(INNER - 16, 8), USTACK + 4);
    EQ(get(INNER - 24, 8), 0x10202);                                  /* RF: it is a fault */
    EQ(get(INNER - 32, 8), U64);
    EQ(get(INNER - 40, 8), CODE);
    EQ(get(INNER - 48, 8), 6);
    EQ(sel(SS), 0);
    EQ(sel(CS), K64);
    EQ(flags(), 2);
    core()->regs[RSP] += 8;
    DONE(STEP(op_iret, 0x48, 0xcf));
    EQ(flags(), 0x10202);
    EQ(rsp(), USTACK + 4);
    machine(LONG64, 0);
    core()->regs[RSP] = STACK - 4;
    set_idt_gate(32, K64, HANDLER, 15, 0, 0);
    DONE(deliver(EVENT_EXTERNAL, 32, -1, 0));
    EQ(rsp(), (STACK - 16) - 40);                                     /* aligned first */
    EQ(get(rsp() + 24, 8), STACK - 4);
    EQ(get(rsp() + 16, 8), 0x202);
    EQ(sel(SS), KD);
    EQ(flags(), 0x202);                                               /* trap gate: IF stays */
    machine(LONG64, 0);
    set_idt_gate(2, K64, HANDLER, 14, 0, 1);
    DONE(deliver(EVENT_NMI, 2, -1, 0));
    EQ(rsp(), IST1 - 40);
    EQ(sel(SS), KD);
}

static void refusals_in_long_mode(void)
{
    machine(LONG64, 3);
    FAULT(deliver(EVENT_HARDWARE_EXCEPTION, 6, -1, 0), 13, 6 * 8 + 3);    /* no gate */
    FAULT(deliver(EVENT_SOFTWARE_INTERRUPT, 6, -1, 2), 13, 6 * 8 + 2);
    set_idt_gate(0x80, K64, HANDLER, 14, 0, 0);
    FAULT(deliver(EVENT_SOFTWARE_INTERRUPT, 0x80, -1, 2), 13, 0x80 * 8 + 2);
    DONE(deliver(EVENT_PRIVILEGED_SOFTWARE_EXCEPTION, 0x80, -1, 1));      /* ICEBP: no DPL check */
    EQ(get(rsp(), 8), CODE + 1);
    machine(LONG64, 3);
    set_idt_gate(3, K64, HANDLER, 15, 3, 0);
    DONE(deliver(EVENT_SOFTWARE_EXCEPTION, 3, -1, 1));
    EQ(get(rsp(), 8), CODE + 1);
    EQ(get(rsp() + 16, 8), 0x202);
    machine(LONG64, 0);
    set_idt_gate(32, K32, HANDLER, 14, 0, 0);
    FAULT(deliver(EVENT_EXTERNAL, 32, -1, 0), 13, K32 | 1);           /* not 64-bit code */
    set_idt_gate(32, 0, HANDLER, 14, 0, 0);
    FAULT(deliver(EVENT_EXTERNAL, 32, -1, 0), 13, 1);
    set_idt_gate(32, K64, 0x800000000000, 14, 0, 0);
    FAULT(deliver(EVENT_EXTERNAL, 32, -1, 0), 13, 1);
    set_idt_gate(32, K64, HANDLER, 14, 0, 0);
    put(IDT + 32 * 16 + 5, 0x0e, 1);
    FAULT(deliver(EVENT_EXTERNAL, 32, -1, 0), 11, 32 * 8 + 3);
    set_idt_gate(32, K64, HANDLER, 14, 0, 0);
    core()->regs[RSP] = 0x800000000000 + 0x100;
    FAULT(deliver(EVENT_EXTERNAL, 32, -1, 0), 12, 1);
    core()->idt.limit = 32 * 16 + 14;
    FAULT(deliver(EVENT_EXTERNAL, 32, -1, 0), 13, 32 * 8 + 3);
    machine(LONG64, 3);
    set_idt_gate(32, K64, HANDLER, 14, 0, 0);
    core()->tr.limit = 10;
    FAULT(deliver(EVENT_EXTERNAL, 32, -1, 0), 10, TSS_SEL | 1);
}

static void events_in_protected_mode(void)
{
    machine(PROT, 3);
    set_idt_gate(13, K32, HANDLER, 14, 0, 0);
    DONE(deliver(EVENT_HARDWARE_EXCEPTION, 13, 0x18, 0));
    EQ(rsp(), INNER - 24);
    EQ(get(INNER - 4, 4), UD);
    EQ(get(INNER - 8, 4), USTACK);
    EQ(get(INNER - 12, 4), 0x10202);
    EQ(get(INNER - 16, 4), U32);
    EQ(get(INNER - 20, 4), CODE);
    EQ(get(INNER - 24, 4), 0x18);
    EQ(sel(DS), UD);
    machine(PROT, 1);
    set_idt_gate(32, R1, HANDLER, 6, 0, 0);                           /* 16-bit gate, same level, offset 0 */
    DONE(deliver(EVENT_EXTERNAL, 32, -1, 0));
    EQ(guest_cpl(engine), 1);
    EQ(rsp(), STACK - 6);
    EQ(core()->rip, HANDLER & 0xffff);
    machine(PROT, 0);
    set_idt_gate(8, TSS2, 0, 5, 0, 0);
    TASK(deliver(EVENT_HARDWARE_EXCEPTION, 8, 0, 0), 3ull << 30 | TSS2);
    set_idt_gate(8, ABSENT_TSS, 0, 5, 0, 0);
    FAULT(deliver(EVENT_HARDWARE_EXCEPTION, 8, 0, 0), 11, ABSENT_TSS | 1);
    set_idt_gate(32, U32, HANDLER, 14, 0, 0);
    FAULT(deliver(EVENT_EXTERNAL, 32, -1, 0), 13, (U32 & ~3) | 1);    /* to a lower privilege */
    struct event db = {.type = EVENT_HARDWARE_EXCEPTION, .vector = 1, .dr6 = 0x4000};
    vcpu_of(engine)->field[VMCS_GUEST_DR7] = 0x2400;
    set_idt_gate(1, K32, HANDLER, 14, 0, 0);
    DONE(deliver_event(engine, &db));
    EQ(vcpu_of(engine)->dr6, 0xffff4ff0);
    EQ(vcpu_of(engine)->field[VMCS_GUEST_DR7], 0x400);
    EQ(get(rsp() + 8, 4), 0x202);                                     /* a trap: no RF */
}

static void events_in_real_mode(void)
{
    machine(REAL, 0);
    put(0x21 * 4, 0x1234, 2);
    put(0x21 * 4 + 2, 0x2000, 2);
    DONE(deliver(EVENT_SOFTWARE_INTERRUPT, 0x21, -1, 2));
    EQ(core()->rip, 0x1234);
    EQ(guest_segment(engine, CS).base, 0x20000);
    EQ(rsp(), 0xffa);
    EQ(get(STACK + 0xffa, 2), 0x102);
    EQ(get(STACK + 0xffc, 2), CODE >> 4);
    EQ(get(STACK + 0xffe, 2), 0x202);
    EQ(flags(), 2);
    core()->idt.limit = 0x20 * 4;
    FAULT(deliver(EVENT_EXTERNAL, 0x21, -1, 0), 13, 0);
}

static void events_in_v8086_mode(void)
{
    machine(V8086, 3);
    set_idt_gate(0x21, K32, HANDLER, 14, 3, 0);
    DONE(deliver(EVENT_SOFTWARE_INTERRUPT, 0x21, -1, 2));             /* IOPL 3 */
    EQ(in_v8086(engine), false);
    EQ(guest_cpl(engine), 0);
    EQ(rsp(), INNER - 36);
    EQ(get(INNER - 4, 4), 0x1000);
    EQ(get(INNER - 20, 4), STACK >> 4);
    EQ(get(INNER - 24, 4), 0x1000);
    EQ(get(INNER - 28, 4), 0x23202);
    EQ(get(INNER - 36, 4), 0x102);
    EQ(guest_segment(engine, DS).flags & DESC_P, 0);
    machine(V8086, 3);
    set_guest_rflags(engine, 0x20202);
    FAULT(deliver(EVENT_SOFTWARE_INTERRUPT, 0x21, -1, 2), 13, 0);     /* IOPL 0 */
    set_idt_gate(0x21, CONFORM, HANDLER, 14, 3, 0);
    FAULT(deliver(EVENT_EXTERNAL, 0x21, -1, 0), 13, CONFORM | 1);
    put(0x21 * 4, 0x1234, 2);
    core()->cr[4] |= 1;                                               /* VME, bit map all clear */
    DONE(deliver(EVENT_SOFTWARE_INTERRUPT, 0x21, -1, 2));
    EQ(in_v8086(engine), true);
    EQ(core()->rip, 0x1234);
    EQ(get(STACK + 0xffe, 2), 0x3002);                                /* IF shows VIF = 0, IOPL 3 */
    EQ(flags(), 0x20202);
    put(TSS + 0x88 - 32 + 0x21 / 8, 1 << (0x21 & 7), 1);
    FAULT(deliver(EVENT_SOFTWARE_INTERRUPT, 0x21, -1, 2), 13, 0);
}

static int combined(enum event_type type, int first, int second)
{
    struct event a = {.type = type, .vector = (uint8_t)first}, next;
    struct pending b = {.kind = PENDING_EXCEPTION, .vector = (uint8_t)second};
    return combine_events(&a, &b, &next) ? next.vector : -1;
}

static void combinations(void)
{
    EQ(combined(EVENT_HARDWARE_EXCEPTION, 13, 11), 8);
    EQ(combined(EVENT_HARDWARE_EXCEPTION, 13, 14), 14);
    EQ(combined(EVENT_HARDWARE_EXCEPTION, 14, 14), 8);
    EQ(combined(EVENT_HARDWARE_EXCEPTION, 14, 13), 8);
    EQ(combined(EVENT_HARDWARE_EXCEPTION, 6, 13), 13);
    EQ(combined(EVENT_HARDWARE_EXCEPTION, 8, 13), -1);
    EQ(combined(EVENT_HARDWARE_EXCEPTION, 8, 14), -1);
    EQ(combined(EVENT_SOFTWARE_INTERRUPT, 13, 13), 13);
    EQ(combined(EVENT_EXTERNAL, 14, 14), 14);
    EQ(combined(EVENT_HARDWARE_EXCEPTION, 0, 12), 8);
}

void check_events(void)
{
    events_in_long_mode();
    refusals_in_long_mode();
    events_in_protected_mode();
    events_in_real_mode();
    events_in_v8086_mode();
    combinations();
}
