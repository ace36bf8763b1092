/* Finding the native dialect and agreeing on features. */
#include "pv/native.h"
#include "lib/cpu.h"

enum { FIRST = 0x40000000, STEP = 0x100, DIALECTS = 256 };

const uint8_t *native_page;
static uint8_t page[4096] __attribute__((aligned(4096)));
static uint32_t base;

/* A hypervisor's leaves begin at 0x40000000, those of its second dialect 0x100 further, and so on:
 * each block says in EBX, ECX, EDX who speaks. */
bool native_find(void)
{
    if (!(cpuid(1, 0).ecx >> 31))
        return false;
    for (uint32_t leaf = FIRST; leaf < FIRST + STEP * DIALECTS; leaf += STEP) {
        struct cpuid who = cpuid(leaf, 0);

        if (who.ebx == 0x676e6972 && who.ecx == 0x74616e31 && who.edx == 0x00657669) {  /* "ring" "1nat" "ive" */
            base = leaf;
            return true;
        }
        if (!who.eax)
            return false;
    }
    return false;
}

uint32_t native_leaf(void)
{
    return base;
}

uint64_t native_offered(void)
{
    return cpuid(base + 1, 0).ebx;
}

uint64_t native_tsc_hz(void)
{
    struct cpuid time = cpuid(base + 2, 0);

    return (uint64_t)time.ebx << 32 | time.eax;
}

/* Accept what of `features` is offered, in version 1, and have it all begin at once.  What was
 * accepted before stays so; what is active already counts. */
uint64_t native_use(uint64_t features)
{
    uint64_t accepted = 0, active = 0;

    for (unsigned feature = 0; feature < 64; feature++) {
        if (!(features >> feature & 1))
            continue;
        if (native_contract_state(feature) == NATIVE_STATE_ACTIVE)
            active |= 1ul << feature;
        else if (!native_contract_accept(feature, 1))
            accepted |= 1ul << feature;
    }
    if (accepted && !native_contract_activate(accepted))
        active |= accepted;
    return active;
}

bool native_use_page(void)
{
    uint32_t msr = cpuid(base + 1, 0).edx;

    if (!msr)
        return false;
    wrmsr(msr, (uint64_t)(uintptr_t)page);
    native_page = page;
    return true;
}
