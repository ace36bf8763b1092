/* Page-modification logging (manual: "Page-Modification Logging"): guest-physical pages that get dirty, 512 to a log. */
#include "state.h"

enum { PML_ENTRIES = 512 };

/* False: the log is full, pending is the exit, and no flag was changed. */
bool pml_log(struct engine *e, uint64_t gpa)
{
    uint64_t *index = field(e, VMCS_GUEST_PML_INDEX), at = *field(e, VMCS_PML_ADDRESS) + *index * 8;
    if (*index >= PML_ENTRIES)
        return raise_exit(e, EXIT_PML_FULL, 0);
    if (at + 8 <= e->ram_size) {
        uint64_t page = gpa & ~0xfffull;
        memcpy(e->ram + at, &page, 8);
    }
    *index = (*index - 1) & 0xffff;
    return true;
}
