/* Triple fault
 *
 * With an empty IDT the first exception has no handler, the double fault has none either, and the
 * processor gives up.  Nothing is reported after "now": the machine ends, or starts again. */
#include "lib/test.h"

const char test_title[] = "Triple fault";

void test_main(void)
{
    printf("now\n");
    console_flush();
    idt_load_limit(0);
    asm volatile("ud2");
    report(false, "the machine goes on after a triple fault");
}
