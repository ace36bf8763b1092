/* Xen PV: a guest that gives up its privileges by contract (Xen's public headers: xen.h, arch-x86/xen-x86_64.h).
 *
 * Its kernel runs at CPL 1 and shows RPL 3, its programs at CPL 3: Unicorn keeps the translations of the two apart, so that
 * the switch between the two page-table roots needs no flush. The guest writes no page table: each change comes through
 * xen_frames.c, which counts the types of page frames. What Xen does often is done here; the rest leaves as VMCALL exits.
 *
 *   xen_frames.c   types and reference counts of page frames; validation
 *   xen_mmu.c      mmu_update, update_va_mapping, mmuext_op
 *   xen_tlb.c      what may be cached, and what must be dropped
 *   xen_tables.c   GDT and LDT, their window in the hypervisor's hole
 *   xen_call.c     the dispatcher, multicall, small hypercalls
 *   xen_trap.c     bounce frames, iret, events
 *   xen_emulate.c  privileged instructions
 *   xen_ptwr.c     stores to page tables
 *   xen_domain.c   making and starting a domain; xen_state.c: what software asks, the audit
 */
#ifndef RING1_XEN_H
#define RING1_XEN_H

#include <errno.h>

#include "state.h"

#define XEN_HOLE_START 0xffff800000000000ull
#define XEN_HOLE_END 0xffff880000000000ull
#define XEN_M2P_START XEN_HOLE_START
#define XEN_TABLES_START 0xffff820000000000ull     /* per vcpu 16 pages of GDT, then 16 of LDT */
#define XEN_INVALID_M2P (~0ull >> 1)               /* INVALID_M2P_ENTRY */
enum { XEN_SLOT_FIRST = 256, XEN_SLOT_LAST = 271 };        /* of an L4 table: the hypervisor's */
enum { XEN_TABLE_PAGES = 32, XEN_GDT_PAGES = 16, XEN_RESERVED_GDT_PAGE = 14, XEN_GUEST_GDT_ENTRIES = 7168 };
enum { FLAT_CS64 = 0xe033, FLAT_CS32 = 0xe023, FLAT_SS = 0xe02b };
enum { DOMID_SELF = 0x7ff0, XEN_DOMID = 1 };

enum frame_type { FRAME_NONE, FRAME_L1, FRAME_L2, FRAME_L3, FRAME_L4, FRAME_SEGMENTS, FRAME_WRITABLE };
enum {
    FRAME_OWNED = 1,               /* by the guest */
    FRAME_PINNED = 2,
    FRAME_SHARED = 4,              /* Xen's own, the guest may map it writable */
    FRAME_RELEASED = 8,            /* given back while something still refers to it */
    FRAME_HIGH = 16,               /* a table that maps the kernel's half: its translations outlive a load of CR3 */
    FRAME_MANY_HIGH = 32, FRAME_MANY_LOW = 64,     /* more writable translations than are remembered */
};

struct page_frame {
    uint32_t types, refs;          /* references that hold the type; all */
    uint8_t type, flags;
    uint32_t token;                /* of `low`: see xen_tlb.c */
    uint32_t epoch;                /* paging-structure caches may hold it since: see xen_tlb.c */
    uint16_t held, held_writable;  /* by back ends, for grants */
    uint64_t low, high;            /* linear pages of writable translations in either half; 0: none */
};

struct xen_trap { uint64_t address; uint16_t cs; uint8_t flags, vector; };

enum callback { CALLBACK_EVENT, CALLBACK_FAILSAFE, CALLBACK_SYSCALL, CALLBACK_NMI = 4, CALLBACK_SYSENTER, CALLBACK_SYSCALL32 = 7, CALLBACKS };

struct xen_vcpu {
    bool kernel;                   /* the guest kernel's mode: its root, its GS base */
    bool up;
    uint64_t kernel_cr3, user_cr3; /* 0: none */
    uint64_t kernel_sp;
    uint16_t kernel_ss;
    uint64_t other_gs;             /* GS base of the mode that is not current */
    struct xen_trap traps[256];
    uint64_t callback[CALLBACKS];
    bool callback_masks[CALLBACKS];
    uint64_t info;                 /* machine address of its struct vcpu_info */
    uint64_t gdt_frames[XEN_RESERVED_GDT_PAGE], gdt_pages;
    uint64_t ldt_base, ldt_entries;
    uint64_t cr4;
    uint32_t iopl;                 /* 0 to 3 */
    uint64_t io_bitmap, io_ports;  /* the linear address of a bit for each port, set: refused; how many */
    struct xen_call call;          /* under way, in software */
    uint64_t progress;             /* of a long operation that was cut short: it goes on at the same SYSCALL */
};

struct xen {
    uint64_t frames;               /* the guest's machine frames: [0, frames) */
    uint64_t machine_frames;       /* with Xen's own behind them */
    uint64_t m2p, shared_info, gdt_page, grants, grant_count;      /* frames of Xen's own */
    uint64_t hole_tables[16];      /* entries of L4 slots 256 to 271 */
    uint64_t windows;              /* the L1 tables of GDTs and LDTs */
    uint32_t vcpus;
    uint32_t epoch;                /* counts renewals of all paging-structure caches */
    uint32_t low_token[XEN_VCPUS], last_token;
    uint64_t assists;
    uint64_t validates;            /* times: 2 to measure what it costs */
    uint64_t most_at_once;         /* operations: XEN_CUT_SHORT, or 1: multicall and mmu_update of many take a call each */
    bool program_high;             /* programs have translations of the kernel's half */
    bool kernel_changed;           /* a present entry of the kernel's half, since that was flushed */
    struct page_frame *frame;           /* of all machine frames */
    struct xen_vcpu vcpu[XEN_VCPUS];
    struct xen_counters counters;
    struct xen_breach breaches[XEN_BREACHES];
    uint64_t crash, crash_address;
};

