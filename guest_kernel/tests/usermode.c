/* User mode
 *
 * Ring 3: what it may do, what it may not, and every way in and out: INT through a gate of DPL 3,
 * exceptions, SYSCALL and SYSRET, SYSENTER and SYSEXIT, IRET; in 64-bit and in 32-bit code. */
#include "lib/test.h"
#include "lib/user.h"

const char test_title[] = "User mode and system calls";

#define IDT_ERROR(vector) ((vector) * 8ul + 2)

USER(u_double, "lea (%rdi,%rdi), %rax; " USER_RETURN);
USER(u_read_cs, "mov %cs, %eax; mov %ss, %ecx; " USER_RETURN);
USER(u_read_ds, "mov %ds, %eax; mov %es, %ecx; " USER_RETURN);
USER(u_flags, "pushf; pop %rax; " USER_RETURN);
USER(u_popf, "push %rdi; popf; pushf; pop %rax; " USER_RETURN);
USER(u_int81, ".byte 0xcd, 0x81");
USER(u_int3, "int3");
USER(u_icebp, ".byte 0xf1");
USER(u_read, "mov (%rdi), %eax; " USER_RETURN);
USER(u_write, "mov %eax, (%rdi); " USER_RETURN);
USER(u_jump, "jmp *%rdi");
USER(u_misaligned, "mov 1(%rdi), %eax; " USER_RETURN);
USER(u_in, "mov %edi, %edx; inb %dx, %al; " USER_RETURN);
USER(u_in_word, "mov %edi, %edx; inw %dx, %ax; " USER_RETURN);
USER(u_sti_cli, "sti; pushf; pop %rax; cli; pushf; pop %rcx; " USER_RETURN);
USER(u_syscall, "mov $0x1234, %eax; syscall; mov %cs, %ecx; mov %ss, %edx; " USER_RETURN);
USER(u_sysenter, "mov %rsp, %rcx; lea 1f(%rip), %rdx; sysenter\n1:\tmov %cs, %ecx; mov %ss, %edx; "
     USER_RETURN);
USER(u_lar, "xor %eax, %eax; lar %edi, %eax; setz %cl; movzx %cl, %ecx; " USER_RETURN);
USER(u_far_to_32, "push $0x1b; lea 1f(%rip), %rax; push %rax; lretq\n1:\t.code32\n\tmov %cs, %eax\n\t"
     "dec %eax; inc %eax; int $0x80; .code64");
USER(u32_stack, ".code32\n\tmov %esp, %eax; push $5; sub %esp, %eax; pop %ecx; int $0x80\n\t.code64");
USER(u32_inc, ".code32\n\tmov $6, %eax; .byte 0x40; mov %cs, %ecx; int $0x80\n\t.code64");
USER(u32_wrap, ".code32\n\tpush %ss; pop %ds; mov $0xfffffff0, %eax; mov 0x50100010(%eax), %eax; int $0x80\n\t.code64");

/* Instructions that ring 3 may not execute, each with the fault as error code: 0 unless it names
 * one. */
USER(p_cli, "cli");
USER(p_sti, "sti");
USER(p_hlt, "hlt");
USER(p_in, "inb $0x40, %al");
USER(p_out, "outb %al, $0x80");
USER(p_insb, "mov $0x3ff, %edx; lea -8(%rsp), %rdi; insb");
USER(p_outsb, "mov $0x3ff, %edx; lea -8(%rsp), %rsi; outsb");
USER(p_read_cr0, "mov %cr0, %rax");
USER(p_write_cr3, "mov %rax, %cr3");
USER(p_read_cr8, "mov %cr8, %rax");
USER(p_read_dr7, "mov %dr7, %rax");
USER(p_write_dr0, "mov %rax, %dr0");
USER(p_clts, "clts");
USER(p_lmsw, "lmsw %ax");
USER(p_lgdt, "lgdt (%rsp)");
USER(p_lidt, "lidt (%rsp)");
USER(p_lldt, "xor %eax, %eax; lldt %ax");
USER(p_ltr, "ltr %ax");
USER(p_invlpg, "invlpg (%rsp)");
USER(p_wbinvd, "wbinvd");
USER(p_invd, "invd");
USER(p_rdmsr, "mov $0x1b, %ecx; rdmsr");
USER(p_wrmsr, "mov $0x1b, %ecx; wrmsr");
USER(p_swapgs, "swapgs");
USER(p_sysret, "sysretq");
USER(p_sysexit, "sysexitq");

