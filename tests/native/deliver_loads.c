/* Loads of segment registers, LDTR and TR; LAR and its kin. */
#include "deliver_machine.h"

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

void check_loads(void)
{
    data_segments();
    more_data_segments();
    system_segments();
    looking();
}
