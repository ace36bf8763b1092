/* The APIC-access page: loads and stores that reach the virtual-APIC page instead, or exit.
 *
 * Manual, "Virtualizing Memory-Mapped APIC Accesses". Its page is never in Unicorn's TLB, so each access comes here. Plain
 * MOVs of up to 32 bits are virtualized; the processor may exit for an access by any other instruction, and this one does.
 */
#include "state.h"

enum { TYPE_READ, TYPE_WRITE, TYPE_FETCH, TYPE_DELIVERY, TYPE_GUEST_PHYSICAL_DELIVERY = 10, TYPE_GUEST_PHYSICAL = 15 };
enum { ID = 0x20, VERSION = 0x30, TPR = 0x80, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0, SVR = 0xf0, ISR = 0x100, ESR = 0x280, ICR_LOW = 0x300,
       ICR_HIGH = 0x310, LVT_FIRST = 0x320, LVT_LAST = 0x370, INITIAL_COUNT = 0x380, DIVIDE = 0x3e0 };
static const uint64_t NO_PAGE = ~0ull;

void select_apic_page(struct engine *e)
{
    uint64_t page = exiting2(e, SECONDARY_VIRTUALIZE_APIC_ACCESSES) ? *field(e, VMCS_APIC_ACCESS_ADDR) : NO_PAGE;
    if (page == e->apic_page)
        return;
    e->apic_page = page;
    micro_flush(e);                /* mappings of it, or of what was it, may be cached */
}

bool raise_apic_access(struct engine *e, uint64_t linear, enum access access)
{
    uint64_t type = access == ACCESS_FETCH ? TYPE_FETCH : access == ACCESS_WRITE ? TYPE_WRITE : TYPE_READ;
    raise_exit(e, EXIT_APIC_ACCESS, (linear & 0xfff) | type << 12);
    e->pending.guest_linear = linear;
    return false;
}

/* Manual, "Guest-Physical Accesses to the APIC-Access Page": page tables that lie there. No offset is told. */
bool raise_apic_access_by_walk(struct engine *e)
{
    raise_exit(e, EXIT_APIC_ACCESS, TYPE_GUEST_PHYSICAL << 12);
    return false;
}

/* The same access on the way of an event. */
uint64_t apic_access_in_delivery(uint64_t qualification)
{
    bool by_walk = qualification >> 12 == TYPE_GUEST_PHYSICAL;
    return (qualification & 0xfff) | (by_walk ? TYPE_GUEST_PHYSICAL_DELIVERY : TYPE_DELIVERY) << 12;
}

static bool is_one_of_all(unsigned at, bool writes)
{
    bool lvt = at >= LVT_FIRST && at <= LVT_LAST;
    bool either = at == ID || at == TPR || at == EOI || at == LDR || at == DFR || at == SVR || at == ESR || at == ICR_LOW ||
                  at == ICR_HIGH || lvt || at == INITIAL_COUNT || at == DIVIDE;
    return either || (!writes && (at == VERSION || (at >= ISR && at < ESR)));
}

/* Which registers, and that the access lies in the low 4 bytes of its 16. */
static bool is_virtualized(struct engine *e, unsigned offset, unsigned size, bool writes)
{
    unsigned at = offset & ~15u;
    if (!exiting(e, PRIMARY_USE_TPR_SHADOW) || (offset & 15) + size > 4)
        return false;
    if (exiting2(e, SECONDARY_APIC_REGISTER_VIRTUALIZATION))
        return is_one_of_all(at, writes);
    bool delivers = exiting2(e, SECONDARY_VIRTUAL_INTERRUPT_DELIVERY);
    return at == TPR || (delivers && (at == EOI || at == ICR_LOW));
}

struct move { unsigned size, reg; bool writes, high; uint64_t value; };

static bool decode_move(struct engine *e, const struct insn *i, struct move *m)
{
    uint8_t op = i->opcode[0];
    bool plain = i->id == X86_INS_MOV && ((op >= 0x88 && op <= 0x8b) || (op >= 0xa0 && op <= 0xa3) || op == 0xc6 || op == 0xc7);
    if (!plain || !i->is_memory || i->prefix_lock || i->prefix_rep)
        return false;
    bool direct = op >= 0xa0 && op <= 0xa3;
    *m = (struct move){.size = op & 1 ? i->operand_size : 1, .reg = direct ? RAX : (unsigned)i->modrm_reg,
                       .writes = op >= 0xc6 || (direct ? op >= 0xa2 : op <= 0x89)};
    m->high = m->size == 1 && !direct && !i->rex && m->reg >= 4 && op < 0xc0;
    uint64_t word = m->high ? e->core->regs[m->reg - 4] >> 8 : e->core->regs[m->reg];
    m->value = op >= 0xc6 ? i->immediate : word;
    return m->size <= 4;
}

static void load_register(struct engine *e, const struct move *m, uint64_t value)
{
    uint64_t *reg = &e->core->regs[m->high ? m->reg - 4 : m->reg], mask = m->size == 1 ? 0xff : 0xffff;
    int shift = m->high ? 8 : 0;
    *reg = m->size == 4 ? (uint32_t)value : (*reg & ~(mask << shift)) | (value & mask) << shift;
}

/* Edge-triggered, fixed, to itself, with a vector that the APIC takes: no exit (manual: "Self-IPI Virtualization"). */
static bool is_self_ipi(uint32_t icr)
{
    const uint32_t must_be_zero = 0xfff00000 | 3u << 16 | 1u << 15 | 1u << 13 | 1u << 12 | 7u << 8;
    return !(icr & must_be_zero) && (icr >> 18 & 3) == 1 && (icr & 0xff) >> 4;
}

/* Manual, "APIC-Write Emulation": after the instruction. */
static void emulate_write(struct engine *e, unsigned at)
{
    bool delivers = exiting2(e, SECONDARY_VIRTUAL_INTERRUPT_DELIVERY);
    uint32_t value = (uint32_t)vapic_read(e, at, 4);
    if (at == TPR) {
        vapic_write(e, TPR, value & 0xff, 4);
        tpr_written(e);
    } else if (at == EOI && delivers) {
        vapic_write(e, EOI, 0, 4);
        virtualize_eoi(e);
    } else if (at == ICR_LOW && delivers && is_self_ipi(value)) {
        request_virtual(e, value & 0xff);
    } else if (at == ICR_HIGH) {
        vapic_write(e, ICR_HIGH, value & 0xff000000, 4);
    } else {
        fill_exit(e, EXIT_APIC_WRITE, at, 0);
    }
}

bool virtualize_apic_access(struct engine *e, const struct insn *i)
{
    struct move m;
    unsigned offset = e->pending.qualification & 0xfff;
    if (e->pending.kind != PENDING_EXIT || e->pending.reason != EXIT_APIC_ACCESS || !decode_move(e, i, &m))
        return false;
    if (!is_virtualized(e, offset, m.size, m.writes))
        return false;
    if (m.writes)
        vapic_write(e, offset, m.value, m.size);
    else
        load_register(e, &m, vapic_read(e, offset, m.size));
    done(e, i);
    if (m.writes)
        emulate_write(e, offset & ~15u);
    return true;
}