static const struct {
    const char *code, *name;
} privileged[] = {
    { p_cli, "CLI" }, { p_sti, "STI" }, { p_hlt, "HLT" }, { p_in, "IN" }, { p_out, "OUT" },
    { p_insb, "INSB" }, { p_outsb, "OUTSB" }, { p_read_cr0, "MOV from CR0" },
    { p_write_cr3, "MOV to CR3" }, { p_read_cr8, "MOV from CR8" }, { p_read_dr7, "MOV from DR7" },
    { p_write_dr0, "MOV to DR0" }, { p_clts, "CLTS" }, { p_lmsw, "LMSW" }, { p_lgdt, "LGDT" },
    { p_lidt, "LIDT" }, { p_lldt, "LLDT" }, { p_ltr, "LTR" }, { p_invlpg, "INVLPG" },
    { p_wbinvd, "WBINVD" }, { p_invd, "INVD" }, { p_rdmsr, "RDMSR" }, { p_wrmsr, "WRMSR" },
    { p_swapgs, "SWAPGS" }, { p_sysret, "SYSRET" }, { p_sysexit, "SYSEXIT" },
};

USER(s_kernel_ss, "mov $0x10, %eax; mov %eax, %ss");
USER(s_kernel_ds, "mov $0x10, %eax; mov %eax, %ds");
USER(s_null_ss, "xor %eax, %eax; mov %eax, %ss");
USER(s_iret, "mov %rsp, %rax; push $0x10; push %rax; pushf; push $8; push %rdi; iretq");
USER(s_lret, "push $8; push %rdi; lretq");
USER(s_rdtsc, "rdtsc");
USER(s_sgdt, "sgdt -16(%rsp); " USER_RETURN);
USER(s_smsw, "smsw %eax; " USER_RETURN);

static void check_entry_and_return(void)
{
    struct trap trap = user_call(u_double, 21, 0);

    report(trap_is(trap, RETURNED, 0) && trap.rax == 42, "ring 3 runs and comes back by INT 0x80");
    report(trap.cs == USER_CS64 && trap.ss == USER_SS && trap.rsp == USER_STACK_TOP,
           "the frame shows ring 3's CS, SS and RSP");
    expect_equal(trap.frame + 40, tss.rsp[0], "the frame is on the stack that the TSS names");
    report(!(trap.handler_flags & FLAG_IF), "the handler runs with IF clear");
    trap = user_call(u_read_cs, 0, 0);
    report(trap.rax == USER_CS64 && trap.rcx == USER_SS, "ring 3 sees its own selectors");
    trap = user_call(u_read_ds, 0, 0);
    report(trap.rax == 0 && trap.rcx == 0, "IRET to ring 3 takes the kernel's DS and ES away");
    expect_trap(user_call(u_int81, 0, 0), GP, IDT_ERROR(0x81), "INT through a gate of DPL 0");
    expect_trap(user_call(u_int3, 0, 0), BP, 0, "INT3 through a gate of DPL 3");
    gate_set(BP, trap_stub(BP), GATE_INTERRUPT, 0);
    expect_trap(user_call(u_int3, 0, 0), GP, IDT_ERROR(BP), "INT3 through a gate of DPL 0");
    gate_reset(BP);
    expect_trap(user_call(u_icebp, 0, 0), DB, 0, "ICEBP asks for no DPL");
}

static void check_privileged(void)
{
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);         /* else SYSRET is #UD */
    for (unsigned i = 0; i < sizeof privileged / sizeof *privileged; i++) {
        struct trap trap = user_call(privileged[i].code, 0, 0);

        report(trap_is(trap, GP, 0) && trap.cs == USER_CS64, "#GP in ring 3: %s",
               privileged[i].name);
    }
}

static void check_segments(void)
{
    struct trap trap;

    expect_trap(user_call(s_kernel_ss, 0, 0), GP, KERNEL_SS, "ring 3 may not load the kernel's SS");
    expect_trap(user_call(s_kernel_ds, 0, 0), GP, KERNEL_SS, "ring 3 may not load the kernel's DS");
    expect_trap(user_call(s_null_ss, 0, 0), GP, 0, "ring 3 may not load null in SS");
    expect_trap(user_call(s_iret, user_address(u_double), 0), GP, KERNEL_CS,
                "IRET inward is refused");
    expect_trap(user_call(s_lret, user_address(u_double), 0), GP, KERNEL_CS,
                "far RET inward is refused");
    trap = user_call(u_lar, KERNEL_SS, 0);
    report(trap.vector == RETURNED && trap.rcx == 0, "LAR of the kernel's data fails in ring 3");
    trap = user_call(u_lar, USER_SS, 0);
    report(trap.rcx == 1 && (trap.rax & 0xff00) == 0xf300,
           "LAR of the user's data works in ring 3");
}

