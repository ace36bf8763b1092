/* The instruction that trapped: decoded by capstone once, then found by its address and bytes. */
#include "defects.h"

struct decoded { uint64_t linear; uint8_t bytes[15], mode; bool valid; struct insn insn; };

enum { CACHE = DECODED };

size_t decoded_size(void) { return CACHE * sizeof(struct decoded); }

/* Register number of a capstone register in an address, -1 for none, -2 for RIP. */
static int8_t register_number(unsigned reg)
{
    static const uint16_t by_number[16][3] = {
        {X86_REG_AX, X86_REG_EAX, X86_REG_RAX}, {X86_REG_CX, X86_REG_ECX, X86_REG_RCX},
        {X86_REG_DX, X86_REG_EDX, X86_REG_RDX}, {X86_REG_BX, X86_REG_EBX, X86_REG_RBX},
        {X86_REG_SP, X86_REG_ESP, X86_REG_RSP}, {X86_REG_BP, X86_REG_EBP, X86_REG_RBP},
        {X86_REG_SI, X86_REG_ESI, X86_REG_RSI}, {X86_REG_DI, X86_REG_EDI, X86_REG_RDI},
        {X86_REG_R8W, X86_REG_R8D, X86_REG_R8}, {X86_REG_R9W, X86_REG_R9D, X86_REG_R9},
        {X86_REG_R10W, X86_REG_R10D, X86_REG_R10}, {X86_REG_R11W, X86_REG_R11D, X86_REG_R11},
        {X86_REG_R12W, X86_REG_R12D, X86_REG_R12}, {X86_REG_R13W, X86_REG_R13D, X86_REG_R13},
        {X86_REG_R14W, X86_REG_R14D, X86_REG_R14}, {X86_REG_R15W, X86_REG_R15D, X86_REG_R15},
    };
    if (reg == X86_REG_RIP || reg == X86_REG_EIP)
        return -2;
    for (int8_t n = 0; n < 16; n++)
        if (reg == by_number[n][0] || reg == by_number[n][1] || reg == by_number[n][2])
            return n;
    return -1;
}

static int8_t segment_number(unsigned reg, int8_t base)
{
    switch (reg) {
    case X86_REG_ES: return ES;
    case X86_REG_CS: return CS;
    case X86_REG_SS: return SS;
    case X86_REG_DS: return DS;
    case X86_REG_FS: return FS;
    case X86_REG_GS: return GS;
    default: return base == RSP || base == RBP ? SS : DS;
    }
}

static void take_operands(struct insn *i, const cs_x86 *x)
{
    int immediates = 0;
    i->base = i->index = -1;
    for (int k = 0; k < x->op_count; k++) {
        const cs_x86_op *op = &x->operands[k];
        if (op->type == X86_OP_IMM && immediates++ == 0) {
            i->immediate = (uint64_t)op->imm;
        } else if (op->type == X86_OP_IMM) {   /* far pointer: capstone lists selector, then offset */
            i->immediate2 = (uint16_t)i->immediate;
            i->immediate = (uint64_t)op->imm;
        } else if (op->type == X86_OP_MEM) {
            i->is_memory = true;
            i->reads_and_writes |= op->access == (CS_AC_READ | CS_AC_WRITE);
            i->memory_written |= (op->access & CS_AC_WRITE) != 0;
            i->memory_size = op->size;
            i->base = register_number(op->mem.base);
            i->index = register_number(op->mem.index);
            i->scale = (int8_t)op->mem.scale;
            i->disp = op->mem.disp;
            i->seg = segment_number(op->mem.segment, i->base);
        }
    }
}

static bool is_stack_instruction(unsigned id)
{
    switch (id) {
    case X86_INS_PUSH: case X86_INS_POP: case X86_INS_CALL: case X86_INS_RET: case X86_INS_ENTER: case X86_INS_LEAVE:
    case X86_INS_PUSHAW: case X86_INS_PUSHAL: case X86_INS_POPAW: case X86_INS_POPAL:
    case X86_INS_PUSHF: case X86_INS_PUSHFD: case X86_INS_PUSHFQ: case X86_INS_POPF: case X86_INS_POPFD: case X86_INS_POPFQ:
        return true;
    default: return false;
    }
}

