/* Descriptors, far transfers and events against the manual's pseudo-code. Prints one line for each difference.
 *
 *   deliver_check LIBUNICORN LIBCAPSTONE
 */
#include "deliver_machine.h"

#include <sys/mman.h>

static struct core *core(void) { return engine->core; }
static uint64_t rsp(void) { return core()->regs[RSP]; }
static uint64_t flags(void) { return guest_rflags(engine); }
static uint16_t sel(int seg) { return guest_segment(engine, seg).selector; }

static void data_segments(void)
{
    machine(PROT, 0);
    core()->regs[RAX] = DOWN;
    DONE(STEP(op_move_to_segment, 0x8e, 0xd8));                       /* mov ds, ax */
    EQ(sel(DS), DOWN);
    EQ(get(GDT + DOWN + 5, 1) & 1, 1);                                /* accessed bit */
    core()->regs[RAX] = ABSENT_DATA;
    FAULT(STEP(op_move_to_segment, 0x8e, 0xd8), 11, ABSENT_DATA);
    FAULT(STEP(op_move_to_segment, 0x8e, 0xd0), 12, ABSENT_DATA);     /* mov ss, ax */
    core()->regs[RAX] = READ_ONLY;
    FAULT(STEP(op_move_to_segment, 0x8e, 0xd0), 13, READ_ONLY);
    core()->regs[RAX] = 0;
    FAULT(STEP(op_move_to_segment, 0x8e, 0xd0), 13, 0);
    DONE(STEP(op_move_to_segment, 0x8e, 0xe0));                       /* mov fs, 0 */
    EQ(guest_segment(engine, FS).flags & DESC_P, 0);
    FAULT(STEP(op_move_to_segment, 0x8e, 0xc8), 6, 0);                /* mov cs, ax */
    core()->regs[RAX] = GDT_BYTES;
    FAULT(STEP(op_move_to_segment, 0x8e, 0xd8), 13, GDT_BYTES);
    core()->regs[RAX] = 0xc;                                          /* no LDT */
    FAULT(STEP(op_move_to_segment, 0x8e, 0xd8), 13, 0xc);
    put(STACK, KD, 4);
    DONE(STEP(op_move_to_segment, 0x17));                             /* pop ss */
    EQ(rsp(), STACK + 4);
    EQ(events_blocked(engine), true);
    core()->regs[RBX] = 0x60000;
    put(0x60000, 0x12345678, 4);
    put(0x60004, KD, 2);
    DONE(STEP(op_move_to_segment, 0x0f, 0xb4, 0x0b));                 /* lfs ecx, [ebx] : DS is not flat now */
}

static void more_data_segments(void)
{
    machine(PROT, 3);
    core()->regs[RAX] = KD;
    FAULT(STEP(op_move_to_segment, 0x8e, 0xd8), 13, KD);
    core()->regs[RAX] = CONFORM | 3;
    DONE(STEP(op_move_to_segment, 0x8e, 0xd8));
    core()->regs[RBX] = 0x60000;
    put(0x60000, 0x12345678, 4);
    put(0x60004, UD, 2);
    DONE(STEP(op_move_to_segment, 0xc4, 0x0b));                       /* les ecx, [ebx] */
    EQ(core()->regs[RCX], 0x12345678);
    machine(LONG64, 0);
    core()->regs[RAX] = 0;
    DONE(STEP(op_move_to_segment, 0x8e, 0xd0));                       /* null SS at CPL 0 in 64-bit mode */
    EQ(guest_cpl(engine), 0);
    put(STACK, UD, 8);
    DONE(STEP(op_move_to_segment, 0x0f, 0xa1));                       /* pop fs: 8 bytes */
    EQ(rsp(), STACK + 8);
    machine(LONG64, 3);
    core()->regs[RAX] = 3;
    FAULT(STEP(op_move_to_segment, 0x8e, 0xd0), 13, 0);
    core()->regs[RSP] = 0x800000000000;
    FAULT(STEP(op_move_to_segment, 0x0f, 0xa1), 12, 0);
    machine(REAL, 0);
    core()->regs[RAX] = 0x1234;
    DONE(STEP(op_move_to_segment, 0x8e, 0xd0));
    EQ(guest_segment(engine, SS).base, 0x12340);
}

