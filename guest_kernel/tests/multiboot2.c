/* Multiboot 2
 *
 * The same kernel behind the other header: what the loader told us about memory, modules and the
 * command line. */
#include "lib/test.h"

const char test_title[] = "Multiboot 2 information";

void test_main(void)
{
    uint64_t usable = 0;

    report(!strcmp(boot_info.protocol, "multiboot 2"), "the loader says multiboot 2");
    printf("command line \"%s\"\n", boot_info.cmdline);
    report(boot_info.memory_kib > 1024, "basic memory information");
    for (int i = 0; i < boot_info.ranges; i++) {
        struct memory_range range = boot_info.range[i];

        printf("memory %016lx to %016lx type %u\n", range.base, range.base + range.length,
               range.type);
        usable += range.type == 1 ? range.length : 0;
    }
    report(boot_info.ranges > 0 && usable >= 1 << 20, "a memory map with usable memory");
    for (int i = 0; i < boot_info.modules; i++) {
        struct boot_module module = boot_info.module[i];

        printf("module %lu bytes \"%s\"\n", module.end - module.start, module.words);
        report(module.end >= module.start, "module %d has a size", i);
    }
}
