/* Hello
 *
 * The first thing to boot: a banner that tells what the guest believes about its machine.  Under
 * ring1 this code runs in ring 1, yet every line below says what a kernel in ring 0 would see.  It
 * ends by powering the machine off, not with a verdict. */
#include "lib/test.h"

const char test_title[] = "Hello";

static void print_vendor(void)
{
    struct cpuid r = cpuid(0, 0);
    uint32_t words[3] = { r.ebx, r.edx, r.ecx };
    char vendor[13] = "";

    memcpy(vendor, words, sizeof words);
    printf("  processor    %s, highest CPUID leaf 0x%x\n", vendor, r.eax);
}

static void print_hypervisor(void)
{
    struct cpuid r = cpuid(0x40000000, 0);
    uint32_t words[3] = { r.ebx, r.ecx, r.edx };
    char signature[13] = "";

    memcpy(signature, words, sizeof words);
    if (cpuid(1, 0).ecx >> 31)
        printf("  hypervisor   %s\n", signature);
    else
        printf("  hypervisor   none that says so\n");
}

static void print_privilege(void)
{
    unsigned cs = read_cs();

    printf("  privilege    CS 0x%02x, so CPL %u; SS 0x%02x; RFLAGS.IOPL %lu\n", cs, cs & 3,
           (unsigned)read_ss(), (read_rflags() & FLAG_IOPL) >> 12);
}

static void print_mode(void)
{
    uint64_t efer = rdmsr(MSR_EFER);

    printf("  mode         %s, CR0 0x%lx, CR4 0x%lx\n",
           efer & EFER_LMA ? "long mode, 64-bit" : "not long mode", read_cr0(), read_cr4());
}

static void print_boot(void)
{
    printf("  booted by    %s", boot_info.protocol);
    if (boot_info.cmdline[0])
        printf(", command line \"%s\"", boot_info.cmdline);
    printf("\n  memory       ");
    if (boot_info.memory_kib)
        printf("%lu MiB\n", (boot_info.memory_kib + 1023) / 1024);
    else
        printf("not told\n");
}

void test_main(void)
{
    printf("\nHello from ring %u, says the guest kernel.\n\n", read_cs() & 3u);
    print_vendor();
    print_hypervisor();
    print_privilege();
    print_mode();
    print_boot();
    printf("\nGood night.\n");
    power_off();
}
