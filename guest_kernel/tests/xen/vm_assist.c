/* Assists, and writable page tables with one. */
#include "xen/pv.h"

const char test_title[] = "vm_assist";

void test_main(void)
{
    uint64_t *entry = entry_of(scratch[0]), value = *entry;

    take_traps();
    TRYING("mov %0, (%1)", "r"(value), "r"(entry));
    equal(trap_vector, 0, "a store to an L1 table is carried out");
    TRYING("movq $0, (%0)", "r"(entry));
    equal(trap_vector, 0, "one that unmaps, too");
    equal((int64_t)*entry, 0, "and is there");
    TRYING("mov %0, (%1)", "r"(mfn_of(entry) << 12 | 0x67), "r"(entry));
    equal(trap_vector, 14, "one that maps a table writable is #PF");
    equal((int64_t)*entry, 0, "and is not there");
    equal(CALL2(VM_ASSIST, 0, 2), 0, "writable page tables are asked for");
    equal(CALL2(VM_ASSIST, 0, 4), 0, "flag 4 is set");
    equal(CALL2(VM_ASSIST, 1, 4), 0, "and cleared");
    equal(CALL2(VM_ASSIST, 0, 63), INVAL, "assist 63 is EINVAL");
    equal(CALL2(VM_ASSIST, 2, 4), NOSYS, "another command is ENOSYS");
}
