/* APIC virtualization: the registers of a virtual APIC in one page, and interrupts that reach the guest without an exit.
 *
 * Manual, "APIC Virtualization and Virtual Interrupts". VTPR, VPPR, VISR and VIRR stand in the virtual-APIC page; RVI and
 * SVI in the guest interrupt status.
 */
#include "state.h"

enum { VTPR = 0x80, VPPR = 0xa0, VEOI = 0xb0, VISR = 0x100, VIRR = 0x200, SELF_IPI = 0x3f0 };
enum { MSR_FIRST = 0x800, MSR_LAST = 0x8ff, MSR_TPR = 0x808, MSR_EOI = 0x80b, MSR_SELF_IPI = 0x83f };
enum { POSTED_ON = 32 };           /* byte of the descriptor that holds the outstanding-notification bit */

/* ---- the page ---- */

uint64_t vapic_read(struct engine *e, unsigned offset, size_t bytes)
{
    uint64_t value = ~0ull, at = *field(e, VMCS_VIRTUAL_APIC_PAGE_ADDR) + offset;
    if (at <= e->ram_size - 8)
        memcpy(&value, e->ram + at, 8);
    return bytes == 8 ? value : value & ((1ull << bytes * 8) - 1);
}

void vapic_write(struct engine *e, unsigned offset, uint64_t value, size_t bytes)
{
    uint64_t at = *field(e, VMCS_VIRTUAL_APIC_PAGE_ADDR) + offset;
    if (at > e->ram_size - 8)
        return;
    host_wrote(e, at, bytes);
    memcpy(e->ram + at, &value, bytes);
}

/* VISR and VIRR: 256 bits, 32 of them in each 16 bytes. */
static void set_vector(struct engine *e, unsigned base, unsigned vector, bool value)
{
    unsigned offset = base + vector / 32 * 16;
    uint32_t word = (uint32_t)vapic_read(e, offset, 4), bit = 1u << vector % 32;
    vapic_write(e, offset, value ? word | bit : word & ~bit, 4);
}

static unsigned highest_vector(struct engine *e, unsigned base)
{
    for (int n = 7; n >= 0; n--) {
        uint32_t word = (uint32_t)vapic_read(e, base + (unsigned)n * 16, 4);
        if (word)
            return (unsigned)n * 32 + 31 - (unsigned)__builtin_clz(word);
    }
    return 0;
}

static unsigned rvi(struct engine *e) { return *field(e, VMCS_GUEST_INTR_STATUS) & 0xff; }
static unsigned svi(struct engine *e) { return *field(e, VMCS_GUEST_INTR_STATUS) >> 8 & 0xff; }
static void set_status(struct engine *e, unsigned new_svi, unsigned new_rvi) { *field(e, VMCS_GUEST_INTR_STATUS) = new_svi << 8 | new_rvi; }
static bool delivers(struct engine *e) { return exiting2(e, SECONDARY_VIRTUAL_INTERRUPT_DELIVERY); }

/* ---- virtual interrupts ---- */

static void virtualize_ppr(struct engine *e)
{
    unsigned vtpr = (unsigned)vapic_read(e, VTPR, 1), in_service = svi(e);
    vapic_write(e, VPPR, vtpr >> 4 >= in_service >> 4 ? vtpr : in_service & 0xf0, 4);
}

static void evaluate(struct engine *e)
{
    e->virtual_pending = delivers(e) && rvi(e) >> 4 > (vapic_read(e, VPPR, 1) >> 4);
    update_limit(e);
}

void apicv_at_entry(struct engine *e)
{
    e->virtual_pending = false;
    if (!delivers(e))
        return;
    virtualize_ppr(e);
    evaluate(e);
}

void deliver_virtual_interrupt(struct engine *e)
{
    unsigned vector = rvi(e);
    set_vector(e, VISR, vector, true);
    vapic_write(e, VPPR, vector & 0xf0, 4);
    set_vector(e, VIRR, vector, false);
    set_status(e, vector, highest_vector(e, VIRR));
    e->virtual_pending = false;
    inject(e, (struct event){.type = EVENT_EXTERNAL, .vector = (uint8_t)vector});
    if (!e->exit_ready)
        evaluate(e);
}

