/* Tour 2.7: may this VMCS be entered? The checks, in the manual's order, made only where something has changed.
 *
 * An entry is hot and its checks are many. `good` holds the fields of the last good entry, with the guest state that
 * the exit saved, which is a processor's state again. While the fields that software seldom writes are the same, only
 * RIP, RFLAGS and the events are looked at; and those, where nothing is injected, blocked or pending, at a glance.
 */
#include "entry.h"

enum { ERROR_CONTROLS = 7, ERROR_HOST = 8 };
enum { QUALIFICATION_PDPTE = 2, QUALIFICATION_NMI = 3, QUALIFICATION_LINK = 4 };

static const struct check_list *const lists[] = {&control_checks, &host_checks, &control_register_checks, &segment_checks, &event_checks};
enum { CONTROLS, HOST, REGISTERS, SEGMENTS, EVENTS, STAGES };

int entry_check_count(void)
{
    int count = 0;
    for (int stage = 0; stage < STAGES; stage++)
        count += (int)lists[stage]->count;
    return count;
}

/* The check with this number, and its stage. */
static const struct check *check_at(int index, int *stage)
{
    for (*stage = 0; *stage < STAGES; index -= (int)lists[(*stage)++]->count)
        if (index < (int)lists[*stage]->count)
            return &lists[*stage]->checks[index];
    return NULL;
}

const char *entry_check_name(int index)
{
    int stage;
    const struct check *c = check_at(index, &stage);
    return c ? c->name : "";
}

uint64_t entry_memory(const struct entry *n, uint64_t hpa, unsigned bytes)
{
    uint64_t value = 0;
    if (hpa > n->ram_size - bytes)
        return bytes == 8 ? ~0ull : (1ull << bytes * 8) - 1;
    memcpy(&value, n->ram + hpa, bytes);
    return value;
}

static struct entry view_of(const struct engine *e, const struct vcpu *v)
{
    return (struct entry){.field = v->field, .caps = &e->caps, .ram = e->ram, .ram_size = e->ram_size, .current = v->region};
}

int entry_check_passes(const struct engine *e, const struct vcpu *v, int index)
{
    int stage;
    const struct check *c = check_at(index, &stage);
    struct entry n = view_of(e, v);
    return c && c->passes(&n);
}

int engine_failed_check(const struct engine *e) { return e->failed_check; }
void engine_skip_check(struct engine *e, int index) { e->skipped_check = index; }
void engine_check_always(struct engine *e, int always) { e->check_always = always; }

/* ---- failing ---- */

static uint64_t qualification_of(const char *name)
{
    if (!strncmp(name, "link_pointer_", 13))
        return QUALIFICATION_LINK;
    if (!strcmp(name, "blocking_sti_excludes_nmi"))
        return QUALIFICATION_NMI;
    return strcmp(name, "pdptes_reserved") ? 0 : QUALIFICATION_PDPTE;
}

/* VMfailValid leaves all but one field alone; a guest state that cannot be is told by an exit. */
static bool fail_entry(struct engine *e, int stage, const char *name)
{
    struct exit_record x = {.rip = *field(e, VMCS_GUEST_RIP), .instructions = e->retired, .cycles = cycles_now(e)};
    if (stage == CONTROLS || stage == HOST) {
        x.reason = STOP_VM_FAIL;
        x.qualification = *field(e, VMCS_VM_INSTRUCTION_ERROR) = stage == HOST ? ERROR_HOST : ERROR_CONTROLS;
    } else {
        x.reason = 1u << 31 | EXIT_INVALID_STATE;
        x.qualification = qualification_of(name);
    }
    e->exit = x;
    e->exit_ready = true;
    e->checked = NULL;
    return false;
}

static bool all_pass(struct engine *e, const struct entry *n, unsigned stages)
{
    int index = 0;
    for (int stage = 0; stage < STAGES; stage++)
        for (unsigned k = 0; k < lists[stage]->count; k++, index++) {
            const struct check *c = &lists[stage]->checks[k];
            if (!(stages >> stage & 1) || c->passes(n) || index == e->skipped_check)
                continue;
            e->failed_check = index;
            return fail_entry(e, stage, c->name);
        }
    return true;
}

/* ---- what has changed ---- */

/* Fields that checks look at and that software seldom writes: [from, to). */
struct range { int from, to; };
static const struct range cold[] = {
    {0, VMCS_GUEST_INTR_STATUS}, {VMCS_GUEST_INTR_STATUS + 1, VMCS_TSC_OFFSET}, {VMCS_TSC_OFFSET + 1, VMCS_GUEST_PHYSICAL_ADDRESS},
    {VMCS_LINK_POINTER, VMCS_VM_ENTRY_INTR_INFO_FIELD}, {VMCS_TPR_THRESHOLD, VMCS_VM_INSTRUCTION_ERROR},
    {VMCS_GUEST_ES_LIMIT, VMCS_GUEST_INTERRUPTIBILITY_INFO}, {VMCS_GUEST_SYSENTER_CS, VMCS_GUEST_SYSENTER_CS + 1},
    {VMCS_HOST_IA32_SYSENTER_CS, VMCS_EXIT_QUALIFICATION}, {VMCS_GUEST_CR0, VMCS_GUEST_RSP}, {VMCS_GUEST_SYSENTER_ESP, VMCS_FIELD_COUNT},
};

void engine_set_maker(struct engine *e, int is_amd) { e->is_amd = is_amd; }

void engine_set_capabilities(struct engine *e, const struct vmx_capabilities *capabilities)
{
    e->caps = *capabilities;
    e->checked = NULL;
}

static bool nothing_cold_changed(const struct engine *e)
{
    for (size_t k = 0; k < sizeof cold / sizeof *cold; k++) {
        const uint64_t *now = e->vcpu->field + cold[k].from;
        if (memcmp(now, e->good + cold[k].from, (size_t)(cold[k].to - cold[k].from) * sizeof *now))
            return false;
    }
    return true;
}

void entry_was_good(struct engine *e)
{
    memcpy(e->good, e->vcpu->field, sizeof e->good);
    e->checked = e->vcpu;
}

/* Nothing to inject, blocked or pending, and memory is not looked at. */
static bool is_plain(const struct entry *n)
{
    const uint64_t reserved = ~0x3fffffull | 1 << 15 | 1 << 5 | 1 << 3 | RFLAGS_VM, flags = F(GUEST_RFLAGS);
    int64_t above = (int64_t)F(GUEST_RIP) >> (is_ia32e(n) && F(GUEST_CS_AR_BYTES) & AR_L ? n->caps->linear_bits : 32);
    bool events = injects(n) || F(GUEST_INTERRUPTIBILITY_INFO) || F(GUEST_ACTIVITY_STATE) || F(GUEST_PENDING_DBG_EXCEPTIONS);
    return !above && !events && !(flags & reserved) && flags & RFLAGS_ALWAYS_1 && F(LINK_POINTER) == ~0ull &&
           !primary(n, PRIMARY_USE_TPR_SHADOW);
}

bool entry_is_allowed(struct engine *e)
{
    struct entry n = view_of(e, e->vcpu);
    unsigned stages = ~0u;
    if (e->checked == e->vcpu && !e->check_always && nothing_cold_changed(e)) {
        if (likely(is_plain(&n)))
            return true;
        stages = 1 << CONTROLS | 1 << EVENTS;
    }
    e->failed_check = -1;
    return all_pass(e, &n, stages);
}
