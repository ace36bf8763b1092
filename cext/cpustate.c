/* What the guest believes against what Unicorn holds.
 *
 * The guest's ring 0 runs at CPL 1 and its ring 3 at CPL 3 (rings 1 and 2 at 1 and 2). Selectors in
 * the core are the guest's own, so that MOV from CS shows what the guest expects; only hidden parts
 * differ: SS's DPL follows the core's CPL because QEMU's helpers take the CPL from there. IOPL in the
 * core decides whether CLI, STI and POPF act natively: they may exactly when the guest's CPL <= its IOPL.
 */
#include "state.h"

enum { FLAG_TF = 1 << 8, FLAG_IF = 1 << 9, FLAG_DF = 1 << 10, FLAG_IOPL = 3 << 12, FLAG_RF = 1 << 16, FLAG_VM = 1 << 17 };
#define FLAGS_ARITHMETIC 0x8d5ull
#define FLAGS_KEPT 0x3f7fd7ull     /* every defined bit of RFLAGS */
enum { CC_OP_EFLAGS = 1 };

struct core *core_of(struct engine *e) { return e->core; }
struct vcpu *vcpu_of(struct engine *e) { return e->vcpu; }
int guest_cpl(const struct engine *e) { return e->cpl; }
uint64_t vmcs_read(struct engine *e, int index) { return e->vcpu->field[index]; }

bool in_real_mode(const struct engine *e) { return !(e->core->cr[0] & 1); }
bool in_v8086(struct engine *e) { return e->core->eflags & FLAG_VM; }
bool in_long_mode(const struct engine *e) { return e->efer >> 10 & 1; }
bool in_64bit_code(const struct engine *e) { return in_long_mode(e) && (e->core->segs[CS].flags & DESC_L); }

int code_bits(const struct engine *e)
{
    if (in_64bit_code(e))
        return 64;
    return e->core->segs[CS].flags & DESC_B && !(e->core->eflags & FLAG_VM) ? 32 : 16;
}

int stack_bits(const struct engine *e)
{
    if (in_64bit_code(e))
        return 64;
    return e->core->segs[SS].flags & DESC_B && !(e->core->eflags & FLAG_VM) ? 32 : 16;
}

static int core_cpl(const struct engine *e) { return e->cpl ? e->cpl : 1; }

static int core_iopl(const struct engine *e)
{
    if (e->cpl == 3)
        return e->iopl;            /* also V8086, where IOPL 3 decides */
    if (is_deprivileged(e))
        return 0;
    return e->cpl <= e->iopl ? core_cpl(e) : 0;
}

static void apply_privilege(struct engine *e)
{
    struct core *c = e->core;
    uint32_t cpl = (uint32_t)core_cpl(e);
    c->hflags = (c->hflags & ~(uint32_t)HF_CPL) | cpl;
    c->segs[SS].flags = (c->segs[SS].flags & ~(3u << DESC_DPL_SHIFT)) | cpl << DESC_DPL_SHIFT;
    c->eflags = (c->eflags & ~(uint64_t)FLAG_IOPL) | (uint64_t)core_iopl(e) << 12;
}

void set_guest_cpl(struct engine *e, int cpl)
{
    e->cpl = cpl;
    apply_privilege(e);
}

uint64_t guest_rflags(struct engine *e)
{
    struct core *c = e->core;
    uint64_t arithmetic = c->cc_op == CC_OP_EFLAGS ? c->cc_src
                        : lib.internal.flags_compute_all(c->cc_dst, c->cc_src, c->cc_src2, (int)c->cc_op);
    uint64_t rest = c->eflags & ~(FLAGS_ARITHMETIC | FLAG_DF | FLAG_IOPL | FLAG_TF);
    if (e->retired != e->rf_at)    /* any instruction ends RF; TCG keeps it until some block's end */
        rest &= ~(uint64_t)FLAG_RF;
    return (arithmetic & FLAGS_ARITHMETIC) | rest | (c->df < 0 ? FLAG_DF : 0) | (uint64_t)e->iopl << 12 |
           (e->guest_tf ? FLAG_TF : 0) | 2;
}

/* IF may open a window: whoever lets the guest go on then asks update_limit(). */
void set_guest_rflags(struct engine *e, uint64_t value)
{
    struct core *c = e->core;
    c->cc_op = CC_OP_EFLAGS;
    c->cc_src = value & FLAGS_ARITHMETIC;
    c->df = value & FLAG_DF ? -1 : 1;
    e->iopl = value >> 12 & 3;
    e->guest_tf = value & FLAG_TF;
    e->rf_at = e->retired;
    uint64_t rest = value & FLAGS_KEPT & ~(FLAGS_ARITHMETIC | FLAG_DF | FLAG_IOPL | FLAG_TF);
    c->eflags = rest | 2 | (e->guest_tf || e->stepping ? FLAG_TF : 0) | (uint64_t)core_iopl(e) << 12;
}

/* While Unicorn does not run it keeps the arithmetic flags and DF in eflags (QEMU's cpu_exec_enter and _exit convert
 * them); the model always reads them where they stand while it runs. */
