/* Writable page tables: a store to an L1 table that the guest's kernel sees read-only is carried out as an update of it.
 *
 * Xen's ptwr (xen/arch/x86/pv/ro-page-fault.c): the instruction is emulated, its result validated as mmu_update's would be;
 * if it is refused the guest gets its page fault. Only what kernels use on page-table entries is emulated.
 */
#include "descriptor.h"
#include "xen.h"

struct table_store { uint64_t old, operand, value, flags; unsigned size; bool changes_flags, stores; int reg; };

static uint64_t mask_of(unsigned size) { return size == 8 ? ~0ull : (1ull << size * 8) - 1; }

static uint64_t logic_flags(uint64_t value, unsigned size)
{
    uint64_t f = value & mask_of(size) ? 0 : RFLAGS_ZF;
    f |= value >> (size * 8 - 1) & 1 ? RFLAGS_SF : 0;
    return f | (__builtin_parity(value & 0xff) ? 0 : RFLAGS_PF);
}

static uint64_t subtract_flags(uint64_t a, uint64_t b, unsigned size)
{
    uint64_t m = mask_of(size), r = (a - b) & m, top = 1ull << (size * 8 - 1);
    a &= m, b &= m;
    return logic_flags(r, size) | (a < b ? RFLAGS_CF : 0) | ((a ^ b) & (a ^ r) & top ? RFLAGS_OF : 0) | ((a ^ b ^ r) & 0x10 ? RFLAGS_AF : 0);
}

static bool logic(struct table_store *s, uint64_t value)
{
    s->value = value;
    s->changes_flags = true;
    s->flags = logic_flags(value, s->size);
    return true;
}

/* BTS, BTR, BTC with the bit in this entry. */
static bool bit(struct engine *e, struct table_store *s, unsigned id)
{
    uint64_t m = 1ull << (s->operand & 63);
    s->value = id == X86_INS_BTS ? s->old | m : id == X86_INS_BTR ? s->old & ~m : s->old ^ m;
    s->changes_flags = true;
    s->flags = (guest_rflags(e) & (RFLAGS_ZF | RFLAGS_SF | RFLAGS_PF | RFLAGS_AF | RFLAGS_OF)) | (s->old & m ? RFLAGS_CF : 0);
    return s->operand < s->size * 8;
}

static bool compare_exchange(struct engine *e, struct table_store *s)
{
    uint64_t rax = e->core->regs[RAX] & mask_of(s->size);
    s->changes_flags = true;
    s->flags = subtract_flags(rax, s->old, s->size);
    s->value = rax == s->old ? s->operand : s->old;
    s->reg = rax == s->old ? -1 : RAX;
    return true;
}

static bool takes_register(const struct insn *i)
{
    uint8_t op = i->opcode[0];
    bool immediate = (op >= 0x80 && op <= 0x83) || op == 0xc6 || op == 0xc7 || (op == 0x0f && i->opcode[1] == 0xba);
    return !immediate;
}

static bool compute(struct engine *e, const struct insn *i, struct table_store *s)
{
    s->operand = takes_register(i) ? e->core->regs[i->modrm_reg] : i->immediate;
    s->reg = -1;
    switch (i->id) {
    case X86_INS_MOV: s->value = s->operand; return true;
    case X86_INS_XCHG: s->value = s->operand; s->reg = i->modrm_reg; return true;
    case X86_INS_AND: return logic(s, s->old & s->operand);
    case X86_INS_OR: return logic(s, s->old | s->operand);
    case X86_INS_XOR: return logic(s, s->old ^ s->operand);
    case X86_INS_BTS: case X86_INS_BTR: case X86_INS_BTC: return bit(e, s, i->id);
    case X86_INS_CMPXCHG: return compare_exchange(e, s);
    default: return false;
    }
}

static bool is_l1(const struct engine *e, uint64_t mfn)
{
    const struct page_frame *f = frame_of(xen_of(e), mfn);
    return f && f->types && f->type == FRAME_L1;
}

static void finish(struct engine *e, const struct insn *i, const struct table_store *s)
{
    const uint64_t arithmetic = RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF;
    done(e, i);
    if (s->reg >= 0)
        write_gpr(e, s->reg, s->size, s->old);
    if (s->changes_flags)
        set_guest_rflags(e, (guest_rflags(e) & ~arithmetic) | s->flags);
    xen_of(e)->counters.table_stores++;
}

static bool is_power_to_8(unsigned size) { return size == 1 || size == 2 || size == 4 || size == 8; }

/* False: the page fault is the guest's. */
bool xen_write_table(struct engine *e, uint64_t linear)
{
    uint64_t address, entry;
    struct table_store s = {0};
    if (!xen_find_l1e(e, linear, &address))
        return false;
    memcpy(&entry, e->ram + address, 8);
    address = (entry & ADDRESS_MASK) | (linear & 0xff8);
    if ((entry & 3) != 1 || !is_l1(e, address >> 12))
        return false;
    struct pending kept = e->pending;
    const struct insn *i = decode_at_rip(e);
    e->pending = kept;
    if (!i || !i->is_memory || !is_power_to_8(i->memory_size) || operand_address(e, i) != linear)
        return false;
    s.size = i->memory_size;
    memcpy(&entry, e->ram + address, 8);
    unsigned shift = (linear & 7) * 8;
    if ((linear & 7) + s.size > 8)
        return false;
    s.old = entry >> shift & mask_of(s.size);
    bool high_byte = s.size == 1 && !i->rex && i->modrm_reg >= 4;      /* AH to BH, or no register at all */
    if (!compute(e, i, &s) || (s.size == 1 && s.reg >= 0) || (high_byte && takes_register(i)))
        return false;
    uint64_t field_mask = mask_of(s.size) << shift;
    if (xen_change_entry(e, address, (entry & ~field_mask) | ((s.value & mask_of(s.size)) << shift), false)) {
        xen_of(e)->counters.refused_stores++;
        xen_breach(e, XEN_RULE_TABLE_STORE, linear, s.value);
        return false;
    }
    finish(e, i, &s);
    return true;
}
