/* The C libraries that the Python packages carry, opened by path at run time.
 *
 * Nothing is linked against them: capstone's SONAME differs from its file's name, and the file that
 * Python's own bindings loaded must be the one that is used here.
 */
#ifndef RING1_BINDING_H
#define RING1_BINDING_H

#include <capstone/capstone.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unicorn/unicorn.h>

#define BOUND_UNICORN(F)                                                                          \
    F(uc_version) F(uc_open) F(uc_close) F(uc_ctl) F(uc_mem_map_ptr) F(uc_hook_add)               \
    F(uc_emu_start) F(uc_emu_stop) F(uc_reg_read) F(uc_reg_write) F(uc_strerror)                  \
    F(uc_context_alloc) F(uc_context_save) F(uc_context_size) F(uc_context_free)

#define BOUND_CAPSTONE(F) F(cs_version) F(cs_open) F(cs_close) F(cs_option) F(cs_malloc) F(cs_free) F(cs_disasm_iter)

struct operations;
struct decoding;

/* Unicorn's internals (QEMU's names); exported by the library, absent from its headers. */
struct bound_internals {
    void (*tlb_flush)(void *cpu);
    void (*set_page)(void *cpu, uint64_t linear, uint64_t hpa, int access, int index, uint64_t size);
    bool (*fill)(void *cpu, uint64_t linear, int size, int how, int index, bool probe, uintptr_t caller);
    void *(*region_of)(void *uc, uint64_t hpa);
    void (*forget_jumps)(void *cpu, uint64_t linear);      /* to translated code on this page and the one before */
    void (*tlb_reset_dirty)(void *cpu, uint64_t linear, uint64_t length);
    void (*tb_invalidate)(void *uc, uint64_t start, uint64_t end);
    void (*raise)(void *env, int vector, int error, uintptr_t return_address) __attribute__((noreturn));
    void (*exit_cpu)(void *cpu);
    void (*leave_loop)(void *cpu, uintptr_t return_address) __attribute__((noreturn));
    uintptr_t check_exit_request;  /* only its address is used */
    void (*translator_loop)(const struct operations *o, struct decoding *d, void *cpu, void *block, int most);   /* translator.c */
    void *(*lock_pages)(void *uc, uint64_t first, uint64_t last);
    void (*unlock_pages)(void *pages);
    void (*store_byte)(void *env, uint64_t linear, uint8_t value, unsigned index, uintptr_t caller);
    void (*invalidate_store)(void *uc, void *pages, uint64_t address, int size, uintptr_t caller);
    const void *(*next_translation)(void *env);        /* its code, or the way back to Unicorn's loop */
    uint32_t (*flags_compute_all)(uint64_t dst, uint64_t src1, uint64_t src2, int op);
};

struct bound {
#define MEMBER(name) __typeof__(name) *name;
    BOUND_UNICORN(MEMBER)
    BOUND_CAPSTONE(MEMBER)
#undef MEMBER
    struct bound_internals internal;
};

/* The one table of function pointers; filled by bind_libraries(), constant afterwards. */
extern struct bound lib;

/* Where Unicorn keeps what no interface reaches: byte offsets, found and proved by probe.c. */
struct layout {
    ptrdiff_t fpu, fpu_end;        /* in the CPU state: x87, MMX, SSE registers and their status */
    ptrdiff_t efer;
    ptrdiff_t error_code, is_software, old_exception;
    ptrdiff_t invalid_address;     /* in uc_struct: what a refused TLB fill was for */
    ptrdiff_t no_exit_request;     /* in uc_struct: leave out the exit check after each memory access; 0 = not found */
    ptrdiff_t unsynced;            /* in uc_struct: hooks on memory accesses need no RIP; 0 = not found */
    ptrdiff_t env_in_cpu;          /* from the CPU object to its state */
};
extern struct layout layout;
bool probe_core_layout(void);
/* The CPU state behind an engine, and the CPU object that holds it; false: not found. */
bool find_cpu_state(uc_engine *uc, void **cpu, void **env);

bool binding_refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
