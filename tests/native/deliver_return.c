/* IRET in every mode. */
#include "deliver_machine.h"

static void frame(uint64_t at, unsigned unit, unsigned n, const uint64_t *slots)
{
    for (unsigned k = 0; k < n; k++)
        put(at + k * unit, slots[k], unit);
}

#define FRAME(unit, ...) frame(rsp() + guest_segment(engine, SS).base, unit, sizeof((uint64_t[]){__VA_ARGS__}) / 8, (uint64_t[]){__VA_ARGS__})

static void returns_in_long_mode(void)
{
    machine(LONG64, 0);
    set_nmi_blocking(engine, true);
    FRAME(8, HANDLER, U64, 0x3202, USTACK, UD);
    DONE(STEP(op_iret, 0x48, 0xcf));
    EQ(guest_cpl(engine), 3);
    EQ(engine->nmi_blocked, false);
    EQ(core()->rip, HANDLER);
    EQ(rsp(), USTACK);
    EQ(flags(), 0x3202);                                              /* CPL 0 may set IOPL */
    EQ(sel(DS), 0);
    machine(LONG64, 0);
    FRAME(8, HANDLER, K64, 0x10246, 0x45678, 0);                      /* same level: SS:RSP popped all the same, null SS */
    DONE(STEP(op_iret, 0x48, 0xcf));
    EQ(rsp(), 0x45678);
    EQ(flags(), 0x10246);
    EQ(sel(DS), KD);
    core()->regs[RSP] = STACK;
    FRAME(8, HANDLER, U64, 2, USTACK, 0);
    FAULT(STEP(op_iret, 0x48, 0xcf), 13, 0);
    FRAME(8, 0x800000000000, U64, 2, USTACK, UD);
    FAULT(STEP(op_iret, 0x48, 0xcf), 13, 0);
    FRAME(8, HANDLER, U64, 2, USTACK, KD);
    FAULT(STEP(op_iret, 0x48, 0xcf), 13, KD);
    FRAME(8, HANDLER, BOTH, 2, STACK, KD);
    FAULT(STEP(op_iret, 0x48, 0xcf), 13, BOTH);
    set_guest_rflags(engine, 0x4002);
    FAULT(STEP(op_iret, 0x48, 0xcf), 13, 0);                          /* NT in long mode */
}

static void returns_to_narrower_modes(void)
{
    machine(LONG64, 0);
    FRAME(8, HANDLER, U32, 2, 0x1122334455667788, UD);                /* to compatibility mode */
    DONE(STEP(op_iret, 0x48, 0xcf));
    EQ(in_64bit_code(engine), false);
    EQ(rsp(), 0x55667788);
    machine(LONG64, 0);
    FRAME(8, HANDLER, U32, 2, 0x11220007, UD16);                      /* 16-bit SS: only SP is loaded */
    DONE(STEP(op_iret, 0x48, 0xcf));
    EQ(rsp(), (STACK & 0xffff0000) | 7);
    machine(LONG64, 3);
    set_guest_rflags(engine, 0x202);
    FRAME(8, HANDLER, U64, 0x3003, USTACK, UD);                       /* CPL 3 changes neither IOPL nor IF */
    DONE(STEP(op_iret, 0x48, 0xcf));
    EQ(flags(), 0x203);
    FRAME(8, HANDLER, K64, 2, STACK, KD);
    FAULT(STEP(op_iret, 0x48, 0xcf), 13, K64);
    core()->regs[RSP] = 0x7ffffffffff8;
    FAULT(STEP(op_iret, 0x48, 0xcf), 12, 0);
}

static void returns_in_protected_mode(void)
{
    machine(PROT, 0);
    FRAME(4, HANDLER, K32, 0x246);
    DONE(STEP(op_iret, 0xcf));
    EQ(rsp(), STACK + 12);
    core()->regs[RSP] = STACK;
    FRAME(4, HANDLER, U32, 0x202, USTACK, UD);
    DONE(STEP(op_iret, 0xcf));
    EQ(guest_cpl(engine), 3);
    EQ(rsp(), USTACK);
    machine(PROT, 0);
    FRAME(4, 0x1234, 0x2000, 0x23202, 0xffe, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000);
    DONE(STEP(op_iret, 0xcf));
    EQ(in_v8086(engine), true);
    EQ(guest_cpl(engine), 3);
    EQ(guest_segment(engine, GS).base, 0x70000);
    EQ(guest_segment(engine, CS).base, 0x20000);
    EQ(guest_segment(engine, SS).base, 0x30000);
    EQ(code_bits(engine), 16);
    machine(PROT, 0);
    set_guest_rflags(engine, 0x4002);
    put(TSS, TSS_SEL, 2);
    TASK(STEP(op_iret, 0xcf), 1ull << 30 | TSS_SEL);
    EQ(engine->pending.instruction_length, 1);
    put(TSS, TSS2, 2);                                                /* not busy */
    FAULT(STEP(op_iret, 0xcf), 10, TSS2);
    machine(PROT, 3);
    FRAME(4, HANDLER, ABSENT, 2, USTACK, UD);
    FAULT(STEP(op_iret, 0xcf), 13, ABSENT);                           /* RPL < CPL comes before presence */
}

static void returns_without_tables(void)
{
    machine(REAL, 0);
    FRAME(2, 0x2222, 0x1111, 0x7fd7);
    DONE(STEP(op_iret, 0xcf));
    EQ(flags(), 0x7fd7);
    EQ(core()->rip, 0x2222);
    EQ(rsp(), 0x1006);
    machine(V8086, 3);
    FRAME(2, 0x2222, 0x1111, 0x0003);
    DONE(STEP(op_iret, 0xcf));
    EQ(flags(), 0x23003);                                             /* IOPL kept */
    machine(V8086, 3);
    set_guest_rflags(engine, 0x20202);
    FAULT(STEP(op_iret, 0xcf), 13, 0);                                /* IOPL 0 */
    core()->cr[4] |= 1;                                               /* VME */
    FRAME(2, 0x2222, 0x1111, 0x0203);
    DONE(STEP(op_iret, 0xcf));
    EQ(flags(), 0xa0203);                                             /* IF went to VIF */
}

void check_returns(void)
{
    returns_in_long_mode();
    returns_to_narrower_modes();
    returns_in_protected_mode();
    returns_without_tables();
}
