/* Opens libunicorn and libcapstone by path and refuses what this engine was not proved on. */
#define _GNU_SOURCE
#include "state.h"
#include "translator.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>

enum { UNICORN_VERSION = 2 << 24 | 1 << 16 | 4 << 8, UNICORN_MASK = 0xffffff00, CAPSTONE_MAJOR = 5 };

struct bound lib;
static char refusal[512];
static bool is_bound;

bool binding_refuse(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(refusal, sizeof refusal, format, arguments);
    va_end(arguments);
    return false;
}

const char *binding_error(void) { return refusal; }
unsigned unicorn_version(void) { return is_bound ? lib.uc_version(NULL, NULL) : 0; }
unsigned capstone_version(void)
{
    int major = 0, minor = 0;
    if (is_bound)
        lib.cs_version(&major, &minor);
    return (unsigned)(major << 8 | minor);
}

static bool resolve(void *library, const char *name, void *slot, const char *path)
{
    void *symbol = dlsym(library, name);
    if (!symbol)
        return binding_refuse("%s has no symbol %s: install the pinned version with pip", path, name);
    memcpy(slot, &symbol, sizeof symbol);
    return true;
}

static bool bind_unicorn(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return binding_refuse("libunicorn cannot be opened: %s", dlerror());
#define RESOLVE(name) if (!resolve(library, #name, &lib.name, path)) return false;
    BOUND_UNICORN(RESOLVE)
#undef RESOLVE
    unsigned version = lib.uc_version(NULL, NULL);
    if ((version & UNICORN_MASK) != UNICORN_VERSION)
        return binding_refuse("unicorn %u.%u.%u was found, but 2.1.4 is needed: pip install unicorn==2.1.4",
                              version >> 24, version >> 16 & 255, version >> 8 & 255);
    const struct { const char *name; void *slot; } internals[] = {
        {"tlb_flush_x86_64", &lib.internal.tlb_flush},
        {"tlb_set_page_x86_64", &lib.internal.set_page},
        {"unicorn_fill_tlb_x86_64", &lib.internal.fill},
        {"find_memory_mapping_x86_64", &lib.internal.region_of},
        {"tb_flush_jmp_cache_x86_64", &lib.internal.forget_jumps},
        {"tb_invalidate_phys_range_x86_64", &lib.internal.tb_invalidate},
        {"raise_exception_err_ra_x86_64", &lib.internal.raise},
        {"cpu_exit", &lib.internal.exit_cpu},
        {"cpu_loop_exit_restore_x86_64", &lib.internal.leave_loop},
        {"helper_check_exit_request_x86_64", &lib.internal.check_exit_request},
        {"helper_lookup_tb_ptr_x86_64", &lib.internal.next_translation},
        {"helper_cc_compute_all_x86_64", &lib.internal.flags_compute_all},
        {"translator_loop_x86_64", &lib.internal.translator_loop},
        {"helper_ret_stb_mmu_x86_64", &lib.internal.store_byte},
        {"page_collection_lock_x86_64", &lib.internal.lock_pages},
        {"page_collection_unlock_x86_64", &lib.internal.unlock_pages},
        {"tb_invalidate_phys_page_fast_x86_64", &lib.internal.invalidate_store},
        {"tlb_reset_dirty_by_vaddr_x86_64", &lib.internal.tlb_reset_dirty},
    };
    for (size_t i = 0; i < sizeof internals / sizeof *internals; i++)
        if (!resolve(library, internals[i].name, internals[i].slot, path))
            return false;
    if (!guard_translator(library))
        return binding_refuse("unicorn 2.1.4 from PyPI is needed, %s is another build: pip install unicorn==2.1.4", path);
    return true;
}

static bool bind_capstone(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return binding_refuse("libcapstone cannot be opened: %s", dlerror());
#define RESOLVE(name) if (!resolve(library, #name, &lib.name, path)) return false;
    BOUND_CAPSTONE(RESOLVE)
#undef RESOLVE
    int major = 0, minor = 0;
    lib.cs_version(&major, &minor);
    if (major != CAPSTONE_MAJOR)
        return binding_refuse("capstone %d.%d was found, but 5.0 is needed: pip install 'capstone>=5,<6'", major, minor);
    return true;
}

int bind_libraries(const char *unicorn_path, const char *capstone_path)
{
    if (is_bound)
        return 0;
    is_bound = bind_unicorn(unicorn_path) && bind_capstone(capstone_path) && probe_core_layout();
    return is_bound ? 0 : -1;
}