void request_virtual(struct engine *e, unsigned vector)
{
    set_vector(e, VIRR, vector, true);
    set_status(e, svi(e), vector > rvi(e) ? vector : rvi(e));
    evaluate(e);
}

/* The instruction that caused it is complete: RIP stands behind it. */
static void trap_exit(struct engine *e, uint32_t reason, uint64_t qualification) { fill_exit(e, reason, qualification, 0); }

void virtualize_eoi(struct engine *e)
{
    unsigned vector = svi(e);
    set_vector(e, VISR, vector, false);
    set_status(e, highest_vector(e, VISR), rvi(e));
    virtualize_ppr(e);
    evaluate(e);
    if (*field(e, VMCS_EOI_EXIT_BITMAP0 + (int)vector / 64) >> vector % 64 & 1)
        trap_exit(e, EXIT_EOI_INDUCED, vector);
}

void tpr_written(struct engine *e)
{
    if (delivers(e)) {
        virtualize_ppr(e);
        evaluate(e);
    } else if (vapic_read(e, VTPR, 1) >> 4 < (*field(e, VMCS_TPR_THRESHOLD) & 15)) {
        trap_exit(e, EXIT_TPR_BELOW_THRESHOLD, 0);
    }
}

/* ---- CR8 ---- */

uint64_t read_cr8(struct engine *e) { return exiting(e, PRIMARY_USE_TPR_SHADOW) ? vapic_read(e, VTPR, 1) >> 4 : e->vcpu->cr8; }

bool write_cr8(struct engine *e, const struct insn *i, uint64_t value)
{
    done(e, i);
    if (!exiting(e, PRIMARY_USE_TPR_SHADOW)) {
        e->vcpu->cr8 = value;
        return true;
    }
    vapic_write(e, VTPR, value << 4, 4);
    tpr_written(e);
    return true;
}

/* ---- MSRs of x2APIC mode ---- */

bool is_virtual_x2apic(struct engine *e, uint32_t msr, bool writes)
{
    if (msr < MSR_FIRST || msr > MSR_LAST || !exiting2(e, SECONDARY_VIRTUALIZE_X2APIC_MODE))
        return false;
    if (msr == MSR_TPR)
        return true;
    return writes ? delivers(e) && (msr == MSR_EOI || msr == MSR_SELF_IPI) : exiting2(e, SECONDARY_APIC_REGISTER_VIRTUALIZATION);
}

uint64_t read_virtual_x2apic(struct engine *e, uint32_t msr) { return vapic_read(e, (msr & 0xff) << 4, 8); }

bool write_virtual_x2apic(struct engine *e, const struct insn *i, uint32_t msr, uint64_t value)
{
    if (value >> 8 || (msr == MSR_EOI && value))
        return raise_fault(e, 13, 0);
    vapic_write(e, (msr & 0xff) << 4, value, 8);
    done(e, i);
    if (msr == MSR_TPR)
        tpr_written(e);
    else if (msr == MSR_EOI)
        virtualize_eoi(e);
    else if (value >> 4)
        request_virtual(e, (unsigned)value);
    else
        trap_exit(e, EXIT_APIC_WRITE, SELF_IPI);       /* vectors 0 to 15 are software's business */
    return true;
}

/* ---- posted interrupts ---- */

bool is_notification(struct engine *e, uint8_t vector)
{
    return *field(e, VMCS_PIN_BASED_VM_EXEC_CONTROL) & PIN_PROCESS_POSTED_INTERRUPTS && vector == *field(e, VMCS_POSTED_INTR_NV);
}

/* Manual, "Posted-Interrupt Processing": the requests move from the descriptor to VIRR. */
void process_posted(struct engine *e)
{
    uint64_t at = *field(e, VMCS_POSTED_INTR_DESC_ADDR), requests[4];
    if (at > e->ram_size - 64)
        return;
    host_wrote(e, at, 64);
    e->ram[at + POSTED_ON] &= (uint8_t)~1u;
    memcpy(requests, e->ram + at, sizeof requests);
    memset(e->ram + at, 0, sizeof requests);
    for (unsigned vector = 0; vector < 256; vector++)
        if (requests[vector / 64] >> vector % 64 & 1)
            request_virtual(e, vector);
}
