/* Far CALL and JMP, with and without call gates; SYSCALL and its kin. */
#include "deliver_machine.h"

#define JMP_FAR(s) 0xea, 0x00, 0x00, 0x05, 0x00, (s) & 0xff, (s) >> 8
#define CALL_FAR(s) 0x9a, 0x00, 0x00, 0x05, 0x00, (s) & 0xff, (s) >> 8

static void far_jumps(void)
{
    machine(PROT, 0);
    DONE(STEP(op_far_jump, JMP_FAR(K32)));
    EQ(core()->rip, HANDLER);
    FAULT(STEP(op_far_jump, JMP_FAR(0)), 13, 0);
    FAULT(STEP(op_far_jump, JMP_FAR(KD)), 13, KD);
    FAULT(STEP(op_far_jump, JMP_FAR(ABSENT)), 11, ABSENT);
    FAULT(STEP(op_far_jump, JMP_FAR(K16)), 13, 0);                    /* beyond its limit */
    FAULT(STEP(op_far_jump, JMP_FAR(U32)), 13, U32 & ~3);
    TASK(STEP(op_far_jump, JMP_FAR(TSS2)), 2ull << 30 | TSS2);
    EQ(engine->pending.instruction_length, 7);
    TASK(STEP(op_far_call, CALL_FAR(TASK_GATE)), 0ull << 30 | TSS2);
    FAULT(STEP(op_far_jump, JMP_FAR(TSS_SEL)), 13, TSS_SEL);
    FAULT(STEP(op_far_jump, JMP_FAR(ABSENT_TSS)), 11, ABSENT_TSS);
    DONE(STEP(op_far_call, CALL_FAR(K32)));
    EQ(get(STACK - 8, 4), HANDLER + 7);
    EQ(get(STACK - 4, 4), K32);
    EQ(rsp(), STACK - 8);
    machine(PROT, 3);
    DONE(STEP(op_far_jump, JMP_FAR(CONFORM)));
    EQ(sel(CS), CONFORM | 3);
    machine(COMPAT, 0);
    FAULT(STEP(op_far_jump, JMP_FAR(BOTH)), 13, BOTH);
    FAULT(STEP(op_far_jump, JMP_FAR(TSS2)), 13, TSS2);
    DONE(STEP(op_far_jump, JMP_FAR(K64)));
    EQ(in_64bit_code(engine), true);
    core()->regs[RBX] = 0x60000;
    put(0x60000, CODE, 4);
    put(0x60004, K32, 2);
    DONE(STEP(op_far_jump, 0xff, 0x2b));                              /* jmp far [rbx] */
    EQ(in_64bit_code(engine), false);
    EQ(sel(CS), K32);
}

static void far_without_tables(void)
{
    machine(REAL, 0);
    DONE(STEP(op_far_call, 0x9a, 0x34, 0x12, 0x00, 0x20));
    EQ(core()->rip, 0x1234);
    EQ(guest_segment(engine, CS).base, 0x20000);
    EQ(get(STACK + 0xffc, 2), 0x105);
    EQ(get(STACK + 0xffe, 2), CODE >> 4);
    DONE(STEP(op_far_return, 0xca, 0x04, 0x00));
    EQ(core()->rip, 0x105);
    EQ(rsp(), 0x1004);
    core()->regs[RSP] = 0xabcd0002;
    DONE(STEP(op_far_call, 0x9a, 0x34, 0x12, 0x00, 0x20));            /* SP wraps */
    EQ(rsp(), 0xabcdfffe);
    EQ(get(STACK + 0xfffe, 2), 0x10a);
    EQ(get(STACK, 2), CODE >> 4);
    core()->regs[RSP] = 1;
    FAULT(STEP(op_far_call, 0x9a, 0x34, 0x12, 0x00, 0x20), 12, 0);
}

static void call_gates(void)
{
    machine(PROT, 3);
    set_call_gate(GATE, K32, HANDLER, 0xec02);                        /* 32-bit, DPL 3, two parameters */
    put(USTACK, 0x11111111, 4);
    put(USTACK + 4, 0x22222222, 4);
    DONE(STEP(op_far_call, CALL_FAR(GATE | 3)));
    EQ(guest_cpl(engine), 0);
    EQ(core()->rip, HANDLER);
    EQ(sel(CS), K32);
    EQ(sel(SS), KD);
    EQ(rsp(), INNER - 24);
    EQ(get(INNER - 4, 4), UD);
    EQ(get(INNER - 8, 4), USTACK);
    EQ(get(INNER - 12, 4), 0x22222222);
    EQ(get(INNER - 16, 4), 0x11111111);
    EQ(get(INNER - 20, 4), U32);
    EQ(get(INNER - 24, 4), CODE + 7);
    core()->regs[RAX] = KD;
    DONE(STEP(op_move_to_segment, 0x8e, 0xd8));
    DONE(STEP(op_far_return, 0xca, 0x08, 0x00));
    EQ(guest_cpl(engine), 3);
    EQ(rsp(), USTACK + 8);
    EQ(sel(SS), UD);
    EQ(sel(DS), 0);                                                   /* DPL 0: not for ring 3 */
    EQ(sel(ES), UD);
    EQ(core()->rip, CODE + 7);
}

