#include "deliver_machine.h"

#include <sys/mman.h>

uint8_t *ram;
struct engine *engine;
int failures, checks;
static struct vcpu vcpu;

void check_equal(uint64_t got, uint64_t want, const char *what, const char *file, int line)
{
    checks++;
    if (got == want)
        return;
    failures++;
    printf("%s:%d: %s is %#llx, the manual says %#llx\n", file, line, what, (unsigned long long)got, (unsigned long long)want);
}

void show_pending(int line)
{
    const struct pending *p = &engine->pending;
    printf("  line %d: pending kind %d vector %u error %#x reason %u\n", line, (int)p->kind, p->vector, p->error, p->reason);
}

void put(uint64_t at, uint64_t value, unsigned n) { memcpy(ram + at, &value, n); }

uint64_t get(uint64_t at, unsigned n)
{
    uint64_t value = 0;
    memcpy(&value, ram + at, n);
    return value;
}

void set_gdt(unsigned selector, uint32_t low, uint32_t high)
{
    put(GDT + (selector & 0xfff8), low, 4);
    put(GDT + (selector & 0xfff8) + 4, high, 4);
}

void set_call_gate(unsigned selector, uint16_t code, uint64_t offset, uint32_t high)
{
    set_gdt(selector, (uint32_t)code << 16 | (offset & 0xffff), (uint32_t)(offset & 0xffff0000) | high);
    if (in_long_mode(engine))
        set_gdt(selector + 8, (uint32_t)(offset >> 32), 0);
}

void set_idt_gate(unsigned vector, uint16_t code, uint64_t offset, uint32_t type, int dpl, int ist)
{
    uint64_t at = IDT + vector * (in_long_mode(engine) ? 16 : 8);
    put(at, (uint32_t)code << 16 | (offset & 0xffff), 4);
    put(at + 4, (offset & 0xffff0000) | 0x8000 | (uint32_t)dpl << 13 | type << 8 | (uint32_t)ist, 4);
    if (in_long_mode(engine))
        put(at + 8, offset >> 32, 8);
}

static void fill_gdt(bool lma)
{
    static const struct { unsigned selector; uint32_t low, high; } rows[] = {
        {K32, 0xffff, 0xcf9a00}, {KD, 0xffff, 0xcf9200}, {U32, 0xffff, 0xcffa00}, {UD, 0xffff, 0xcff200},
        {K64, 0xffff, 0xaf9a00}, {U64, 0xffff, 0xaffa00}, {K16, 0xffff, 0x9a00}, {KD16, 0xffff, 0x9200},
        {CONFORM, 0xffff, 0xcf9e00}, {ABSENT, 0xffff, 0xcf1a00}, {READ_ONLY, 0xffff, 0xcf9000}, {DOWN, 0x0fff, 0x409600},
        {R1, 0xffff, 0xcfba00}, {R1D, 0xffff, 0xcfb200}, {BOTH, 0xffff, 0xef9a00}, {ABSENT_DATA, 0xffff, 0xcf1200},
        {TSS2, TSS << 16 | 0x67, 0x8900}, {TASK_GATE, TSS2 << 16, 0xe500}, {ABSENT_TSS, TSS << 16 | 0x67, 0x0900},
        {LDT_SEL, GDT << 16 | 0xff, 0x8200}, {UD16, 0xffff, 0xf200},
    };
    memset(ram + GDT, 0, 0x100);
    for (unsigned k = 0; k < sizeof rows / sizeof *rows; k++)
        set_gdt(rows[k].selector, rows[k].low, rows[k].high);
    set_gdt(TSS_SEL, (uint32_t)TSS << 16 | 0xfff, 0x8b00);
    if (lma)                       /* 16-byte descriptors: their second halves are zero */
        set_gdt(LDT_SEL + 8, 0, 0);
}

static void fill_pages(void)
{
    put(PAGES, (PAGES + 0x1000) | 7, 8);
    put(PAGES + 0x1000, (PAGES + 0x2000) | 7, 8);
    for (unsigned k = 0; k < RAM_BYTES >> 21; k++)
        put(PAGES + 0x2000 + 8 * k, (uint64_t)k << 21 | 0x87, 8);
}

static void fill_tss(bool lma)
{
    memset(ram + TSS, 0, 0x1000);
    if (lma) {
        put(TSS + 4, INNER, 8);
        put(TSS + 0x24, IST1 + 8, 8);
    } else {
        put(TSS + 4, INNER, 4);
        put(TSS + 8, KD, 2);
        put(TSS + 12, INNER - 0x800, 4);
        put(TSS + 16, R1D | 1, 2);
    }
    put(TSS + 0x66, 0x88, 2);
}

static void segment(int seg, uint16_t selector, uint64_t base, uint32_t limit, uint32_t rights)
{
    vcpu.field[VMCS_GUEST_ES_SELECTOR + seg] = selector;
    vcpu.field[VMCS_GUEST_ES_BASE + seg] = base;
    vcpu.field[VMCS_GUEST_ES_LIMIT + seg] = limit;
    vcpu.field[VMCS_GUEST_ES_AR_BYTES + seg] = rights;
}

