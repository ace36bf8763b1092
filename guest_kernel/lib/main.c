/* The first C code of every image. */
#include "pic.h"
#include "test.h"

void kernel_main(void);

bool spared(const char *check)
{
    if (!find_word(boot_info.cmdline, "fragile"))
        return false;
    report_skip("%s: this machine would not survive it", check);
    return true;
}

void kernel_main(void)
{
    console_init();
    desc_init();
    trap_init();
    pic_init();                          /* a BIOS may have left the timer running */
    boot_info_read();
    printf("TEST: %s\n", test_title);
    test_main();
    report_summary();
}