static void check_flags(void)
{
    struct trap trap = user_call(u_flags, 0, FLAG_IOPL | FLAG_IF);

    expect_equal(trap.rax & (FLAG_IOPL | FLAG_IF), FLAG_IOPL | FLAG_IF,
                 "PUSHF in ring 3 shows IOPL and IF");
    trap = user_call(u_popf, 2 | FLAG_IOPL | FLAG_AC, FLAG_IF);
    expect_equal(trap.rax & ~FLAG_AC, 2 | FLAG_IF, "POPF in ring 3 silently keeps IF and IOPL");
    report(trap.rax & FLAG_AC, "POPF in ring 3 may change AC");
    trap = user_call(u_popf, 2, FLAG_IF | FLAG_IOPL);
    expect_equal(trap.rax, 2 | FLAG_IOPL, "POPF in ring 3 changes IF with IOPL 3, but not IOPL");
    trap = user_call(u_sti_cli, 0, FLAG_IOPL);
    report(trap.vector == RETURNED && trap.rax & FLAG_IF && !(trap.rcx & FLAG_IF),
           "STI and CLI in ring 3 with IOPL 3");
    trap = user_call(u_double, 1, FLAG_TF);
    report(trap.vector == DB && trap.cs == USER_CS64, "single step in ring 3");
}

static void check_ports(void)
{
    enum { PORT = 0x5557 };           /* nobody's; the last of its byte in the map */

    tss.io_map_base = offsetof(struct tss, io_map);
    memset(tss.io_map, 0xff, sizeof tss.io_map);
    expect_trap(user_call(u_in, PORT, 0), GP, 0, "I/O map: a set bit refuses the port");
    tss.io_map[PORT / 8] &= ~(1u << PORT % 8);
    expect_trap(user_call(u_in, PORT, 0), RETURNED, 0, "I/O map: a clear bit allows it");
    expect_trap(user_call(u_in, PORT - 1, 0), GP, 0, "I/O map: but not its neighbour");
    expect_trap(user_call(u_in_word, PORT, 0), GP, 0, "I/O map: a word needs both bits");
    tss.io_map[(PORT + 1) / 8] &= ~1u;
    expect_trap(user_call(u_in_word, PORT, 0), RETURNED, 0, "I/O map: a word with both bits");
    memset(tss.io_map, 0xff, sizeof tss.io_map);
    expect_trap(user_call(u_in, PORT, FLAG_IOPL), RETURNED, 0, "IOPL 3 needs no map");
    tss.io_map[8191] = 0;
    expect_trap(user_call(u_in, 0xffff, 0), RETURNED, 0, "I/O map: port 0xffff");
    tss.io_map_base = sizeof tss;
    expect_trap(user_call(u_in, PORT, 0), GP, 0, "no I/O map: every port refused");
}

static void check_page_faults(void)
{
    struct trap trap = user_call(u_read, (uint64_t)gdt, 0);

    expect_trap(trap, PF, PF_USER | PF_PRESENT, "#PF: ring 3 reads the kernel");
    expect_equal(trap.cr2, (uint64_t)gdt, "#PF: CR2 from ring 3");
    expect_trap(user_call(u_write, (uint64_t)gdt, 0), PF, PF_USER | PF_WRITE | PF_PRESENT,
                "#PF: ring 3 writes to the kernel");
    expect_trap(user_call(u_write, USER_TEXT, 0), PF, PF_USER | PF_WRITE | PF_PRESENT,
                "#PF: ring 3 writes to a read-only page");
    expect_trap(user_call(u_read, TEST_AREA, 0), PF, PF_USER, "#PF: ring 3 reads a missing page");
    expect_trap(user_call(u_jump, (uint64_t)gdt, 0), PF,
                PF_USER | PF_PRESENT | (has_nx() ? PF_FETCH : 0), "#PF: ring 3 jumps to the kernel");
    expect_trap(user_call(u_jump, NON_CANONICAL, 0), GP, 0, "#GP: ring 3 jumps out of the map");
}

