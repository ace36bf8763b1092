/* Kernel and programs share ring 3, and privileged instructions are emulated or refused. */
#include "xen/pv.h"

const char test_title[] = "Privilege";

void test_main(void)
{
    uint64_t value;
    uint32_t eax, ebx, ecx, edx;

    take_traps();
    TRYING("cli", "i"(0));
    check(trap_vector == 0 || trap_vector == 13, "CLI does not switch anything off");
    TRYING("hlt", "i"(0));
    equal(trap_vector, 13, "HLT is #GP");
    TRYING("lgdt (%0)", "r"(scratch));
    equal(trap_vector, 13, "LGDT is #GP");
    TRYING("mov %0, %%cr3", "r"(0ul));
    check(trap_vector == 0 || trap_vector == 13, "MOV to CR3 ends in an emulator");
    asm volatile("mov %%cr0, %0" : "=r"(value));
    check(value & 1, "CR0 reads with protection on");
    asm volatile("mov %%cr3, %0" : "=r"(value));
    equal(value >> 12, mfn_of((void *)start_info->pt_base), "CR3 reads as the machine frame of the root");
    TRYING("mov $0x12345, %%ecx; rdmsr", "i"(0));
    equal(trap_vector, 13, "an unknown MSR is #GP");
    asm volatile("ud2; .ascii \"xen\"; cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx)
                 : "0"(0x40000000));
    check(ebx == 0x566e6558, "the prefixed CPUID names Xen");
}
