/* What every PV test guest does. */
#include "xen/pv.h"

struct start_info *start_info;
uint8_t *shared_info, *vcpu_info;
volatile uint32_t upcalls, trap_vector;
volatile uint64_t trap_error, trap_rip, trap_resume;
uint8_t scratch[16][PAGE] __attribute__((aligned(PAGE)));
static uint8_t shared_page[PAGE] __attribute__((aligned(PAGE)));
static unsigned passed, failed;

void xen_main(struct start_info *info);

long call5(enum call number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
    long result;
    register uint64_t r10 asm("r10") = d;
    register uint64_t r8 asm("r8") = e;

    asm volatile("syscall" : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(r10), "+r"(r8)
                 : "0"((uint64_t)number) : "rcx", "r11", "memory");
    return result;
}

static void say(const char *text)
{
    size_t length = 0;

    while (text[length])
        length++;
    CALL3(CONSOLE_IO, 0, length, text);
}

static void say_number(int64_t value)
{
    char digits[24];
    char *at = digits + sizeof digits - 1;
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;

    *at = 0;
    do
        *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        *--at = '-';
    say(at);
}

void check(bool held, const char *name)
{
    *(held ? &passed : &failed) += 1;
    say(held ? "PASS: " : "FAIL: ");
    say(name);
    say("\n");
}

void equal(int64_t got, int64_t wanted, const char *name)
{
    check(got == wanted, name);
    if (got == wanted)
        return;
    say("  got ");
    say_number(got);
    say(", wanted ");
    say_number(wanted);
    say("\n");
}

void figure(const char *name, uint64_t count, uint64_t value)
{
    say("=");
    say(name);
    say(" ");
    say_number((int64_t)count);
    say(" ");
    say_number((int64_t)value);
    say("\n");
}

uint64_t mfn_of(const void *page)
{
    return ((uint64_t *)start_info->mfn_list)[(uint64_t)page / PAGE];
}

/* The builder's tables lie in a row and are mapped as all the rest: L4, L3, L2, L1.  Machine frames
 * are looked up in the list that goes the other way. */
static uint64_t *table_at(uint64_t mfn)
{
    uint64_t first = start_info->pt_base / PAGE;

    for (uint64_t pfn = first; pfn < first + start_info->nr_pt_frames; pfn++)
        if (((uint64_t *)start_info->mfn_list)[pfn] == mfn)
            return (uint64_t *)(pfn * PAGE);
    return NULL;
}

uint64_t *entry_of(const void *page)
{
    uint64_t *table = (uint64_t *)start_info->pt_base, linear = (uint64_t)page;

    for (int shift = 39; shift > 12; shift -= 9) {
        uint64_t upper = table[linear >> shift & 511];

        table = table_at(upper << 12 >> 24);
        if (!(upper & 1) || !table)
            return NULL;
    }
    return table + (linear >> 12 & 511);
}

uint64_t entry_address(const void *page)
{
    uint64_t *entry = entry_of(page);

    return mfn_of(entry) * PAGE + (uint64_t)entry % PAGE;
}

long map(const void *page, uint64_t entry)
{
    return CALL3(UPDATE_VA_MAPPING, page, entry, 2);
}

void take_traps(void)
{
    static const struct trap_info table[] = {
        { 1, 0, KERNEL_CS, 0, (uint64_t)trap_1 }, { 3, 3, KERNEL_CS, 0, (uint64_t)trap_3 },
        { 6, 0, KERNEL_CS, 0, (uint64_t)trap_6 }, { 7, 0, KERNEL_CS, 0, (uint64_t)trap_7 },
        { 13, 0, KERNEL_CS, 0, (uint64_t)trap_13 }, { 14, 0, KERNEL_CS, 0, (uint64_t)trap_14 },
        { 0, 0, 0, 0, 0 },
    };

    equal(CALL1(SET_TRAP_TABLE, table), 0, "the trap table is taken");
}

void take_upcalls(void)
{
    equal(CALL3(SET_CALLBACKS, xen_upcall, 0, 0), 0, "the callbacks are taken");
    vcpu_info[1] = 0;                    /* evtchn_upcall_mask */
}

void xen_main(struct start_info *info)
{
    uint32_t reason;

    start_info = info;
    shared_info = vcpu_info = shared_page;
    map(shared_page, info->shared_info | 0x67);
    say("TEST: ");
    say(test_title);
    say("\n");
    test_main();
    say("SUMMARY: ");
    say_number(passed);
    say(" passed, ");
    say_number(failed);
    say(" failed\n");
    reason = failed ? 3 : 0;             /* crash or poweroff */
    CALL2(SCHED_OP, 2, &reason);
}
