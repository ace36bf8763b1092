/* Tour 3.6: Unicorn's own TLB, filled and flushed in place.
 *
 * Unicorn fills it through a callback, after it has looked up the guest's RIP, which only a refused fill needs, and then
 * asks four other functions what is known here: that the page is machine memory, and where that is mapped. It flushes
 * page by page no faster. A guest that changes CR3 does both all the time. So the function that fills the TLB is replaced
 * by ours, which writes the entry where Unicorn would (QEMU's tlb_set_page_with_attrs), and pages are flushed here.
 *
 * A writable entry is marked NOTDIRTY where a store must look for translated code. That is so only for pages that are
 * executable too (fill.c): what is merely writable is DATA, and of that there is no code.
 */
#define _GNU_SOURCE
#include "micro.h"

#include <sys/uio.h>
#include <unistd.h>

#include "refused.h"
#include "state.h"
#include "translator.h"

enum { NOTDIRTY = 1 << 10, INVALID = 1 << 11, ENTRY_SHIFT = 6, UNSPECIFIED = 1 };
_Static_assert(sizeof(struct micro_entry) == 1 << ENTRY_SHIFT && sizeof(struct micro_tlb) == 2176, "Unicorn's layout");

static bool is_empty(const struct micro_entry *t) { return (t->read & t->write & t->code) == ~0ull; }

static bool is_of(uint64_t word, uint64_t page) { return (word & ~(uint64_t)0xfff) == page && !(word & INVALID); }

static bool holds(const struct micro_entry *t, uint64_t page)
{
    return is_of(t->read, page) || is_of(t->write, page) || is_of(t->code, page);
}

static struct micro_entry *slot(struct micro_tlb *m, int index, uint64_t page)
{
    const struct micro_table *t = &m->table[index];
    return (struct micro_entry *)(void *)((char *)t->entries + (page >> (12 - ENTRY_SHIFT) & t->mask));
}

static void drop(struct micro_index *i, struct micro_entry *t)
{
    memset(t, 0xff, sizeof *t);
    i->used--;
}

static void drop_victims(struct micro_index *i, uint64_t page)
{
    for (int k = 0; k < MICRO_VICTIMS; k++)
        if (holds(&i->victims[k], page))
            drop(i, &i->victims[k]);
}

/* What a fill of this page is to leave behind; `perms` as Unicorn's UC_PROT_*. */
static struct micro_entry entry_for(const uint8_t *ram, uint64_t page, uint64_t hpa, uint32_t perms)
{
    bool code = perms & UC_PROT_EXEC;
    return (struct micro_entry){
        .read = perms & UC_PROT_READ ? page : ~0ull, .write = perms & UC_PROT_WRITE ? page | (code ? NOTDIRTY : 0) : ~0ull,
        .code = code ? page : ~0ull, .paddr = hpa, .addend = (uintptr_t)ram + hpa - page,
    };
}

static void put(struct micro_tlb *m, int index, uint64_t page, const struct micro_entry *new)
{
    struct micro_index *i = &m->index[index];
    struct micro_entry *t = slot(m, index, page);
    struct micro_io *io = &i->io[t - m->table[index].entries];
    m->dirty |= 1u << index;
    if (unlikely(i->victims_used))
        drop_victims(i, page);
    if (!is_empty(t)) {
        if (!holds(t, page)) {     /* make room */
            uint64_t victim = i->victims_used++ % MICRO_VICTIMS;
            i->victims[victim] = *t;
            i->victims_io[victim] = *io;
            i->used--;
        }
    }
    memcpy(t, new, offsetof(struct micro_entry, unused));
    *io = (struct micro_io){.addr = new->paddr - page, .attributes = UNSPECIFIED};
    i->used++;
}

/* ---- flushing ---- */

/* Unicorn finds translated code by its linear address, without the TLB, until it is told. Pages that have been executable
 * since it last was, for all: a filter. */
