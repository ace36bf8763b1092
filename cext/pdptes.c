/* PAE's four PDPTEs, which the processor keeps in registers: they are read when CR3 is loaded, and not by walks. */
#include "state.h"

enum { PRESENT = 1 };

/* MOV CR3 in PAE mode loads the four PDPTEs; a reserved bit in a present one is #GP(0). */
bool load_pdptes(struct engine *e, uint64_t cr3)
{
    uint64_t pdpte[4];
    struct ept_page page;
    struct ept_cause cause = {.linear_valid = false};
    uint32_t need = EPT_READ | (e->mmu.ept_dirty ? EPT_WRITE : 0);
    if (!e->mmu.eptp && ((cr3 & 0xffffffe0) | 0xfff) >= e->ram_size)
        return raise_fault(e, 13, 0);              /* all ones: reserved bits are set */
    if (!ept_translate(e, cr3 & 0xffffffe0, need, &cause, false, &page))
        return false;
    memcpy(pdpte, e->ram + page.hpa, sizeof pdpte);
    for (int i = 0; i < 4; i++)
        if (pdpte[i] & PRESENT && pdpte[i] & (e->mmu.beyond | 0xfff00000000001e6ull))
            return raise_fault(e, 13, 0);
    for (int i = 0; i < 4; i++)
        *field(e, VMCS_GUEST_PDPTR0 + i) = pdpte[i];
    return true;
}
