/* Hypercalls of the first domain, of HVM guests, and numbers of nobody's. */
#include "xen/pv.h"

const char test_title[] = "What is not a domU's";

void test_main(void)
{
    equal(CALL1(PLATFORM_OP, scratch), PERM, "platform_op is EPERM");
    equal(CALL1(SYSCTL, scratch), PERM, "sysctl is EPERM");
    equal(CALL1(DOMCTL, scratch), PERM, "domctl is EPERM");
    equal(CALL1(KEXEC_OP, 0), PERM, "kexec_op is EPERM");
    equal(CALL1(HVM_OP, 0), NOSYS, "hvm_op is ENOSYS");
    equal(CALL1(XSM_OP, 0), NOSYS, "xsm_op is ENOSYS");
    equal(CALL1(NMI_OP, 0), NOSYS, "nmi_op is ENOSYS");
    equal(CALL1((enum call)63, 0), NOSYS, "63 is ENOSYS");
    equal(CALL1((enum call)1000, 0), NOSYS, "1000 is ENOSYS");
}
