/* The native dialect: revocation
 *
 * A guest that waits for the hypervisor to want a feature back: it is told by an interrupt and by the
 * contract page, the feature works on until the guest acknowledges, and then it is gone.  Nobody
 * revokes by himself: whoever runs this says when, at the call that does nothing ("=WAITS"); with the
 * word "deaf" in the command line the guest never acknowledges. */
#include "bench/marks.h"
#include "lib/apic.h"
#include "lib/test.h"
#include "pv/native.h"

const char test_title[] = "The native dialect: revocation";

enum { VECTOR = 0x57, WAITS = 5 };

static struct native_contract contract;
static volatile int notices;

static void on_notice(struct trap_frame *frame)
{
    (void)frame;
    notices++;
    apic_end();
}

void test_main(void)
{
    uint64_t bit = 1ul << NATIVE_FEATURE_ENTROPY;
    static uint8_t bytes[32] __attribute__((aligned(8)));

    apic_init();
    trap_handle(VECTOR, on_notice);
    if (!native_find() || native_use(bit) != bit)
        report_abort("nothing to revoke");
    native_set_page(NATIVE_PAGE_CONTRACT, PHYSICAL(contract));
    native_set_vector(NATIVE_NOTICE_REVOCATION, VECTOR);
    native_call(NATIVE_CALL_NOP, WAITS, 0, 0, 0, 0, 0);
    asm volatile("sti; nop; cli");
    if (!notices) {
        report_skip("nobody revoked anything");
        return;
    }
    expect_equal((uint64_t)notices, 1, "one notice");
    report(contract.revoking == bit && contract.active == bit, "the page names the feature, which is active still");
    expect_equal((uint64_t)native_entropy(PHYSICAL(bytes)), 0, "it works until it is let go");
    if (find_word(boot_info.cmdline, "deaf"))
        for (;;) {
            for (volatile int i = 0; i < 20000; i++)
                ;
            if (native_entropy(PHYSICAL(bytes)))
                report(false, "it works on");
        }
    expect_equal((uint64_t)native_contract_acknowledge(NATIVE_FEATURE_ENTROPY), 0, "acknowledged");
    expect_equal((uint64_t)native_entropy(PHYSICAL(bytes)), (uint64_t)-NATIVE_E_NOT_ACTIVE, "it is gone");
    report(contract.revoked == bit && !contract.active, "the page says so");
    native_call(NATIVE_CALL_NOP, WAITS + 1, 0, 0, 0, 0, 0);      /* whoever runs this offers it again */
    if (native_use(bit) == bit)
        expect_equal((uint64_t)native_entropy(PHYSICAL(bytes)), 0, "offered again, it works again");
}
