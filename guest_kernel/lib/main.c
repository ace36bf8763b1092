/* The first C code of every image. */
#include "test.h"

void kernel_main(void);

void kernel_main(void)
{
    console_init();
    desc_init();
    trap_init();
    boot_info_read();
    printf("TEST: %s\n", test_title);
    test_main();
    report_summary();
}
