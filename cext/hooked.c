/* The code hook: a sensitive instruction is carried out where it stands, within translated code.
 *
 * The hook is called by the translation, before the instruction, with all of the state in its place. When the instruction
 * has been carried out its block must not be gone on with: so the hook does not return there, but goes on with the block
 * that comes next, as TCG's own indirect jumps do. An exception instead of that would leave Unicorn's loop by longjmp() and
 * come back, which takes longer than most of these instructions.
 */
#include "state.h"

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

/* Where a translated block ends: at the code to go on with. NULL: return into the block. */
static const void *after_sensitive(uc_engine *uc, uint64_t pc, uint32_t size, struct engine *e)
{
    (void)uc, (void)size, (void)pc;
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