static inline struct xen *xen_of(const struct engine *e) { return e->xen; }
static inline bool is_xen(const struct engine *e) { return unlikely(e->vcpu && e->vcpu->xen); }
static inline struct xen_vcpu *xen_current(const struct engine *e) { return &e->xen->vcpu[e->vcpu->xen - 1]; }
static inline struct page_frame *frame_of(const struct xen *x, uint64_t mfn) { return mfn < x->machine_frames ? &x->frame[mfn] : NULL; }
static inline bool is_owned(const struct xen *x, uint64_t mfn)
{
    return mfn < x->frames && (x->frame[mfn].flags & (FRAME_OWNED | FRAME_RELEASED)) == FRAME_OWNED;
}
static inline uint64_t *table_at(const struct engine *e, uint64_t mfn) { return (uint64_t *)(void *)(e->ram + (mfn << 12)); }
static inline uint8_t *vcpu_info(const struct engine *e, const struct xen_vcpu *v) { return e->ram + v->info; }
static inline bool is_in_hole(uint64_t linear, uint64_t n)
{
    return linear + n > XEN_HOLE_START && linear < XEN_HOLE_END;
}

/* A rule of the contract that the guest broke; see vmm/pv/xen/referee.py. */
void xen_breach(struct engine *e, enum xen_rule rule, uint64_t address, uint64_t value);
bool xen_crash(struct engine *e, enum xen_crash reason, uint64_t address);     /* raises an exit: returns false */

void xen_destroy(struct engine *e);

/* xen_frames.c: 0, or a negative errno */
int xen_get_type(struct engine *e, uint64_t mfn, enum frame_type type);
void xen_put_type(struct engine *e, uint64_t mfn);
int xen_get(struct engine *e, uint64_t mfn);
void xen_put(struct engine *e, uint64_t mfn);
int xen_change_entry(struct engine *e, uint64_t address, uint64_t entry, bool keeps_flags);

/* xen_mmu.c */
int64_t xen_mmu_update(struct engine *e, const uint64_t *a);
int64_t xen_update_va_mapping(struct engine *e, const uint64_t *a);
int64_t xen_mmuext_op(struct engine *e, const uint64_t *a);
bool xen_find_l1e(struct engine *e, uint64_t linear, uint64_t *address);       /* of its entry, by the current root */
bool xen_is_self(uint64_t domid);
enum { XEN_CUT_SHORT = 4096 };     /* operations at one go */
#define XEN_AGAIN (-0x7fff)        /* not over: the SYSCALL is executed again */

/* xen_tlb.c */
void xen_note_translation(struct engine *e, uint64_t linear, const struct walk *w);
void xen_note_table(struct engine *e, uint64_t linear, uint64_t table);
void xen_forget_translations(struct engine *e, struct page_frame *f);       /* writable ones of a frame whose type changes */
void xen_forget_structures(struct engine *e, struct page_frame *f);
void xen_toggled(struct engine *e);
void xen_root_loaded(struct engine *e, uint64_t old_root, uint64_t new_root);
void xen_user_root_loaded(struct engine *e);
void xen_flush(struct engine *e);
void xen_flush_all(struct engine *e);  /* of every vcpu */
void xen_flush_page(struct engine *e, uint64_t linear);
uint32_t xen_vpid(const struct engine *e);

/* xen_tables.c */
bool xen_fix_descriptor(uint64_t *descriptor);
int64_t xen_set_gdt(struct engine *e, const uint64_t *a);
int xen_load_gdt(struct engine *e, const uint64_t *frames, uint64_t entries);
int64_t xen_set_ldt(struct engine *e, uint64_t base, uint64_t entries);
int64_t xen_update_descriptor(struct engine *e, const uint64_t *a);
void xen_load_tables(struct engine *e);

/* xen_call.c */
bool xen_syscall(struct engine *e, const struct insn *i);
int xen_read(struct engine *e, uint64_t linear, void *to, size_t n);   /* guest memory: 0 or -EFAULT */
int xen_write(struct engine *e, uint64_t linear, const void *from, size_t n);

/* xen_trap.c */
bool xen_deliver(struct engine *e, const struct event *event);
bool xen_hypercall_iret(struct engine *e);
bool xen_user_syscall(struct engine *e, const struct insn *i, enum callback which);
bool xen_sysenter(struct engine *e, const struct insn *i);
bool xen_has_upcall(struct engine *e);
bool xen_upcall(struct engine *e);
void xen_at_entry(struct engine *e);
void xen_enter_kernel(struct engine *e, uint64_t rip, uint64_t rsp);
void xen_show_flat(struct engine *e);

/* xen_emulate.c */
bool xen_privileged(struct engine *e, const struct insn *i, bool *known);
bool xen_sensitive(struct engine *e, const struct insn *i, bool *known);
bool xen_port_allowed(struct engine *e, uint32_t port, uint32_t size);
bool xen_has_port_breakpoint(struct engine *e, uint64_t dr7);
void xen_task_switched(struct engine *e, bool set);

/* xen_ptwr.c */
bool xen_write_table(struct engine *e, uint64_t linear);       /* a store that faulted: done as an update of the table */

#endif