static uint64_t *filter_word(struct engine *e, uint64_t page, uint64_t *bit)
{
    *bit = 1ull << (page >> 12 & 63);
    return &e->micro.executable[page >> 18 & (EXECUTABLE_WORDS - 1)];
}

static void forget_jumps(struct engine *e, uint64_t page)
{
    uint64_t bit;
    if (*filter_word(e, page, &bit) & bit)
        lib.internal.forget_jumps(e->cpu, page);
}

void micro_flush(struct engine *e)
{
    e->grants++;
    e->micro.nonglobal_count = e->fills = 0;
    e->counters.tlb_flushes++;
    memset(e->micro.executable, 0, sizeof e->micro.executable);
    lib.internal.tlb_flush(e->cpu);
}

static void flush_at(struct micro_tlb *m, int index, uint64_t page)
{
    struct micro_entry *t = slot(m, index, page);
    if (holds(t, page))
        drop(&m->index[index], t);
}

void micro_flush_page(struct engine *e, uint64_t linear)
{
    uint64_t page = linear & ~0xfffull;
    e->counters.tlb_page_flushes++;
    for (int index = 0; index < MICRO_INDEXES; index++) {
        flush_at(e->micro.tlb, index, page);
        if (unlikely(e->micro.tlb->index[index].victims_used))
            drop_victims(&e->micro.tlb->index[index], page);
    }
    forget_jumps(e, page);
}

static void drop_all_victims(struct micro_index *i)
{
    for (int k = 0; k < MICRO_VICTIMS; k++)
        if (!is_empty(&i->victims[k]))
            drop(i, &i->victims[k]);
    i->victims_used = 0;
}

/* Few non-global pages were handed out since the last flush: those alone, and what made room for them. */
void micro_flush_nonglobal(struct engine *e)
{
    struct micro_tlb *m = e->micro.tlb;
    if (e->micro.nonglobal_count > NONGLOBAL_MAX) {
        micro_flush(e);
        return;
    }
    for (uint32_t n = 0; n < e->micro.nonglobal_count; n++) {
        uint64_t page = e->micro.nonglobal[n] & ~0xfffull;
        flush_at(m, e->micro.nonglobal[n] & 0xfff, page);
        forget_jumps(e, page);
    }
    for (int index = 0; index < MICRO_INDEXES; index++)
        if (m->index[index].victims_used)
            drop_all_victims(&m->index[index]);
    e->counters.tlb_page_flushes += e->micro.nonglobal_count;
    e->micro.nonglobal_count = 0;
}

/* ---- filling ---- */

/* After any flush that the fill itself made: that starts the list anew. */
static void note_nonglobal(struct engine *e, int index, uint64_t page)
{
    if (e->micro.nonglobal_count < NONGLOBAL_MAX)
        e->micro.nonglobal[e->micro.nonglobal_count] = page | (unsigned)index;
    e->micro.nonglobal_count += e->micro.nonglobal_count <= NONGLOBAL_MAX;
}

/* In the place of Unicorn's own (cc->tlb_fill), with its arguments. Nothing but a refusal needs RIP, and the jump out of
 * translated code sets that. */
static bool fill(void *cpu, uint64_t linear, int size, int how, int index, bool probe, uintptr_t caller)
{
    static const enum access accesses[] = {ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH};
    struct engine *e = running_engine();
    struct fill f;
    if (!e)
        return lib.internal.fill(cpu, linear, size, how, index, probe, caller);
    uint64_t page = linear & ~0xfffull;
    if (fill_is_granted(e, page, accesses[how], &f)) {
        const struct micro_entry new = entry_for(e->ram, page, f.hpa, f.perms);
        if (f.perms & UC_PROT_EXEC) {
            uint64_t bit;
            *filter_word(e, page, &bit) |= bit;
        }
        if (!f.global)
            note_nonglobal(e, index, page);
        put(e->micro.tlb, index, page, &new);
        return true;
    }
    if (probe)
        return false;
    *e->invalid_error = UC_ERR_EXCEPTION;
    *e->invalid_address = linear;
    exit_unless_refused(cpu);
    leave_loop_unless_refused(cpu, caller);
}