static void translate(struct engine *e, struct insn *i, const cs_insn *c, int bits)
{
    const cs_x86 *x = &c->detail->x86;
    *i = (struct insn){.id = (uint16_t)c->id, .length = (uint8_t)c->size, .bits = (uint8_t)bits};
    memcpy(i->opcode, x->opcode, sizeof i->opcode);
    i->prefix_rep = x->prefix[0] == 0xf3 || x->prefix[0] == 0xf2 ? x->prefix[0] : 0;
    for (int k = 0; k < c->size && k < 4; k++)     /* capstone drops REP where it has no meaning to it */
        if (!i->prefix_rep && (c->bytes[k] == 0xf3 || c->bytes[k] == 0xf2) && c->bytes[k] != x->opcode[0])
            i->prefix_rep = c->bytes[k];
    i->prefix_lock = x->prefix[0] == 0xf0 ? 0xf0 : 0;
    bool o16 = x->prefix[2] == 0x66;
    i->rex = x->rex;
    i->operand_size = x->rex & 8 ? 8 : bits == 16 ? (o16 ? 4 : 2) : (o16 ? 2 : 4);
    i->address_size = x->addr_size;
    i->modrm = x->modrm;
    i->has_modrm = x->encoding.modrm_offset != 0;
    i->modrm_reg = (int8_t)((x->modrm >> 3 & 7) | (x->rex & 4) << 1);
    i->modrm_rm = (int8_t)((x->modrm & 7) | (x->rex & 1) << 3);
    take_operands(i, x);
    if (bits == 64 && i->is_memory && i->seg < FS)     /* manual, "Segmentation in 64-Bit Mode": other prefixes are ignored */
        i->seg = segment_number(X86_REG_INVALID, i->base);
    i->uses_stack = is_stack_instruction(c->id);
    i->sensitive = is_sensitive(e, c);
    i->useless_vex = has_useless_vex(e, c);
    int left;
    const uint8_t *opcode = opcode_of(e, c->bytes, c->size, &left);
    i->defective = has_defect(e, c->bytes, c->size, opcode, left);
}

static const struct insn *fill(struct engine *e, struct decoded *d, uint64_t linear, size_t n, int bits)
{
    const uint8_t *at = d->bytes;
    uint64_t address = linear;
    csh handle = e->capstone[bits == 64 ? 2 : bits == 32 ? 1 : 0];
    d->valid = false;
    lib.cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON);
    bool known = lib.cs_disasm_iter(handle, &at, &n, &address, e->scan);
    lib.cs_option(handle, CS_OPT_DETAIL, CS_OPT_OFF);
    if (!known)
        return NULL;
    translate(e, &d->insn, e->scan, bits);
    d->linear = linear;
    d->valid = true;
    return &d->insn;
}

/* Is what was decoded still there? Of one page; across two the answer is no. */
static bool is_still_there(struct engine *e, const struct decoded *d, uint64_t linear)
{
    uint64_t hpa;
    return (linear & 0xfff) + d->insn.length <= 4096 && code_page(e, linear, &hpa) && !memcmp(d->bytes, e->ram + hpa, d->insn.length);
}

const struct insn *decode_at_rip(struct engine *e)
{
    uint64_t linear;
    uint8_t bytes[15] = {0};
    int bits = code_bits(e), mode = bits | in_real_mode(e) << 7 | in_v8086(e);
    linear_rip(e, &linear);
    struct decoded *d = &e->decoded[(linear ^ linear >> 12) % CACHE];
    if (d->valid && d->linear == linear && d->mode == mode && is_still_there(e, d, linear))
        return &d->insn;
    size_t n = peek_code(e, linear, bytes, sizeof bytes);
    memcpy(d->bytes, bytes, sizeof bytes);
    const struct insn *i = fill(e, d, linear, n, bits);
    d->mode = (uint8_t)mode;       /* what is sensitive depends on it */
    if (!i)
        raise_fault(e, 6, 0);
    return i;
}