void flags_into_unicorn(struct engine *e)
{
    uint64_t flags = guest_rflags(e) & (FLAGS_ARITHMETIC | FLAG_DF);
    e->core->eflags = (e->core->eflags & ~(FLAGS_ARITHMETIC | FLAG_DF)) | flags;
}

void flags_out_of_unicorn(struct engine *e)
{
    uint64_t flags = e->core->eflags;
    e->core->cc_op = CC_OP_EFLAGS;
    e->core->cc_src = flags & FLAGS_ARITHMETIC;
    e->core->df = flags & FLAG_DF ? -1 : 1;
    e->core->eflags &= ~(FLAGS_ARITHMETIC | FLAG_DF);
}

static struct core_segment *core_segment(struct engine *e, int seg)
{
    return seg == LDTR ? &e->core->ldt : seg == TR ? &e->core->tr : &e->core->segs[seg];
}

void set_segment(struct engine *e, int seg, uint16_t selector, uint64_t base, uint32_t limit, uint32_t flags)
{
    struct core_segment *s = core_segment(e, seg);
    if (seg == CS && flags & DESC_L && in_long_mode(e))
        base = 0;                  /* the processor ignores it in 64-bit mode, TCG does not */
    *s = (struct core_segment){.selector = selector, .base = base, .limit = limit, .flags = flags & 0x00f0ff00};
    if (seg == CS)
        e->cs_dpl = flags >> DESC_DPL_SHIFT & 3;
    if (seg == SS)
        apply_privilege(e);
    if (seg <= DS)                 /* ES, CS, SS, DS: widths and the need to add bases */
        sync_mode(e);
}

struct core_segment guest_segment(struct engine *e, int seg)
{
    struct core_segment s = *core_segment(e, seg);
    if (seg == CS || seg == SS) {
        uint32_t dpl = seg == CS ? e->cs_dpl : (uint32_t)e->cpl;
        s.flags = (s.flags & ~(3u << DESC_DPL_SHIFT)) | dpl << DESC_DPL_SHIFT;
    }
    return s;
}

static uint32_t mode_flags(const struct engine *e)
{
    const struct core *c = e->core;
    uint32_t flags = 0;
    bool vm = c->eflags & FLAG_VM, pe = c->cr[0] & 1;
    if (pe)
        flags |= HF_PE;
    if (in_long_mode(e))
        flags |= HF_LMA;
    if (in_64bit_code(e))
        return flags | HF_CS64 | HF_CS32 | HF_SS32;
    if (c->segs[CS].flags & DESC_B && !vm)
        flags |= HF_CS32;
    if (c->segs[SS].flags & DESC_B && !vm)
        flags |= HF_SS32;
    if (!pe || vm || !(flags & HF_CS32) || c->segs[DS].base || c->segs[ES].base || c->segs[SS].base)
        flags |= HF_ADDSEG;
    return flags;
}

void sync_mode(struct engine *e)
{
    struct core *c = e->core;
    const uint32_t ours = HF_PE | HF_LMA | HF_CS64 | HF_CS32 | HF_SS32 | HF_ADDSEG | HF_MP | HF_EM | HF_TS | HF_OSFXSR | HF_SMAP;
    uint32_t flags = mode_flags(e) | ((uint32_t)c->cr[0] & 0xe) << 8;   /* CR0.MP, EM, TS in bits 9-11 */
    flags |= (c->cr[4] & CR4_OSFXSR ? HF_OSFXSR : 0) | (c->cr[4] & CR4_SMAP ? HF_SMAP : 0);
    c->hflags = (c->hflags & ~ours) | flags;
    uint64_t efer = e->efer | 1;   /* EFER.SCE stays on: SYSRET then reaches us as #GP, and the guest's own bit is checked */
    memcpy(e->env + layout.efer, &efer, sizeof efer);
    apply_privilege(e);
}

void block_events_for_one_instruction(struct engine *e, bool by_mov_ss)
{
    e->core->hflags |= HF_INHIBIT_IRQ;
    e->shadow_is_mov_ss = by_mov_ss;
    e->mov_ss_at = e->retired + 1;     /* behind the instruction that is being carried out */
}

void clear_event_shadow(struct engine *e)
{
    e->core->hflags &= ~(uint32_t)HF_INHIBIT_IRQ;
    e->shadow_is_mov_ss = false;
}

void set_nmi_blocking(struct engine *e, bool blocked)
{
    e->nmi_blocked = blocked;
}

/* TCG ends a shadow by itself, and begins one at STI: that one is not ours. */
bool in_mov_ss_shadow(const struct engine *e) { return events_blocked(e) && e->shadow_is_mov_ss && e->mov_ss_at == e->retired; }

bool events_blocked(const struct engine *e) { return e->core->hflags & HF_INHIBIT_IRQ; }

bool raise_fault(struct engine *e, int vector, uint32_t error)
{
    const uint32_t with_error = 1u << 8 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 17 | 1u << 21;
    e->pending = (struct pending){.kind = PENDING_EXCEPTION, .vector = (uint8_t)vector, .error = error,
                                  .has_error = vector < 32 && (with_error >> vector & 1)};
    return false;
}

bool raise_exit(struct engine *e, uint32_t reason, uint64_t qualification)
{
    e->pending = (struct pending){.kind = PENDING_EXIT, .reason = reason, .qualification = qualification};
    return false;
}
