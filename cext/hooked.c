/* The code hook: a sensitive instruction is carried out where it stands, within translated code.
 *
 * The hook is called by the translation, before the instruction, with all of the state in its place. When the instruction
 * has been carried out its block must not be gone on with: so the hook does not return there, but goes on with the block
 * that comes next, as TCG's own indirect jumps do. An exception instead of that would leave Unicorn's loop by longjmp() and
 * come back, which takes longer than most of these instructions.
 */
#include "refused.h"
#include "xen.h"

#if !defined __x86_64__
#error "translated code is x86-64's here and in inline.c"
#endif

/* TCG has another opinion of the instruction's length, or knows one that there is not: alone it shows what it is. */
static void step_over(struct engine *e)
{
    settle_block(e);
    step_for_a_while(e);
    leave_block(e, TRAP_AGAIN);
}

/* Behind a hook TCG makes the flags explicit, and forgets that if a fault follows. */
static bool is_single_step(const struct engine *e) { return e->core->eflags & 0x100; }

/* The commonest, in 64-bit code and without prefixes: these need not be decoded again. */
enum { PAUSE = 1, RDTSC, RDTSCP, PUSHFQ, QUICK_KINDS };

static const struct { uint8_t bytes[3]; struct insn insn; } quick[QUICK_KINDS] = {
    [PAUSE] = {{0xf3, 0x90}, {.id = X86_INS_PAUSE, .length = 2, .bits = 64, .sensitive = true}},
    [RDTSC] = {{0x0f, 0x31}, {.id = X86_INS_RDTSC, .length = 2, .bits = 64, .sensitive = true}},
    [RDTSCP] = {{0x0f, 0x01, 0xf9}, {.id = X86_INS_RDTSCP, .length = 3, .bits = 64, .sensitive = true}},
    [PUSHFQ] = {{0x9c}, {.id = X86_INS_PUSHFQ, .length = 1, .bits = 64, .operand_size = 4, .opcode = {0x9c}, .uses_stack = true, .sensitive = true}},
};

uint8_t quick_kind(const uint8_t *bytes, size_t size)
{
    for (uint8_t kind = PAUSE; kind < QUICK_KINDS; kind++)
        if (quick[kind].insn.length == size && !memcmp(quick[kind].bytes, bytes, size))
            return kind;
    return 0;
}

/* The instruction at `pc` is one of those and nobody looks at each (`limit`: update_limit()): it has been carried out. */
static bool was_quick(struct engine *e, uint64_t pc)
{
    const struct block *b = e->block;
    if (!b || !b->quick || b->real_pc + b->sensitive != pc || !e->limit || is_single_step(e) || e->guest_tf || e->mtf ||
        e->debug.data || e->watching || is_deprivileged(e) || is_xen(e))
        return false;
    const struct insn *i = &quick[b->quick].insn;
    e->repeats = false;
    settle_block(e);
    bool carried_out = i->id == X86_INS_PAUSE ? op_pause(e, i) : i->id == X86_INS_PUSHFQ ? op_pushf(e, i) : op_rdtsc(e, i);
    if (likely(carried_out)) {
        instruction_done(e, i, false);
        return true;
    }
    resolve_pending(e, NULL);
    if (e->exit_ready)
        leave_block(e, TRAP_AGAIN);
    update_limit(e);
    return true;
}

/* Where a translated block ends: at the code to go on with. NULL: return into the block. */
static const void *after_sensitive(uc_engine *uc, uint64_t pc, uint32_t size, struct engine *e)
{
    (void)uc, (void)size;
    if (was_quick(e, pc))
        return lib.internal.next_translation(e->env);
    const struct insn *i = decode_at_rip(e);
    if (!i && undefined_at_rip(e))
        leave_block(e, TRAP_SENSITIVE);
    if (!i || !i->sensitive) {
        if (!is_single_step(e))
            step_over(e);
        set_guest_rflags(e, guest_rflags(e));
        return NULL;
    }
    carry_out(e, i);
    if (e->exit_ready || is_halted(e) || blocks_nearly_full(e))
        leave_block(e, TRAP_AGAIN);
    update_limit(e);
    return lib.internal.next_translation(e->env);
}

/* The arguments are those of after_sensitive(). Its caller's frame is that of all translated code: with the return address
 * dropped, another block may go on in it. */
__attribute__((naked)) void on_sensitive(uc_engine *uc, uint64_t pc, uint32_t size, void *data)
{
    (void)uc, (void)pc, (void)size, (void)data;
    __asm__("sub $8, %%rsp\n\t"
            "call %P0\n\t"
            "add $8, %%rsp\n\t"
            "test %%rax, %%rax\n\t"
            "jz 1f\n\t"
            "add $8, %%rsp\n\t"
            "jmp *%%rax\n"
            "1:\tret" : : "i"(after_sensitive));
}