static void check_alignment(void)
{
    expect_trap(user_call(u_misaligned, USER_DATA, FLAG_AC), RETURNED, 0,
                "AC without CR0.AM is nothing");
    write_cr0(read_cr0() | CR0_AM);
    expect_trap(user_call(u_misaligned, USER_DATA, FLAG_AC), AC, 0,
                "#AC: misaligned read in ring 3");
    expect_trap(user_call(u_misaligned, USER_DATA, 0), RETURNED, 0, "CR0.AM without AC is nothing");
    write_cr0(read_cr0() & ~CR0_AM);
}

/* The kernel's side of SYSCALL and SYSENTER: note what came, add one to RAX, go back. */
extern char on_syscall[], on_sysenter[];
extern uint64_t seen_rcx, seen_r11, seen_flags, seen_rsp, seen_selectors;
asm(".pushsection .bss\n"
    "user_rsp: .quad 0\nseen_rcx: .quad 0\nseen_r11: .quad 0\nseen_flags: .quad 0\n"
    "seen_rsp: .quad 0\nseen_selectors: .quad 0\n"
    ".popsection\n"
    "note_entry:\n\t"
    "mov %rcx, seen_rcx(%rip)\n\tmov %r11, seen_r11(%rip)\n\t"
    "mov %cs, seen_selectors(%rip)\n\tmov %ss, seen_selectors+2(%rip)\n\t"
    "pushf\n\tpop seen_flags(%rip)\n\tinc %rax\n\tret\n"
    "on_syscall:\n\t"
    "mov %rsp, user_rsp(%rip)\n\tlea ring0_stack+8192(%rip), %rsp\n\t"
    "call note_entry\n\t"
    "mov user_rsp(%rip), %rsp\n\tsysretq\n"
    "on_sysenter:\n\t"
    "mov %rsp, seen_rsp(%rip)\n\tcall note_entry\n\tsysexitq\n");

static void check_syscall(void)
{
    struct trap trap;

    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_SCE);
    expect_trap(user_call(u_syscall, 0, 0), UD, 0, "SYSCALL without EFER.SCE");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, (uint64_t)USER_CS32 << 48 | (uint64_t)KERNEL_CS << 32);
    wrmsr(MSR_LSTAR, (uint64_t)on_syscall);
    wrmsr(MSR_FMASK, FLAG_IF);
    trap = user_call(u_syscall, 0, FLAG_IF | FLAG_IOPL);
    report(trap.vector == RETURNED && trap.rax == 0x1235, "SYSCALL goes in, SYSRET comes back");
    expect_equal(seen_flags & (FLAG_IF | FLAG_IOPL), FLAG_IOPL, "SYSCALL masks RFLAGS by FMASK");
    expect_equal(seen_r11, 2 | FLAG_IF | FLAG_IOPL, "SYSCALL saves RFLAGS in R11");
    expect_equal((uint32_t)seen_selectors, KERNEL_SS << 16 | KERNEL_CS, "SYSCALL loads CS and SS");
    expect_equal(seen_rcx, user_address(u_syscall) + 7, "SYSCALL saves RIP in RCX");
    report((uint16_t)trap.rcx == USER_CS64 && (uint16_t)trap.rdx == USER_SS,
           "SYSRET loads CS and SS");
    expect_equal(trap.rflags & (FLAG_IF | FLAG_IOPL), FLAG_IF | FLAG_IOPL,
                 "SYSRET restores RFLAGS");
}

static void check_sysenter(void)
{
    struct trap trap;

    wrmsr(MSR_SYSENTER_CS, 0);
    expect_trap(user_call(u_sysenter, 0, 0), GP, 0, "SYSENTER with a null CS");
    wrmsr(MSR_SYSENTER_CS, KERNEL_CS);
    wrmsr(MSR_SYSENTER_ESP, (uint64_t)ring0_stack + 4096);
    wrmsr(MSR_SYSENTER_EIP, (uint64_t)on_sysenter);
    trap = user_call(u_sysenter, 0, FLAG_IF | FLAG_IOPL);
    expect_trap(trap, RETURNED, 0, "SYSENTER goes in, SYSEXIT comes back");
    expect_equal(seen_rsp, (uint64_t)ring0_stack + 4096, "SYSENTER loads RSP");
    expect_equal(seen_flags & (FLAG_IF | FLAG_IOPL), FLAG_IOPL, "SYSENTER clears IF alone");
    expect_equal((uint32_t)seen_selectors, KERNEL_SS << 16 | KERNEL_CS, "SYSENTER loads CS and SS");
    report((uint16_t)trap.rcx == KERNEL_CS + 35 && (uint16_t)trap.rdx == KERNEL_CS + 43,
           "SYSEXIT loads CS and SS");
    expect_equal(trap.rsp, USER_STACK_TOP, "SYSEXIT loads RSP");
}

