/* An iret whose frame cannot be loaded ends in the failsafe callback, which finds the frame. */
#include "xen/pv.h"

const char test_title[] = "The failsafe callback";

/* DS, ES, FS, GS, RCX, R11, RIP, CS, RFLAGS, RSP, SS: arch-x86/xen.h, "failsafe". */
enum { RCX = 4, R11, RIP, CS, FLAGS, SP, SS, WORDS };
uint64_t failsafe_frame[WORDS], failsafe_sp, failsafe_calls;
void failsafe_entry(void);
static struct { uint16_t type, flags; uint32_t pad; uint64_t address; } registration;

asm("failsafe_entry:\n\t"
    "incq failsafe_calls(%rip)\n\t"
    "cld\n\t"
    "mov %rsp, %rsi\n\t"
    "lea failsafe_frame(%rip), %rdi\n\t"
    "mov $11, %ecx\n\t"
    "rep movsq\n\t"
    "mov failsafe_sp(%rip), %rsp\n\t"
    "ret");

static void iret_to(uint64_t cs, uint64_t rip, uint64_t ss)
{
    asm volatile("lea 1f(%%rip), %%rax\n\t"
                 "push %%rax\n\t"
                 "mov %%rsp, failsafe_sp(%%rip)\n\t"
                 "push %2\n\tpush $0x5550\n\tpush $0x202\n\tpush %0\n\tpush %1\n\t"
                 "push $0\n\tpush $0x77\n\tpush $0x88\n\tpush $0\n\t"
                 "mov $23, %%eax\n\t"
                 "syscall\n\t"
                 "ud2\n"
                 "1:"
                 : : "r"(cs), "r"(rip), "r"(ss) : "rax", "rcx", "rdx", "rsi", "rdi", "r11", "memory");
}

void test_main(void)
{
    registration.type = 1;
    registration.flags = 1;
    registration.address = (uint64_t)failsafe_entry;
    equal(CALL2(CALLBACK_OP, 0, &registration), 0, "a failsafe handler is taken");
    vcpu_info[1] = 0;
    iret_to(0x1238, 0x100000, 0xe02b);
    equal(failsafe_calls, 1, "a code selector of nothing ends there");
    equal(failsafe_frame[RIP], 0x100000, "with the frame's RIP");
    equal(failsafe_frame[CS] & 0xffff, 0x1238, "its selector");
    equal(failsafe_frame[SP], 0x5550, "its stack pointer");
    equal(failsafe_frame[RCX], 0x77, "its RCX");
    equal(failsafe_frame[R11], 0x88, "and R11");
    check(vcpu_info[1], "it masks events, as it was registered");
    vcpu_info[1] = 0;
    iret_to(0xe030, 0x800000000000, 0xe02b);
    equal(failsafe_calls, 2, "so does an address that is not canonical");
    iret_to(0xe030, 0x100000, 0x1238);
    equal(failsafe_calls, 3, "so does a stack selector of nothing");
    equal(failsafe_frame[SS], 0x123b, "which the frame shows");
    iret_to(0xe028, 0x100000, 0xe02b);
    equal(failsafe_calls, 4, "so does data as code");
}