/* Unicorn looks for the memory behind each address that misses; all of it is one region. */
static void *region_of(void *uc, uint64_t hpa)
{
    struct engine *e = running_engine();
    return likely(e && hpa < e->ram_size) ? e->micro.region : lib.internal.region_of(uc, hpa);
}

/* Its own function stands in uc_struct; where it does not nothing is lost but time. */
static void take_regions(struct engine *e)
{
    void **word = (void **)(void *)e->uc;
    e->micro.region = lib.internal.region_of(e->uc, 0);
    for (int n = 0; n < layout.invalid_address / 8; n++)
        if (word[n] == (void *)lib.internal.region_of)
            word[n] = (void *)region_of;
}

/* ---- the probe ---- */

static bool read_safely(void *to, const void *from, size_t n)
{
    struct iovec local = {to, n}, remote = {(void *)(uintptr_t)from, n};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)n;
}

static void **fill_slot(void *cpu)
{
    enum { CLASS_WORDS = 64 };
    char *end = (char *)cpu + layout.env_in_cpu;
    for (char **at = cpu; (char *)at < end - 8; at++) {
        void *class[CLASS_WORDS];
        if ((uintptr_t)*at < 0x10000 || !read_safely(class, *at, sizeof class))
            continue;
        for (int n = 0; n < CLASS_WORDS; n++)
            if (class[n] == (void *)lib.internal.fill)
                return (void **)(void *)*at + n;
    }
    return NULL;
}

static bool is_table(const struct micro_table *t)
{
    uint64_t entries = (t->mask >> ENTRY_SHIFT) + 1, last;
    return t->mask && !(t->mask & 63) && !(entries & (entries - 1)) && entries <= 1 << 22 &&
           read_safely(&last, (char *)t->entries + t->mask, sizeof last);
}

/* Two pages that share a place: the library's entries must be ours, the first one among the victims. */
static bool is_as_expected(void *cpu, char *env, const uint8_t *ram)
{
    enum { HPA = 0x3000, INDEX = 1, READ = 1, WRITE = 2 };
    const uint64_t first = 0x123456789000, second = first + (1ull << 40);
    struct micro_tlb *m = micro_of(env), before;
    struct micro_index *i = &m->index[INDEX];
    if (!read_safely(&before, m, sizeof before) || !is_table(&before.table[INDEX]) || !read_safely(&before, before.index[INDEX].io, 16))
        return false;
    lib.internal.tlb_flush(cpu);
    struct micro_entry *t = slot(m, INDEX, first), want = entry_for(ram, first, HPA, UC_PROT_READ), then = entry_for(ram, second, HPA, UC_PROT_ALL);
    bool agrees = is_empty(t) && !i->used && !i->victims_used;
    lib.internal.set_page(cpu, first, HPA, READ, INDEX, 4096);
    agrees = agrees && !memcmp(t, &want, offsetof(struct micro_entry, unused)) && i->used == 1 && m->dirty & 1u << INDEX;
    lib.internal.set_page(cpu, second, HPA, 7, INDEX, 4096);
    const struct micro_io *io = &i->io[t - m->table[INDEX].entries];
    agrees = agrees && !memcmp(t, &then, offsetof(struct micro_entry, unused)) && i->used == 1 && i->victims_used == 1 &&
             !memcmp(&i->victims[0], &want, offsetof(struct micro_entry, unused)) && io->addr == HPA - second &&
             (uint32_t)io->attributes == UNSPECIFIED;
    lib.internal.tlb_flush(cpu);   /* which makes another table if this process has not run for 0.1 s: `t` is gone */
    return agrees && is_empty(slot(m, INDEX, first)) && !i->used && !i->victims_used;
}

bool micro_open(struct engine *e)
{
    take_regions(e);
    void **filler = fill_slot(e->cpu);
    e->micro.tlb = micro_of(e->env);
    if (filler)
        *filler = (void *)fill;
    return filler && is_as_expected(e->cpu, e->env, e->ram);
}
