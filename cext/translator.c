/* What a guest could do to Unicorn's translator, and so to the process; its calls are led here, by the library's own jump
 * table.
 *
 * It gives up by abort() on some invalid instructions (LOCK BT with registers, for one): that becomes an exception of the
 * guest. Nothing is half done then: a translation that was begun is simply not entered anywhere, and the next one starts anew.
 *
 * Some instructions (FCMOV, for one) take a temporary for good; its table has 512, nothing checks that, and a block may be of
 * 512 instructions. They take two at most, and the registers 60: so blocks are kept shorter.
 *
 * BT, BTS, BTR and BTC leave some flags undefined. TCG leaves there what is cheapest after the instruction before, if that is
 * in the same block: where a block is cut, by a deadline or a breakpoint, would show in what PUSHF and frames store. So each
 * of them begins a block; then TCG leaves the flags alone, as processors do.
 *
 * What CR0.TS, CR0.EM and CR4.OSFXSR do not concern is translated as if they allowed everything (media.c).
 *
 * After each translation it looks through its whole TLB for writable mappings of the code's page. tlb.c hands out a mapping
 * that is writable and executable but rarely, and remembers where: elsewhere there is nothing to look for.
 */
#define _GNU_SOURCE
#include "refused.h"
#include "state.h"
#include "translator.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LONGEST_BLOCK = 128 };      /* instructions */

/* One word, looked at in each fill: where the thread's own block has it. */
static _Thread_local struct engine *running __attribute__((tls_model("initial-exec")));

void aborts_belong_to(struct engine *e) { running = e; }
struct engine *running_engine(void) { return running; }

static void __attribute__((noreturn)) translation_aborted(void)
{
    struct engine *e = running;
    if (!e)
        abort();
    leave_block(e, TRAP_UNTRANSLATABLE);
}

struct tables { const ElfW(Rela) *jumps; size_t count; const ElfW(Sym) *symbols; const char *names; };

static struct tables tables_of(const struct link_map *map)
{
    struct tables t = {0};
    for (const ElfW(Dyn) *d = map->l_ld; d->d_tag != DT_NULL; d++) {
        if (d->d_tag == DT_JMPREL)
            t.jumps = (const ElfW(Rela) *)d->d_un.d_ptr;
        else if (d->d_tag == DT_PLTRELSZ)
            t.count = d->d_un.d_val / sizeof *t.jumps;
        else if (d->d_tag == DT_SYMTAB)
            t.symbols = (const ElfW(Sym) *)d->d_un.d_ptr;
        else if (d->d_tag == DT_STRTAB)
            t.names = (const char *)d->d_un.d_ptr;
    }
    return t;
}

/* QEMU's TranslatorOps and DisasContextBase. */
struct operations {
    void (*before[4])(void);
    void (*translate_insn)(struct decoding *d, void *cpu);
    void (*after[2])(void);
};
struct decoding {
    void *block;
    uint64_t first, next;          /* linear addresses: of the block, of the next instruction */
    int is_jump, count, most;      /* instructions, the current one included; how many there may be */
};
enum { BLOCK_FLAGS = 16, FLAGS_IN_DECODING = 168 };    /* in TranslationBlock; in x86's DisasContext, a copy of them */

static _Thread_local void (*translate_insn)(struct decoding *d, void *cpu);

/* Where TCG keeps the flags that it translates by, if one instruction needs others; NULL: none does, or not this one. That
 * they stand there shows in each: they are the block's. */
static uint64_t *flags_to_change(const struct decoding *d, uint64_t *flags)
{
    uint8_t code[15];
    uint32_t block;
    memcpy(&block, (const uint8_t *)d->block + BLOCK_FLAGS, sizeof block);
    if (likely((block & (HF_TS | HF_EM | HF_OSFXSR)) == HF_OSFXSR) || !running)
        return NULL;
    uint64_t *at = (uint64_t *)(void *)((uint8_t *)(uintptr_t)d + FLAGS_IN_DECODING);
    *flags = media_flags(running, code, peek_code(running, d->next, code, sizeof code), block);
    return *flags != block && *at == block ? at : NULL;
}

static void translate(struct decoding *d, void *cpu)
{
    uint64_t other, *flags = flags_to_change(d, &other), usual = flags ? *flags : 0;
    if (flags)
        *flags = other;
    translate_insn(d, cpu);
    if (flags)
        *flags = usual;
}

static void translate_and_look(struct decoding *d, void *cpu)
{
    uint8_t code[15];
    translate(d, cpu);
    if (running && begins_block(running, code, peek_code(running, d->next, code, sizeof code)))
        d->most = d->count;
}

