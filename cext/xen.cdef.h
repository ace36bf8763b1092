
/* ---- Xen PV (cext/xen.h) ---- */

enum { XEN_VCPUS = 32, XEN_BREACHES = 256 };
/* Why a domain ended by its own fault. */
enum xen_crash { XEN_CRASH_NONE, XEN_CRASH_BOUNCE_STACK, XEN_CRASH_NO_HANDLER, XEN_CRASH_IRET_FRAME, XEN_CRASH_NO_USER_ROOT, XEN_CRASH_NO_CALLBACK };
/* Rules that the referee looks after. `address` and `value` of a breach: what was touched, and with what. */
enum xen_rule {
    XEN_RULE_NONE, XEN_RULE_PIN, XEN_RULE_ENTRY, XEN_RULE_ROOT, XEN_RULE_UNPIN, XEN_RULE_SEGMENTS, XEN_RULE_POINTER, XEN_RULE_FRAME,
    XEN_RULE_TABLE_STORE, XEN_RULE_BOUNCE, XEN_RULE_LOST_EVENT, XEN_RULE_STALE_GRANT, XEN_RULE_BAD_GRANT,
};
struct xen_breach { uint64_t rule, address, value, rip, cycles; };
/* A hypercall that software has to carry out. */
struct xen_call {
    uint64_t number, arg[6];
    uint64_t list, index, count;   /* of a multicall: its entries, which one it is, how many */
    uint64_t active;               /* 1: alone; 2: in a multicall */
};
struct xen_counters {
    uint64_t calls[64];            /* hypercalls by number, those in multicalls too */
    uint64_t traps;                /* SYSCALLs that were hypercalls */
    uint64_t multicall_entries, updates[8], extended[24];  /* mmu_update by the type of what was written; mmuext_op */
    uint64_t upcalls, bounces, user_syscalls, toggles, emulated, table_stores, refused_stores;
    uint64_t validated, devalidated, refused_updates, flushes, page_flushes, frame_flushes;
    uint64_t breaches;             /* number n stands at [(n - 1) % XEN_BREACHES] */
};
struct xen_layout {                /* frame numbers of Xen's own */
    uint64_t m2p, shared_info, gdt_page, grants, grant_count, end;
};
/* Frames that a domain of `frames` needs beyond its own; where they are. */
void xen_layout_of(uint64_t frames, uint32_t vcpus, struct xen_layout *layout);
int xen_create(struct engine *engine, uint64_t frames, uint32_t vcpus);        /* 0; -1: no memory, or it does not fit */
/* Power-up: every frame the guest's, no type, nothing registered. */
void xen_reset(struct engine *engine);
/* The builder's page tables are the root of vcpu 0, pinned: 0 or a negative errno. Then its registers. */
int xen_start(struct engine *engine, struct vcpu *vcpu, uint64_t root, uint64_t entry, uint64_t stack, uint64_t start_info);
int xen_vcpu_context(struct engine *engine, struct vcpu *vcpu, const uint8_t *context);        /* VCPUOP_initialise */
void xen_attach(struct vcpu *vcpu, uint32_t number);
struct xen_counters *xen_counters_of(struct engine *engine);
struct xen_call *xen_call_of(struct engine *engine, uint32_t vcpu);
void xen_note_breach(struct engine *engine, uint32_t rule, uint64_t address, uint64_t value);  /* one that software found */
const struct xen_breach *xen_breach_number(struct engine *engine, uint64_t number);
uint64_t xen_crash_of(struct engine *engine, uint64_t *address);
/* The result of the call that software carried out. 1: a multicall goes on, with another for software. */
int xen_finish(struct engine *engine, struct vcpu *vcpu, int64_t result);
void xen_set_option(struct engine *engine, uint32_t option, uint64_t value);   /* 0 validates (times), 1 batches, 2 assists */
uint64_t xen_assists(struct engine *engine);
uint64_t xen_vcpu_info(struct engine *engine, uint32_t vcpu);  /* machine address */
int xen_set_vcpu_info(struct engine *engine, uint32_t vcpu, uint64_t mfn, uint64_t offset);    /* 0 or a negative errno */
void xen_set_iopl(struct engine *engine, uint32_t vcpu, uint32_t iopl);
void xen_set_io_bitmap(struct engine *engine, uint32_t vcpu, uint64_t linear, uint64_t ports);
int xen_set_callback(struct engine *engine, uint32_t vcpu, uint32_t type, uint64_t address, int masks);
uint64_t xen_m2p_of(struct engine *engine, uint64_t mfn);
void xen_set_m2p(struct engine *engine, uint64_t mfn, uint64_t pfn);
/* What the audit reads: type, all references, those that hold the type, FRAME_* flags. 0; -1: no such frame. */
int xen_frame(struct engine *engine, uint64_t mfn, uint64_t fields[4]);
/* Ballooning: give a frame back, get one. Negative errno. */
int xen_release_frame(struct engine *engine, uint64_t mfn);
int64_t xen_claim_frame(struct engine *engine);
/* The machine address of the L1 entry that maps a linear address, by a vcpu's root; change one. Or a negative errno. */
int64_t xen_l1_entry(struct engine *engine, struct vcpu *vcpu, uint64_t linear);
int xen_set_l1_entry(struct engine *engine, struct vcpu *vcpu, uint64_t address, uint64_t entry);
int xen_is_mapped(struct engine *engine, uint64_t first, uint64_t count);      /* whether any L1 entry leads to such a frame */
int xen_is_owned(struct engine *engine, uint64_t mfn);
int xen_is_up(struct engine *engine, uint32_t vcpu);
void xen_set_up(struct engine *engine, uint32_t vcpu, int up);
/* Hold a frame as another domain's mapping of a grant does. */
int xen_hold_frame(struct engine *engine, uint64_t mfn, int writable);
void xen_drop_frame(struct engine *engine, uint64_t mfn, int writable);
/* Count everything anew and compare: how many disagreements; the first one's frame, kind, counts. */
uint64_t xen_audit(struct engine *engine, uint64_t first[4]);
uint64_t xen_state_bytes(struct engine *engine);
void xen_save(struct engine *engine, uint8_t *to);
void xen_restore(struct engine *engine, const uint8_t *from);
