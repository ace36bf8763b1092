/* Version, texts, features, and what is no command. */
#include "xen/pv.h"

const char test_title[] = "xen_version";

void test_main(void)
{
    static uint8_t text[1024];
    uint32_t feature[2] = { 0, 0 };

    equal(CALL2(XEN_VERSION, 0, 0) >> 16, 4, "the major version is 4");
    equal(CALL2(XEN_VERSION, 1, text), 0, "the extra version is told");
    equal(CALL2(XEN_VERSION, 3, text), 0, "capabilities are told");
    check(text[0] == 'x' && text[4] == '3', "they begin with xen-3");
    equal(CALL2(XEN_VERSION, 6, feature), 0, "features are told");
    check(feature[1] & 1 << 5, "mmu_pt_update_preserve_ad is among them");
    feature[0] = 1;
    equal(CALL2(XEN_VERSION, 6, feature), INVAL, "a second word of features is EINVAL");
    equal(CALL2(XEN_VERSION, 7, 0), PAGE, "pages have 4096 bytes");
    equal(CALL2(XEN_VERSION, 1, BAD), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL2(XEN_VERSION, 3, HOLE), FAULT, "a pointer into the hole is EFAULT");
    equal(CALL2(XEN_VERSION, 99, 0), NOSYS, "another command is ENOSYS");
}
