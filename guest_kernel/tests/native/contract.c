/* The native dialect: discovery and contract
 *
 * Finds the dialect by its signature, calls in both ways (instruction, page), and walks features
 * through offered, accepted, active.  Every wrong turn gets its own error. */
#include "lib/kvm.h"
#include "lib/test.h"
#include "lib/user.h"
#include "pv/native.h"

const char test_title[] = "The native dialect: discovery and contract";

static struct native_contract contract;

#define CODE(error) ((uint64_t)-(int64_t)NATIVE_E_##error)

static void expect_code(int64_t result, uint64_t code, const char *what)
{
    expect_equal((uint64_t)result, code, what);
}

static void check_leaves(void)
{
    report(cpuid(native_leaf() + 1, 0).eax == NATIVE_VERSION, "the ABI's version");
    expect_equal(native_tsc_hz(), 2500000000ul, "the rate of the TSC");
    report(cpuid(native_leaf(), 0).eax >= native_leaf() + 2, "the largest leaf");
}

static void check_calls(void)
{
    int64_t result;

    expect_code(native_nop(), 0, "VMCALL: a call that does nothing");
    asm volatile("vmmcall" : "=a"(result) : "a"(NATIVE_CALL_NOP) : "memory");
    expect_code(result, 0, "VMMCALL is the same call");
    report(native_use_page(), "there is a hypercall page");
    expect_code(native_nop(), 0, "through the page: a call that does nothing");
    expect_code(native_contract_state(NATIVE_FEATURE_TIMER + 1000), CODE(BAD_ARGUMENT),
                "through the page: arguments arrive");
    native_page = 0;
    expect_code(native_call(NATIVE_TAG + 0xfff, 0, 0, 0, 0, 0, 0), CODE(NO_CALL), "an unknown number");
    report(trap_is(TRY("wrmsr", : : "c"(NATIVE_HYPERCALL_PAGE_MSR), "a"(0x1234), "d"(0) : "memory"), GP, 0),
           "a misaligned hypercall page is #GP");
    report(trap_is(TRY("wrmsr", : : "c"(NATIVE_HYPERCALL_PAGE_MSR), "a"(0), "d"(0x7fff) : "memory"), GP, 0),
           "a hypercall page nowhere is #GP");
}

USER(user_call_native, "mov $0x52310000, %eax; vmcall; " USER_RETURN);

static void check_privilege(void)
{
    struct trap trap = user_call(user_call_native, 0, 0);

    report(trap.vector == RETURNED && (int64_t)trap.rax == -NATIVE_E_NOT_ALLOWED,
           "ring 3 may not call");
}

static void check_page(void)
{
    expect_code(native_set_page(NATIVE_PAGE_CONTRACT, PHYSICAL(contract) + 4), CODE(MISALIGNED),
                "a contract page askew");
    expect_code(native_set_page(NATIVE_PAGE_CONTRACT, 0x7ffffff000), CODE(BAD_ADDRESS),
                "a contract page nowhere");
    expect_code(native_set_page(99, PHYSICAL(contract)), CODE(BAD_ARGUMENT), "no such kind of page");
    expect_code(native_set_page(NATIVE_PAGE_CONTRACT, PHYSICAL(contract)), 0, "a contract page");
    report(contract.version && !(contract.version & 1), "its version is even");
    report(contract.abi == NATIVE_VERSION && contract.generation, "it says ABI and generation");
}

static void check_life(unsigned feature)
{
    uint64_t bit = 1ul << feature;

    expect_code(native_contract_activate(bit), CODE(BAD_STATE), "activate what is not accepted");
    expect_code(native_contract_accept(feature, 0), CODE(BAD_VERSION), "accept version 0");
    expect_code(native_contract_accept(feature, 2), CODE(BAD_VERSION), "accept a version to come");
    expect_code(native_contract_state(feature), NATIVE_STATE_OFFERED, "it is offered still");
    expect_code(native_contract_accept(feature, 1), 0, "accept version 1");
    expect_code(native_contract_state(feature), NATIVE_STATE_ACCEPTED, "it is accepted");
    report(contract.accepted == bit && !contract.active && contract.feature_version[feature] == 1,
           "the page says so");
    expect_code(native_contract_activate(bit | 1ul << 60), CODE(BAD_ARGUMENT),
                "activate more than there is");
    expect_code(native_contract_activate(bit), 0, "activate");
    expect_code(native_contract_state(feature), NATIVE_STATE_ACTIVE, "it is active");
    report(contract.active == bit, "the page says so");
    expect_code(native_contract_accept(feature, 1), CODE(BAD_STATE), "accept again");
    expect_code(native_contract_acknowledge(feature), CODE(BAD_STATE),
                "acknowledge what nobody revoked");
}

void test_main(void)
{
    paging_init();
    user_init();
    if (!native_find()) {
        report_skip("nobody speaks the native dialect");
        return;
    }
    report(true, "the signature is found");
    check_leaves();
    check_calls();
    check_privilege();
    check_page();
    expect_code(native_contract_accept(1000, 1), CODE(NOT_OFFERED), "accept what is not there");
    for (unsigned feature = 0; feature < 64; feature++)
        if (native_offered() >> feature & 1) {
            check_life(feature);
            break;
        }
}