static void call_gate_refusals(void)
{
    machine(PROT, 3);
    set_call_gate(GATE, K32, HANDLER, 0x8c00);                        /* DPL 0 */
    FAULT(STEP(op_far_call, CALL_FAR(GATE | 3)), 13, GATE);
    set_call_gate(GATE, K32, HANDLER, 0x6c00);                        /* not present */
    FAULT(STEP(op_far_call, CALL_FAR(GATE | 3)), 11, GATE);
    set_call_gate(GATE, K32, HANDLER, 0xec00);
    FAULT(STEP(op_far_jump, JMP_FAR(GATE | 3)), 13, K32);             /* JMP cannot raise privilege */
    put(TSS + 8, 0, 2);
    FAULT(STEP(op_far_call, CALL_FAR(GATE | 3)), 10, 0);
    put(TSS + 8, UD, 2);
    FAULT(STEP(op_far_call, CALL_FAR(GATE | 3)), 10, UD & ~3);
    put(TSS + 8, ABSENT_DATA, 2);
    FAULT(STEP(op_far_call, CALL_FAR(GATE | 3)), 12, ABSENT_DATA);
    put(TSS + 8, DOWN, 2);                                            /* expands down to 0x1000 */
    put(TSS + 4, 0x1008, 4);
    FAULT(STEP(op_far_call, CALL_FAR(GATE | 3)), 12, DOWN);
}

static void long_call_gates(void)
{
    machine(LONG64, 3);
    set_call_gate(GATE, K64, HANDLER, 0xec00);
    core()->regs[RBX] = 0x60000;
    put(0x60000, 0, 4);
    put(0x60004, GATE | 3, 2);
    DONE(STEP(op_far_call, 0xff, 0x1b));                              /* call far [rbx] */
    EQ(guest_cpl(engine), 0);
    EQ(sel(SS), 0);
    EQ(rsp(), INNER - 32);
    EQ(get(INNER - 8, 8), UD);
    EQ(get(INNER - 16, 8), USTACK);
    EQ(get(INNER - 24, 8), U64);
    EQ(get(INNER - 32, 8), CODE + 2);
    DONE(STEP(op_far_return, 0x48, 0xcb));
    EQ(guest_cpl(engine), 3);
    EQ(rsp(), USTACK);
    set_call_gate(GATE, K32, HANDLER, 0xec00);                        /* must lead to 64-bit code */
    FAULT(STEP(op_far_call, 0xff, 0x1b), 13, K32);
    set_call_gate(GATE, K64, HANDLER, 0xec00);
    set_gdt(GATE + 8, 0, 0x500);                                      /* second half with a type */
    FAULT(STEP(op_far_call, 0xff, 0x1b), 13, GATE);
    set_gdt(GATE + 8, 0x8000, 0);                                     /* target not canonical */
    FAULT(STEP(op_far_call, 0xff, 0x1b), 13, 0);
}

static void fast_calls(void)
{
    struct vcpu *v;
    machine(LONG64, 3);
    v = vcpu_of(engine);
    v->star = 0x0023002800000000;                                     /* SYSRET base 0x23, SYSCALL 0x28 */
    v->lstar = HANDLER;
    v->fmask = 0x200;
    DONE(STEP(op_syscall, 0x0f, 0x05));
    EQ(core()->regs[RCX], CODE + 2);
    EQ(core()->regs[11], 0x202);
    EQ(flags(), 2);
    EQ(sel(CS), 0x28);
    EQ(sel(SS), 0x30);
    EQ(guest_cpl(engine), 0);
    DONE(STEP(op_sysret, 0x48, 0x0f, 0x07));
    EQ(sel(CS), 0x33);
    EQ(sel(SS), 0x2b);
    EQ(flags(), 0x202);
    EQ(guest_cpl(engine), 3);
    FAULT(STEP(op_sysret, 0x48, 0x0f, 0x07), 13, 0);
    machine(LONG64, 0);
    core()->regs[RCX] = 0x800000000000;
    FAULT(STEP(op_sysret, 0x48, 0x0f, 0x07), 13, 0);
    DONE(STEP(op_sysret, 0x0f, 0x07));
    EQ(in_64bit_code(engine), false);
    EQ(core()->rip, 0);
}

static void fast_calls_from_compatibility_mode(void)
{
    machine(COMPAT, 3);
    FAULT(STEP(op_syscall, 0x0f, 0x05), 6, 0);
    FAULT(STEP(op_sysenter, 0x0f, 0x34), 13, 0);
    vcpu_of(engine)->field[VMCS_GUEST_SYSENTER_CS] = 0x28;
    vcpu_of(engine)->field[VMCS_GUEST_SYSENTER_ESP] = INNER;
    vcpu_of(engine)->field[VMCS_GUEST_SYSENTER_EIP] = HANDLER;
    DONE(STEP(op_sysenter, 0x0f, 0x34));
    EQ(in_64bit_code(engine), true);
    EQ(rsp(), INNER);
    EQ(flags(), 2);
    core()->regs[RDX] = CODE;
    core()->regs[RCX] = USTACK;
    DONE(STEP(op_sysexit, 0x48, 0x0f, 0x35));
    EQ(sel(CS), 0x4b);
    EQ(sel(SS), 0x53);
    EQ(core()->rip, CODE);
    EQ(rsp(), USTACK);
}

void check_far_transfers(void)
{
    far_jumps();
    far_without_tables();
    call_gates();
    call_gate_refusals();
    long_call_gates();
    fast_calls();
    fast_calls_from_compatibility_mode();
}
