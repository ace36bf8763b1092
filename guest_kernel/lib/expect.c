/* One-line checks that show what they found. */
#include "expect.h"
#include "console.h"
#include "report.h"

static void print_trap(const char *word, int vector, uint64_t error_code)
{
    if (vector == NO_TRAP)
        printf("  %s no trap", word);
    else
        printf("  %s vector %d, error code 0x%lx", word, vector, error_code);
}

bool expect_trap(struct trap trap, int vector, uint64_t error_code, const char *name)
{
    bool right = trap_is(trap, vector, error_code);

    report(right, "%s", name);
    if (right)
        return true;
    print_trap("expected", vector, error_code);
    print_trap(" got", trap.vector, trap.error_code);
    printf(" at 0x%lx, cr2 0x%lx\n", trap.rip, trap.cr2);
    return false;
}

bool expect_none(struct trap trap, const char *name)
{
    return expect_trap(trap, NO_TRAP, 0, name);
}

bool expect_equal(uint64_t got, uint64_t wanted, const char *name)
{
    report(got == wanted, "%s", name);
    if (got != wanted)
        printf("  expected 0x%lx got 0x%lx\n", wanted, got);
    return got == wanted;
}
