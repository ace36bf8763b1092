/* Tour 2.9: what an entry loads and an exit saves only if a control says so: DR7, IA32_DEBUGCTL, IA32_PAT, IA32_EFER.
 *
 * While the guest runs, its values of the first three stand in the VMCS itself. So where a control says "not loaded" the
 * processor's own value is put there, and where it says "not saved" what stood there comes back with the exit. Stops are
 * no exits: nothing is exchanged at one.
 */
#include "state.h"

enum { DR7_IN_ROOT = 0x400, KEPT = 3 };
static const struct { int field, host; uint64_t in_root, loads, saves; } kept[KEPT] = {
    {VMCS_GUEST_DR7, -1, DR7_IN_ROOT, VM_ENTRY_LOAD_DEBUG_CONTROLS, VM_EXIT_SAVE_DEBUG_CONTROLS},
    {VMCS_GUEST_IA32_DEBUGCTL, -1, 0, VM_ENTRY_LOAD_DEBUG_CONTROLS, VM_EXIT_SAVE_DEBUG_CONTROLS},
    {VMCS_GUEST_IA32_PAT, VMCS_HOST_IA32_PAT, 0, VM_ENTRY_LOAD_IA32_PAT, VM_EXIT_SAVE_IA32_PAT},
};

/* Manual, "Loading Guest Control Registers, Debug Registers, and MSRs": without the control, LMA and LME follow the mode. */
static uint64_t efer_of_root(struct engine *e)
{
    uint64_t mode = EFER_LMA | EFER_LME, wide = *field(e, VMCS_VM_ENTRY_CONTROLS) & VM_ENTRY_IA32E_MODE_GUEST;
    return (*field(e, VMCS_HOST_IA32_EFER) & ~mode) | (wide ? mode : 0);
}

void load_by_control(struct engine *e)
{
    struct vcpu *v = e->vcpu;
    if (v->paused)
        return;
    v->efer_before = *field(e, VMCS_GUEST_IA32_EFER);
    if (!(*field(e, VMCS_VM_ENTRY_CONTROLS) & VM_ENTRY_LOAD_IA32_EFER))
        *field(e, VMCS_GUEST_IA32_EFER) = efer_of_root(e);
    for (int k = 0; k < KEPT; k++) {
        v->kept[k] = *field(e, kept[k].field);
        if (!(*field(e, VMCS_VM_ENTRY_CONTROLS) & kept[k].loads))
            *field(e, kept[k].field) = kept[k].host < 0 ? kept[k].in_root : *field(e, kept[k].host);
    }
}

static bool saves(struct engine *e, uint64_t control) { return *field(e, VMCS_VM_EXIT_CONTROLS) & control; }

/* An exit, not a stop: IA32_EFER, and the entry control that says whether the guest is in IA-32e mode. */
void save_by_control(struct engine *e)
{
    uint64_t *controls = field(e, VMCS_VM_ENTRY_CONTROLS);
    for (int k = 0; k < KEPT; k++)
        if (!saves(e, kept[k].saves))
            *field(e, kept[k].field) = e->vcpu->kept[k];
    if (!saves(e, VM_EXIT_SAVE_IA32_EFER))
        *field(e, VMCS_GUEST_IA32_EFER) = e->vcpu->efer_before;
    *controls = (*controls & ~VM_ENTRY_IA32E_MODE_GUEST) | (e->efer & EFER_LMA ? VM_ENTRY_IA32E_MODE_GUEST : 0);
}