static void segments_by_paragraph(uint32_t rights)
{
    for (int seg = ES; seg <= GS; seg++)
        segment(seg, 0x1000, 0x10000, 0xffff, rights);
    segment(CS, CODE >> 4, CODE, 0xffff, rights);
    segment(SS, STACK >> 4, STACK, 0xffff, rights);
}

static void flat_segments(enum mode mode, int cpl)
{
    uint32_t dpl = (uint32_t)cpl << 5, code = mode == LONG64 ? 0xa09b : 0xc09b;
    uint16_t cs = mode == LONG64 ? (cpl ? U64 : K64) : cpl == 3 ? U32 : cpl == 1 ? R1 | 1 : K32;
    uint16_t data = cpl == 3 ? UD : cpl == 1 ? R1D | 1 : KD;
    for (int seg = ES; seg <= GS; seg++)
        segment(seg, data, 0, 0xffffffff, 0xc093 | dpl);
    segment(CS, cs, 0, 0xffffffff, code | dpl);
}

void machine(enum mode mode, int cpl)
{
    bool lma = mode == LONG64 || mode == COMPAT;
    vcpu_reset(&vcpu);
    fill_gdt(lma);
    fill_tss(lma);
    fill_pages();
    memset(ram + IDT, 0, 0x1000);
    if (mode == REAL || mode == V8086)
        segments_by_paragraph(mode == REAL ? 0x93 : 0xf3);
    else
        flat_segments(mode, cpl);
    segment(TR, TSS_SEL, TSS, 0xfff, 0x8b);
    vcpu.field[VMCS_GUEST_GDTR_BASE] = GDT;
    vcpu.field[VMCS_GUEST_GDTR_LIMIT] = GDT_BYTES - 1;
    vcpu.field[VMCS_GUEST_IDTR_BASE] = mode == REAL ? 0 : IDT;
    vcpu.field[VMCS_GUEST_IDTR_LIMIT] = mode == REAL ? 0x3ff : 0xfff;
    vcpu.field[VMCS_GUEST_CR0] = mode == REAL ? 0x10 : lma ? 0x80000011 : 0x11;
    vcpu.field[VMCS_GUEST_CR3] = PAGES;
    vcpu.field[VMCS_GUEST_CR4] = lma ? 0x20 : 0;
    vcpu.field[VMCS_GUEST_IA32_EFER] = lma ? 0x501 : 0;
    vcpu.field[VMCS_GUEST_RFLAGS] = mode == V8086 ? 0x23202 : 0x202;
    vcpu.field[VMCS_GUEST_RSP] = mode == REAL || mode == V8086 ? 0x1000 : cpl == 3 ? USTACK : STACK;
    vcpu.field[VMCS_GUEST_RIP] = mode == REAL || mode == V8086 ? 0x100 : CODE;
    engine->vcpu = &vcpu;
    if (!load_guest(engine, &vcpu))
        abort();
    engine_flush_tlb(engine);
}

bool step(bool (*op)(struct engine *, const struct insn *), unsigned n, const uint8_t *bytes)
{
    struct core *c = engine->core;
    uint64_t at = c->rip + c->segs[CS].base;
    memset(ram + at, 0x90, 16);
    memcpy(ram + at, bytes, n);
    const struct insn *i = decode_at_rip(engine);
    if (!i || i->length != n) {
        printf("not decoded as one instruction: %02x %02x\n", bytes[0], n > 1 ? bytes[1] : 0);
        failures++;
        return false;
    }
    engine->pending.kind = PENDING_NONE;
    return op(engine, i);
}

bool deliver(enum event_type type, int vector, int error, unsigned length)
{
    struct event event = {.type = type, .vector = (uint8_t)vector, .has_error = error >= 0, .error = error >= 0 ? (uint32_t)error : 0,
                          .instruction_length = length};
    return deliver_event(engine, &event);
}

struct before remember(void)
{
    struct core *c = engine->core;
    struct before b = {.ldt = c->ldt, .tr = c->tr, .rip = c->rip, .flags = guest_rflags(engine), .cpl = guest_cpl(engine)};
    memcpy(b.segs, c->segs, sizeof b.segs);
    memcpy(b.regs, c->regs, sizeof b.regs);
    return b;
}

void unchanged(const struct before *b, int line)
{
    struct before now = remember();
    check_equal(memcmp(b->regs, now.regs, sizeof now.regs), 0, "registers changed by a fault", "line", line);
    check_equal(memcmp(b->segs, now.segs, sizeof now.segs), 0, "segments changed by a fault", "line", line);
    check_equal(now.rip, b->rip, "rip after a fault", "line", line);
    check_equal(now.flags, b->flags, "flags after a fault", "line", line);
    check_equal((uint64_t)now.cpl, (uint64_t)b->cpl, "cpl after a fault", "line", line);
}