static void check_32bit(void)
{
    struct trap trap = user_call32(u32_inc, 0, 0);

    report(trap.vector == RETURNED && trap.rax == 7 && (uint16_t)trap.rcx == USER_CS32,
           "32-bit code in ring 3: byte 0x40 is INC");
    trap = user_call32(u32_stack, 0, 0);
    report(trap.rax == 4 && trap.rcx == 5, "32-bit code in ring 3: PUSH takes four bytes");
    *(volatile uint32_t *)USER_DATA = 0x1234;
    trap = user_call32(u32_wrap, 0, 0);
    report(trap.vector == RETURNED && trap.rax == 0x1234,
           "32-bit code in ring 3: addresses wrap at 4 GiB");
    trap = user_call(u_far_to_32, 0, 0);
    report(trap.vector == RETURNED && (uint16_t)trap.rax == USER_CS32 && trap.cs == USER_CS32,
           "far RET from 64-bit to 32-bit code in ring 3");
}

static void check_time_stamp_disable(void)
{
    write_cr4(read_cr4() | 1ul << 2);
    expect_trap(user_call(s_rdtsc, 0, 0), GP, 0, "RDTSC in ring 3 with CR4.TSD");
    write_cr4(read_cr4() & ~(1ul << 2));
}

static void check_user_mode_prevention(void)
{
    struct trap trap = user_call(s_smsw, 0, 0);

    report(trap.vector == RETURNED && (uint16_t)trap.rax == (uint16_t)read_cr0(),
           "SMSW works in ring 3");
    expect_trap(user_call(s_sgdt, 0, 0), RETURNED, 0, "SGDT works in ring 3");
    if (!(cpuid(7, 0).ecx & 1u << 2)) {
        report_skip("UMIP: not offered");
        return;
    }
    write_cr4(read_cr4() | CR4_UMIP);
    expect_trap(user_call(s_sgdt, 0, 0), GP, 0, "SGDT in ring 3 with UMIP");
    expect_trap(user_call(s_smsw, 0, 0), GP, 0, "SMSW in ring 3 with UMIP");
    write_cr4(read_cr4() & ~CR4_UMIP);
}

static void execute(void *code)
{
    ((void (*)(void))code)();
}

static void check_supervisor_prevention(void)
{
    struct cpuid seven = cpuid(7, 0);
    uint64_t cr4 = read_cr4(), value;

    if (seven.ebx & 1u << 7) {
        write_cr4(cr4 | 1ul << 20);
        expect_trap(try_call(execute, (void *)user_address(u_double)), PF, PF_PRESENT | PF_FETCH,
                    "SMEP: ring 0 may not execute a user page");
    } else
        report_skip("SMEP: not offered");
    if (seven.ebx & 1u << 20) {
        write_cr4(cr4 | 1ul << 21);
        expect_trap(TRY("mov (%1), %0", : "=r"(value) : "r"(USER_DATA) : "memory"), PF, PF_PRESENT,
                    "SMAP: ring 0 may not read a user page");
        expect_none(TRY_WITHIN("stac", "mov (%1), %0", "clac",
                               : "=r"(value) : "r"(USER_DATA) : "memory"),
                    "SMAP: STAC allows it");
        expect_trap(user_call(u_double, 1, 0), RETURNED, 0, "SMAP: ring 3 still runs");
    } else
        report_skip("SMAP: not offered");
    write_cr4(cr4);
}

void test_main(void)
{
    paging_init();
    user_init();
    check_entry_and_return();
    check_privileged();
    check_segments();
    check_flags();
    check_ports();
    check_page_faults();
    check_alignment();
    check_syscall();
    check_sysenter();
    check_32bit();
    check_time_stamp_disable();
    check_user_mode_prevention();
    check_supervisor_prevention();
}