static void system_segments(void)
{
    machine(PROT, 0);
    DONE(load_ldtr(engine, LDT_SEL));
    EQ(guest_segment(engine, LDTR).base, GDT);
    core()->regs[RAX] = KD | 4;
    DONE(STEP(op_move_to_segment, 0x8e, 0xd8));
    FAULT(load_ldtr(engine, KD), 13, KD);
    FAULT(load_tr(engine, 0), 13, 0);
    FAULT(load_tr(engine, TSS_SEL), 13, TSS_SEL);                     /* busy */
    FAULT(load_tr(engine, ABSENT_TSS), 11, ABSENT_TSS);
    DONE(load_tr(engine, TSS2));
    EQ(get(GDT + TSS2 + 5, 1), 0x8b);
    machine(LONG64, 0);
    set_gdt(TSS2, TSS << 16 | 0x67, 0x8900);
    set_gdt(TSS2 + 8, 0x8000, 0);                                     /* base not canonical */
    FAULT(load_tr(engine, TSS2), 13, TSS2);
    set_gdt(TSS2 + 8, 0xffff8000, 0);
    DONE(load_tr(engine, TSS2));
    EQ(guest_segment(engine, TR).base, 0xffff800000000000 + TSS);
}

static void looking(void)
{
    machine(PROT, 3);
    core()->regs[RAX] = UD;
    DONE(STEP(op_lar_lsl_verr_verw, 0x0f, 0x02, 0xc8));               /* lar ecx, eax */
    EQ(core()->regs[RCX], 0xc0f200);                                  /* bits 19:16 are undefined; ours: 0 */
    EQ(flags() & 0x40, 0x40);
    DONE(STEP(op_lar_lsl_verr_verw, 0x0f, 0x03, 0xc8));               /* lsl */
    EQ(core()->regs[RCX], 0xffffffff);
    core()->regs[RAX] = KD;
    DONE(STEP(op_lar_lsl_verr_verw, 0x0f, 0x02, 0xc8));
    EQ(flags() & 0x40, 0);
    EQ(core()->regs[RCX], 0xffffffff);
    core()->regs[RAX] = UD;
    DONE(STEP(op_lar_lsl_verr_verw, 0x0f, 0x00, 0xe8));               /* verw ax */
    EQ(flags() & 0x40, 0x40);
    core()->regs[RAX] = U32;
    DONE(STEP(op_lar_lsl_verr_verw, 0x0f, 0x00, 0xe8));
    EQ(flags() & 0x40, 0);
    DONE(STEP(op_lar_lsl_verr_verw, 0x0f, 0x00, 0xe0));               /* verr ax */
    EQ(flags() & 0x40, 0x40);
    core()->regs[RAX] = 0x10;
    core()->regs[RCX] = 3;
    DONE(STEP(op_lar_lsl_verr_verw, 0x63, 0xc8));                     /* arpl ax, cx */
    EQ(core()->regs[RAX], 0x13);
    EQ(flags() & 0x40, 0x40);
    machine(LONG64, 0);
    core()->regs[RAX] = TASK_GATE;
    DONE(STEP(op_lar_lsl_verr_verw, 0x0f, 0x02, 0xc8));               /* not visible in long mode */
    EQ(flags() & 0x40, 0);
    machine(REAL, 0);
    FAULT(STEP(op_lar_lsl_verr_verw, 0x0f, 0x02, 0xc8), 6, 0);
}

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

static void events_in_old_modes(void)
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

int main(int argc, char **argv)
{
    if (argc != 3 || bind_libraries(argv[1], argv[2])) {
        fprintf(stderr, "usage: deliver_check LIBUNICORN LIBCAPSTONE: %s\n", binding_error());
        return 2;
    }
    ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    engine = engine_create(ram, RAM_BYTES);
    engine_set_slots(engine, &(struct memory_slot){.size = RAM_BYTES, .writable = 1}, 1);
    void (*const parts[])(void) = {
        data_segments, more_data_segments, system_segments, looking, far_jumps, far_without_tables, call_gates, long_call_gates,
        returns_in_long_mode, returns_in_protected_mode, returns_without_tables, fast_calls, events_in_long_mode,
        refusals_in_long_mode, events_in_protected_mode, events_in_old_modes, combinations,
    };
    for (unsigned k = 0; k < sizeof parts / sizeof *parts; k++)
        parts[k]();
    printf("%d checks, %d differences\n", checks, failures);
    engine_destroy(engine);
    return failures != 0;
}