static void short_loop(const struct operations *o, struct decoding *d, void *cpu, void *block, int most)
{
    struct operations ours = *o;
    translate_insn = o->translate_insn;
    ours.translate_insn = translate_and_look;
    lib.internal.translator_loop(&ours, d, cpu, block, most < LONGEST_BLOCK ? most : LONGEST_BLOCK);
}

/* Unicorn looks through its whole TLB at each translation for a mapping of the page by which a store would not be noticed.
 * There is none: it makes one only of a mapping that is not executable (notdirty_write()), and none of those lives on
 * while the page is CODE (grant_fetch()). */
static void protect_code(void *cpu, uint64_t linear, uint64_t length)
{
    if (!running)
        lib.internal.tlb_reset_dirty(cpu, linear, length);
}

/* The byte store under way: where its next byte is, how many follow, for whom. */
static _Thread_local struct { uint64_t next; unsigned left, ahead; uintptr_t caller; } pieces;

/* The part of a store that lies on a second page, from `linear` on. */
static void invalidate_second_page(struct engine *e, uint64_t linear, unsigned size, uintptr_t caller)
{
    uint64_t hpa;
    if (!in_64bit_code(e))
        linear = (uint32_t)linear;
    if (!size || !code_page(e, linear, &hpa) || e->pages[hpa >> 12].state != PAGE_CODE)
        return;
    void *pages = lib.internal.lock_pages(e->uc, hpa, hpa + size);
    for (unsigned n = 0; n < size; n++)
        lib.internal.invalidate_store(e->uc, pages, hpa + n, 1, caller);
    lib.internal.unlock_pages(pages);
}

/* Called for the bytes of unaligned stores only; `index` holds the whole access's size (QEMU's TCGMemOpIdx). */
static void store_byte(void *env, uint64_t linear, uint8_t value, unsigned index, uintptr_t caller)
{
    bool begun = pieces.left && linear == pieces.next && caller == pieces.caller;
    unsigned size = 1u << (index >> 4 & 3);
    pieces.left = begun ? pieces.left - 1 : size - 1;
    pieces.ahead = begun ? 0 : size - 1;
    pieces.next = linear + 1;
    pieces.caller = caller;
    unsigned reach = (unsigned)(linear & 0xfff) + size;         /* the last page's second one is the first */
    if (running && !begun && reach > 4096)
        invalidate_second_page(running, (linear | 0xfff) + 1, reach - 4096, caller);
    lib.internal.store_byte(env, linear, value, index, caller);
    pieces.ahead = 0;
}

static void invalidate_store(void *uc, void *pages, uint64_t address, int size, uintptr_t caller)
{
    unsigned ahead = pieces.ahead;
    pieces.ahead = 0;
    lib.internal.invalidate_store(uc, pages, address, size, caller);
    for (uint64_t at = address + 1; ahead && at & 0xfff; at++, ahead--)
        lib.internal.invalidate_store(uc, pages, at, 1, caller);
}

static bool patch(uintptr_t slot, void (*target)(void))
{
    uintptr_t size = (uintptr_t)sysconf(_SC_PAGESIZE), page = slot & ~(size - 1);
    if (mprotect((void *)page, size, PROT_READ | PROT_WRITE))
        return false;
    memcpy((void *)slot, &target, sizeof target);
    return true;
}

static bool lead(const struct link_map *map, const struct tables *t, const char *name, void (*target)(void))
{
    for (size_t n = 0; t->jumps && t->symbols && t->names && n < t->count; n++)
        if (!strcmp(t->names + t->symbols[ELF64_R_SYM(t->jumps[n].r_info)].st_name, name))
            return patch(map->l_addr + t->jumps[n].r_offset, target);
    return false;
}

/* `library` as dlopen() returned it. false: it makes these calls in no way that is known. */
bool guard_translator(void *library)
{
    struct link_map *map;
    if (dlinfo(library, RTLD_DI_LINKMAP, &map))
        return false;
    struct tables t = tables_of(map);
    return lead(map, &t, "abort", translation_aborted) && lead(map, &t, "translator_loop_x86_64", (void (*)(void))short_loop) &&
           lead(map, &t, "tlb_reset_dirty_by_vaddr_x86_64", (void (*)(void))protect_code) &&
           lead(map, &t, "cpu_exit", (void (*)(void))exit_unless_refused) &&
           lead(map, &t, "cpu_loop_exit_restore_x86_64", (void (*)(void))leave_loop_unless_refused) &&
           lead(map, &t, "helper_ret_stb_mmu_x86_64", (void (*)(void))store_byte) &&
           lead(map, &t, "tb_invalidate_phys_page_fast_x86_64", (void (*)(void))invalidate_store);
}