bool has_lock_prefix(const uint8_t *code, size_t size, int bits)
{
    static const uint8_t prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65};
    for (size_t n = 0; n < size && code[n] != 0xf0; n++)
        if (!memchr(prefixes, code[n], sizeof prefixes) && !(bits == 64 && code[n] >> 4 == 4))
            return false;
    return memchr(code, 0xf0, size) != NULL;
}

bool undefined_at_rip(struct engine *e)
{
    uint64_t linear;
    uint8_t bytes[15];
    linear_rip(e, &linear);
    return is_undefined(e, bytes, peek_code(e, linear, bytes, sizeof bytes));
}

uint64_t effective_address(struct engine *e, const struct insn *i)
{
    uint64_t offset = (uint64_t)i->disp;
    if (i->base == -2)
        offset += e->core->rip + i->length;
    else if (i->base >= 0)
        offset += e->core->regs[i->base];
    if (i->index >= 0)
        offset += e->core->regs[i->index] * (uint64_t)i->scale;
    return i->address_size == 8 ? offset : i->address_size == 4 ? (uint32_t)offset : (uint16_t)offset;
}

uint64_t operand_address(struct engine *e, const struct insn *i)
{
    uint64_t offset = effective_address(e, i);
    if (in_64bit_code(e))
        return offset + (i->seg >= FS ? e->core->segs[i->seg].base : 0);
    return (offset + e->core->segs[i->seg].base) & 0xffffffff;
}

void advance_rip(struct engine *e, const struct insn *i)
{
    uint64_t next = e->core->rip + i->length;
    int bits = code_bits(e);
    e->core->rip = bits == 64 ? next : bits == 32 ? (uint32_t)next : (uint16_t)next;
    e->core->eflags &= ~(1ull << 16);
    clear_event_shadow(e);
}

bool is_repeated_string(const cs_insn *c)
{
    bool repeated = false;
    for (int k = 0; k < c->size - 1; k++)
        repeated |= c->bytes[k] == 0xf2 || c->bytes[k] == 0xf3;
    if (!repeated)
        return false;
    switch (c->bytes[c->size - 1]) {   /* string instructions have no operand bytes: the opcode is last */
    case 0xa4: case 0xa5: case 0xa6: case 0xa7: case 0xaa: case 0xab: case 0xac: case 0xad: case 0xae: case 0xaf:
        switch (c->id) {
        case X86_INS_MOVSB: case X86_INS_MOVSW: case X86_INS_MOVSD: case X86_INS_MOVSQ:
        case X86_INS_CMPSB: case X86_INS_CMPSW: case X86_INS_CMPSD: case X86_INS_CMPSQ:
        case X86_INS_STOSB: case X86_INS_STOSW: case X86_INS_STOSD: case X86_INS_STOSQ:
        case X86_INS_LODSB: case X86_INS_LODSW: case X86_INS_LODSD: case X86_INS_LODSQ:
        case X86_INS_SCASB: case X86_INS_SCASW: case X86_INS_SCASD: case X86_INS_SCASQ:
            return true;
        default: return false;
        }
    default: return false;
    }
}

int decode_length(const uint8_t *code, uint64_t size, int bits)
{
    csh handle;
    cs_mode mode = bits == 64 ? CS_MODE_64 : bits == 32 ? CS_MODE_32 : CS_MODE_16;
    if (lib.cs_open(CS_ARCH_X86, mode, &handle) != CS_ERR_OK)
        return 0;
    cs_insn *cell = lib.cs_malloc(handle);
    size_t left = size;
    uint64_t address = 0;
    int length = lib.cs_disasm_iter(handle, &code, &left, &address, cell) ? cell->size : 0;
    lib.cs_free(cell, 1);
    lib.cs_close(&handle);
    return length;
}
