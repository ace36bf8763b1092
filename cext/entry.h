/* The checks of a VM entry: what they look at, and the tables that name them in the manual's order.
 *
 * Each check is a function of its own; true means that it passes. Their readable twins are
 * hwmodel/vmx/check_*.py, with the same names in the same order, and a test holds the two together.
 */
#ifndef RING1_ENTRY_H
#define RING1_ENTRY_H

#include "state.h"

struct entry {
    const uint64_t *field;
    const struct vmx_capabilities *caps;
    const uint8_t *ram;
    uint64_t ram_size;
    uint64_t current;              /* physical address of the VMCS, or ~0 */
};
typedef bool (*check_rule)(const struct entry *n);
struct check { const char *name; check_rule passes; };
struct check_list { const struct check *checks; unsigned count; };

#define F(name) (n->field[VMCS_##name])
#define ROW(name) {#name, name}
#define LIST(rows) {rows, sizeof rows / sizeof *rows}

extern const struct check_list control_checks, host_checks, control_register_checks, segment_checks, event_checks;

static inline bool pin(const struct entry *n, uint64_t control) { return F(PIN_BASED_VM_EXEC_CONTROL) & control; }
static inline bool primary(const struct entry *n, uint64_t control) { return F(CPU_BASED_VM_EXEC_CONTROL) & control; }
static inline uint64_t secondary_word(const struct entry *n)
{
    return primary(n, PRIMARY_ACTIVATE_SECONDARY_CONTROLS) ? F(SECONDARY_VM_EXEC_CONTROL) : 0;
}
static inline bool secondary(const struct entry *n, uint64_t control) { return secondary_word(n) & control; }
static inline bool exit_control(const struct entry *n, uint64_t control) { return F(VM_EXIT_CONTROLS) & control; }
static inline bool entry_control(const struct entry *n, uint64_t control) { return F(VM_ENTRY_CONTROLS) & control; }
static inline bool is_ia32e(const struct entry *n) { return entry_control(n, VM_ENTRY_IA32E_MODE_GUEST); }
static inline bool is_vm86(const struct entry *n) { return F(GUEST_RFLAGS) & RFLAGS_VM; }
static inline bool unrestricted(const struct entry *n) { return secondary(n, SECONDARY_UNRESTRICTED_GUEST); }

static inline bool within_width(const struct entry *n, uint64_t value) { return !(value >> n->caps->physical_bits); }
static inline bool is_address(const struct entry *n, uint64_t value, unsigned aligned)
{
    return within_width(n, value) && !(value & ((1ull << aligned) - 1));
}
static inline bool is_canonical_for(const struct entry *n, uint64_t value)
{
    unsigned shift = 64 - (unsigned)n->caps->linear_bits;
    return (uint64_t)((int64_t)(value << shift) >> shift) == value;
}
static inline bool injects(const struct entry *n) { return F(VM_ENTRY_INTR_INFO_FIELD) >> 31 & 1; }
static inline bool injects_type(const struct entry *n, unsigned type)
{
    return injects(n) && (F(VM_ENTRY_INTR_INFO_FIELD) >> 8 & 7) == type;
}

/* Each byte is one of 0, 1, 4, 5, 6, 7: no other bit than the low three, and no 2 or 3. */
static inline bool is_pat(uint64_t pat)
{
    const uint64_t ones = 0x0101010101010101ull;
    return !(pat & ones * 0xf8) && !(~(pat >> 2) & pat >> 1 & ones);
}

uint64_t entry_memory(const struct entry *n, uint64_t hpa, unsigned bytes);    /* all ones where none is */

#endif
