/* Unicorn's translator gives up by abort() on some invalid instructions (LOCK BT with registers, for one): a guest could
 * end the process. Its calls are led here, by the library's own jump table, and become an exception of the guest.
 *
 * Nothing is half done then: a translation that was begun is simply not entered anywhere, and the next one starts anew.
 */
#define _GNU_SOURCE
#include "state.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static _Thread_local struct engine *running;

void aborts_belong_to(struct engine *e) { running = e; }

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

static bool patch(uintptr_t slot)
{
    uintptr_t size = (uintptr_t)sysconf(_SC_PAGESIZE), page = slot & ~(size - 1);
    void (*target)(void) = translation_aborted;
    if (mprotect((void *)page, size, PROT_READ | PROT_WRITE))
        return false;
    memcpy((void *)slot, &target, sizeof target);
    return true;
}

/* `library` as dlopen() returned it. false: it calls abort() in no way that is known. */
bool catch_aborts(void *library)
{
    struct link_map *map;
    if (dlinfo(library, RTLD_DI_LINKMAP, &map))
        return false;
    struct tables t = tables_of(map);
    for (size_t n = 0; t.jumps && t.symbols && t.names && n < t.count; n++)
        if (!strcmp(t.names + t.symbols[ELF64_R_SYM(t.jumps[n].r_info)].st_name, "abort"))
            return patch(map->l_addr + t.jumps[n].r_offset);
    return false;
}
