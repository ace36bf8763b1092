/* What shows time and chance: RDTSC, PAUSE and its loops, RDRAND and RDSEED. */
#include "xen.h"

/* An invariant TSC keeps its rate when the processor changes its own. */
static uint64_t host_tsc(const struct engine *e)
{
    const struct tsc_rate *r = &e->tsc;
    if (likely(r->ticks == r->cycles))
        return r->value + (cycles_now(e) - r->since);
    return r->value + (uint64_t)((unsigned __int128)(cycles_now(e) - r->since) * r->ticks / r->cycles);
}

void engine_set_tsc(struct engine *e, const struct tsc_rate *rate) { e->tsc = *rate; }

/* Manual, "Use TSC Scaling" and "Use TSC Offsetting": multiplied first, 48 bits of it fractional, then moved. */
uint64_t guest_tsc(struct engine *e)
{
    uint64_t tsc = host_tsc(e);
    if (!exiting(e, PRIMARY_USE_TSC_OFFSETTING))
        return tsc;
    if (exiting2(e, SECONDARY_USE_TSC_SCALING))
        tsc = (uint64_t)((unsigned __int128)tsc * *field(e, VMCS_TSC_MULTIPLIER) >> 48);
    return tsc + *field(e, VMCS_TSC_OFFSET);
}

bool op_rdtsc(struct engine *e, const struct insn *i)
{
    bool with_aux = i->id == X86_INS_RDTSCP;
    if (with_aux && !is_xen(e) && !exiting2(e, SECONDARY_ENABLE_RDTSCP))
        return raise_fault(e, 6, 0);
    if (e->core->cr[4] & CR4_TSD && (is_xen(e) ? e->cpl == 3 : e->cpl))
        return raise_fault(e, 13, 0);
    if (exiting(e, PRIMARY_RDTSC_EXITING))
        return instruction_exit(e, i, with_aux ? EXIT_RDTSCP : EXIT_RDTSC, 0);
    uint64_t tsc = guest_tsc(e);
    e->core->regs[RAX] = (uint32_t)tsc;
    e->core->regs[RDX] = tsc >> 32;
    if (with_aux)
        e->core->regs[RCX] = (uint32_t)e->vcpu->tsc_aux;
    return done(e, i);
}

/* Manual, "PAUSE-Loop Exiting": PAUSEs less than a gap apart are one loop; one that lasts longer than the window exits. */
static bool loops_too_long(struct engine *e)
{
    struct vcpu *v = e->vcpu;
    uint64_t now = cycles_now(e);
    bool first = !v->pause_seen || now - v->pause_last > *field(e, VMCS_PLE_GAP);
    if (first)
        v->pause_first = now;
    v->pause_seen = 1;
    v->pause_last = now;
    return !first && now - v->pause_first > *field(e, VMCS_PLE_WINDOW);
}

bool op_pause(struct engine *e, const struct insn *i)
{
    bool watched = exiting2(e, SECONDARY_PAUSE_LOOP_EXITING) && !e->cpl;
    if (exiting(e, PRIMARY_PAUSE_EXITING) || (watched && loops_too_long(e)))
        return instruction_exit(e, i, EXIT_PAUSE_INSTRUCTION, 0);
    return done(e, i);
}

/* A seeded sequence (SplitMix64): a run is the same twice. */
static uint64_t random_word(struct vcpu *v)
{
    uint64_t z = v->random += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

bool op_random(struct engine *e, const struct insn *i)
{
    bool seeds = i->id == X86_INS_RDSEED;
    if (exiting2(e, seeds ? SECONDARY_RDSEED_EXITING : SECONDARY_RDRAND_EXITING))
        return instruction_exit(e, i, seeds ? EXIT_RDSEED : EXIT_RDRAND, 0);
    uint64_t *reg = &e->core->regs[i->modrm_rm], value = random_word(e->vcpu);
    *reg = i->operand_size == 8 ? value : i->operand_size == 4 ? (uint32_t)value : (*reg & ~0xffffull) | (uint16_t)value;
    set_guest_rflags(e, (guest_rflags(e) & ~(RFLAGS_OF | RFLAGS_SF | RFLAGS_ZF | RFLAGS_AF | RFLAGS_PF)) | RFLAGS_CF);
    return done(e, i);
}
