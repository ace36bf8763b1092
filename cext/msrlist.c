/* Lists of MSRs in memory: loaded by an entry, stored and loaded by an exit (manual: "Loading MSRs", "Saving MSRs").
 *
 * The MSRs of this processor that a list can name are those that it keeps itself; all others are software's.
 */
#include "state.h"

struct msr_entry { uint32_t index, reserved; uint64_t value; };
enum { FIRST_X2APIC = 0x800, LAST_X2APIC = 0x8ff };

static bool list_entry(const struct engine *e, uint64_t at, uint64_t n, struct msr_entry *entry)
{
    uint64_t hpa = at + n * sizeof *entry;
    if (hpa > e->ram_size - sizeof *entry)
        return false;
    memcpy(entry, e->ram + hpa, sizeof *entry);
    return !entry->reserved && !(entry->index >= FIRST_X2APIC && entry->index <= LAST_X2APIC);
}

/* The same faults as WRMSR at CPL 0. */
static bool load_efer(struct engine *e, uint64_t value)
{
    bool changes_mode = e->core->cr[0] & CR0_PG && (value ^ e->efer) & EFER_LME;
    if (value & ~e->caps.efer_bits || changes_mode)
        return false;
    e->efer = (value & ~EFER_LMA) | (e->efer & EFER_LMA);
    paging_changed_by_entry(e);
    micro_flush(e);
    sync_mode(e);
    return true;
}

static bool load_msr(struct engine *e, const struct msr_entry *m)
{
    if (m->index == MSR_FS_BASE || m->index == MSR_GS_BASE || m->index == MSR_IA32_SMM_MONITOR_CTL)
        return false;
    if (m->index == MSR_EFER)
        return load_efer(e, m->value);
    return write_plain_msr(e, m->index, m->value);
}

static bool load_list(struct engine *e, uint64_t at, uint64_t count, uint64_t *failed)
{
    struct msr_entry m;
    for (uint64_t n = 0; n < count; n++)
        if (!list_entry(e, at, n, &m) || !load_msr(e, &m)) {
            *failed = n + 1;
            return false;
        }
    return true;
}

bool load_entry_msrs(struct engine *e, uint64_t *failed)
{
    return load_list(e, *field(e, VMCS_VM_ENTRY_MSR_LOAD_ADDR), *field(e, VMCS_VM_ENTRY_MSR_LOAD_COUNT), failed);
}

static bool read_msr(struct engine *e, uint32_t index, uint64_t *value)
{
    const uint64_t *reg = plain_msr(e, index);
    *value = index == MSR_EFER ? e->efer : index == MSR_IA32_TSC ? cycles_now(e) : reg ? *reg : 0;
    return reg || index == MSR_EFER || index == MSR_IA32_TSC;
}

static bool store_exit_msrs(struct engine *e)
{
    uint64_t at = *field(e, VMCS_VM_EXIT_MSR_STORE_ADDR), count = *field(e, VMCS_VM_EXIT_MSR_STORE_COUNT);
    for (uint64_t n = 0; n < count; n++) {
        struct msr_entry m;
        if (!list_entry(e, at, n, &m) || !read_msr(e, m.index, &m.value))
            return false;
        host_wrote(e, at + n * sizeof m, sizeof m);
        memcpy(e->ram + at + n * sizeof m, &m, sizeof m);
    }
    return true;
}

/* What an exit leaves undone is a VMX abort: 1 storing the guest's MSRs, 4 loading the host's. A failed entry stores none. */
void exchange_exit_msrs(struct engine *e, bool stores)
{
    enum { ABORT_STORING = 1, ABORT_LOADING = 4 };
    uint64_t failed, aborts = 0;
    if (stores && !store_exit_msrs(e))
        aborts = ABORT_STORING;
    else if (!load_list(e, *field(e, VMCS_VM_EXIT_MSR_LOAD_ADDR), *field(e, VMCS_VM_EXIT_MSR_LOAD_COUNT), &failed))
        aborts = ABORT_LOADING;
    if (aborts)
        fill_exit(e, STOP_VMX_ABORT, aborts, 0);
}
