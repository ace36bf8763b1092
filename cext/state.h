/* struct engine, for the files that keep its parts: everything is here, nothing is global. */
#ifndef RING1_STATE_H
#define RING1_STATE_H

#include "block.h"
#include "cost.h"
#include "detail.h"
#include "engine.h"
#include "ledger.h"
#include "micro.h"
#include "mmu.h"
#include "price.h"
#include "stretch.h"

/* Vectors of our own, raised to leave translated code for trap.c; far above the architecture's. */
enum { TRAP_SENSITIVE = 0x200, TRAP_AGAIN, TRAP_STOP, TRAP_BREAKPOINT, TRAP_UNTRANSLATABLE, TRAP_DUE, TRAP_REFUSED };

enum { BLOCK_RECORDS = 1 << 18, LENGTH_BYTES = 1 << 21, CODE_BYTES = 1 << 23, CODE_BUFFER_BYTES = 96 << 20, TLB_ENTRIES = 1 << 16, DECODED = 4096 };
enum { LENGTH_MASK = 15, LAST_OF_STRETCH = 16, TRANSFERS = 32 };

#define NO_REP (1ull << 62)         /* canonical nowhere: RIP is never there */
#define BLOCK_SLOW (~1ull)
#define BLOCK_UNSEEN (~0ull)

#define ADDRESS_MASK (((1ull << 52) - 1) & ~0xfffull)

/* What a machine page holds, as far as the translator is concerned. */
enum page_state { PAGE_DATA = 0, PAGE_CODE = 1 };
struct page {
    uint32_t write_grant;          /* engine->grants when a writable mapping of it was last handed out */
    uint32_t exec_grant;
    uint8_t state, stores;
};

struct refusal {                   /* why the last TLB fill was refused */
    bool valid, lookahead, own_code;
    bool overdrawn;                /* nothing is wrong with it but that the deadline has come closer */
    bool walked;                   /* for a fault, by a walk that has been paid for */
    bool page_fault;               /* engine.refused is what this access gets, but for the low bits of CR2 */
    enum access access;
    uint64_t page;
};

/* GUEST_PENDING_DBG_EXCEPTIONS */
enum { PENDING_BREAKPOINTS = 0xf, PENDING_ENABLED_BREAKPOINT = 1 << 12, PENDING_BS = 1 << 14 };

struct debug {                     /* what DR7 enables; bit n = DRn */
    uint8_t code, data, io, writes_only;
    uint8_t length[4];
    uint64_t address[4];
    uint64_t hits;                 /* bits for DR6, of the instruction under way */
    uint64_t from, to;             /* the block that is being single-stepped towards a code breakpoint */
    bool step, let_in;             /* stepping for that; watched pages are let in for one step */
};

struct engine {
    /* hot */
    uint64_t retired;              /* instructions, the running block counted in full */
    uint64_t limit;                /* the hook leaves the fast way when retired would exceed it */
    struct block *block;           /* the running block */
    uint64_t work;                 /* --timing cycle: what they cost, in 1/64 cycle; the running block in full */
    struct core *core;
    /* time */
    const struct cost_table *costs;    /* NULL: --timing fast, an instruction is a cycle */
    uint64_t until;                /* stop at the first instruction at which meter() has come so far */
    uint64_t most_retired;         /* stop when so many have retired, deliveries counted too */
    uint64_t skew;                 /* cycles beyond what instructions took */
    struct price price;
    struct tsc_rate tsc;           /* zero: it counts cycles */
    uint64_t settled;              /* guest time up to here is in the ledger, in cycles */
    struct ledger ledger;
    struct stretch base, carry;    /* where the running block began, if within a stretch; where the next one will */
    struct stretch left_base;      /* of the block before */
    struct trail base_trail, trail, left_trail;    /* of `base`, `carry` and `left_base`, where they are within a stretch */
    struct cost_run pricing;       /* of the stretch that was last continued */
    struct trail priced;           /* and its code */
    struct rep rep;
    struct unknown_costs unknown;
    struct detail detail;          /* --timing detailed */
    uint32_t next_units;           /* price of the instruction that settle_block() stopped at */
    uint64_t rep_pc;               /* linear address of a REP instruction under way, else NO_REP */
    /* Unicorn */
    uc_engine *uc;
    void *cpu;
    char *env;
    uint64_t *invalid_address;
    int *invalid_error;
    uint64_t *code_begin, *code_end;   /* the code hook's range, in Unicorn's struct hook */
    void **block_data;             /* the block hook's user data, likewise */
    volatile int interrupted;
    char message[256];
    /* blocks */
    struct block *blocks;
    uint32_t block_count;
    const uint8_t *oldest_code, *newest_code;      /* in Unicorn's buffer, since all translations were dropped */
    uint8_t *lengths;              /* of instructions, and LAST_OF_STRETCH */
    uint16_t *units;               /* likewise: what each adds to its block's work */
    uint32_t length_count;
    uint8_t *codes;                /* of priced blocks, as translated */
    uint32_t code_count;
    struct block scratch;
    csh capstone[3];
    cs_insn *scan;                 /* capstone's cell for decode.c and block.c */
    struct decoded *decoded;
    /* stepping */
    bool stepping;                 /* TF is ours: landing on `until`, or making a fetch fault precise */
    bool step_fetch, step_deadline;    /* which of the two */
    uint64_t fetch_page;
    uint64_t debt, debt_at, slow_until;    /* step.c: instructions translated and not run; as of; how long that makes us step */
    struct debug debug;
    struct stops *stops;           /* a debugger's (stops.c) */
    bool watching, towards_stop;   /* memory is watched; steps lead to a breakpoint in this block */
    bool repeats;                  /* what was stepped is a repeated instruction that is not complete */
    uint32_t attempts;             /* how often the guest was left for nothing; `progress`: the cycle when that was last looked at */
    uint64_t progress;
    /* memory */
    uint8_t *ram;
    uint64_t ram_size;
    struct page *pages;
    uint64_t *dirty;
    struct engine *peer;           /* the next one over the same memory, in a ring; NULL: none (peers.c) */
    bool dirty_is_lent;
    uint32_t grants;               /* count of full flushes: which grants may still be cached */
    struct mmu mmu;
    struct micro micro;
    uint32_t fills, fills_before_growth;
    struct refusal refusal;
    struct pending refused;        /* what the walk of a refused fill found */
    /* the guest */
    struct vcpu *vcpu, *loaded;    /* running; whose x87/SSE state is in the core */
    int cpl;                       /* what the guest believes */
    int iopl;
    bool guest_tf, shadow_is_mov_ss, nmi_blocked;
    uint64_t mov_ss_at;            /* how many had retired when the MOV SS shadow began; it lasts for one instruction */
    bool implicit_access;          /* descriptor tables and the TSS: EFLAGS.AC does not lift SMAP */
    uint8_t cs_dpl;
    uint64_t rf_at;                /* RF in the core is valid while this many have retired */
    uint64_t efer;
    uint64_t pkru, pkrs;           /* as Unicorn's TLB knows them */
    struct pending pending;
    bool mtf;                      /* exit after each instruction */
    bool line_init, line_nmi, line_busy;      /* what waits at this processor's own pins */
    uint8_t line_vector;
    uint64_t apic_page;            /* host-physical address of the APIC-access page; ~0: none */
    bool virtual_pending;          /* RVI is above VPPR: an interrupt of the virtual APIC waits */
    struct event idt_event;        /* the event that was being delivered when an exit came */
    bool idt_event_valid;
    /* VM entry */
    struct vmx_capabilities caps;
    bool is_amd;                   /* what SYSCALL and SYSENTER do outside 64-bit code */
    struct vcpu *checked;          /* whose `good` these are: the fields of its last good entry, guest state of the exit */
    uint64_t good[VMCS_FIELD_COUNT];
    int failed_check, skipped_check;
    bool check_always;
    struct exit_record exit;
    bool exit_ready;
    struct port_work port_work;    /* what is done about port I/O here: portwork.c */
    struct tracer *tracer;         /* trace.c; NULL: nobody looks */
    struct xen *xen;               /* xen.h: the PV domain that its virtual CPUs make up; NULL: none */
    struct engine_counters counters;
    uint64_t by_reason[REASONS];
    struct exit_record history[HISTORY];
    uint8_t fpu_reset[5120];
};

/* engine.c */
void check_progress(struct engine *e);
void forget_translations(struct engine *e);        /* of TCG's, all */

/* cpustate.c */
void flags_into_unicorn(struct engine *e);
void flags_out_of_unicorn(struct engine *e);

/* block.c */
bool blocks_create(struct engine *e);
void blocks_destroy(struct engine *e);
void blocks_forget(struct engine *e);              /* after a flush of all translations */
csh capstone_for(const struct engine *e);
bool blocks_nearly_full(const struct engine *e);
void block_again(struct block *b);
void inline_hook(struct engine *e, const struct block *b, uint8_t *back);      /* inline.c */
void on_block(uc_engine *uc, uint64_t pc, uint32_t size, void *data);
void on_sensitive(uc_engine *uc, uint64_t pc, uint32_t size, void *data);      /* hooked.c */
uint8_t quick_kind(const uint8_t *bytes, size_t size);
void on_translated(uc_engine *uc, uc_tb *block, uc_tb *previous, void *data);
bool is_repeated_string(const cs_insn *i);
void leave_block(struct engine *e, int trap) __attribute__((noreturn));
bool find_hook_fields(struct engine *e, uc_hook block, uc_hook code);

/* step.c */
bool is_due(const struct engine *e);               /* the deadline, by the clock or by instructions */
void stop_at(struct engine *e, uint32_t reason) __attribute__((noreturn));
void forget_steps(struct engine *e);
void step_through_page(struct engine *e);
void step_for_a_while(struct engine *e);
bool goes_slowly(const struct engine *e);
void keep_pace(struct engine *e, struct block *b);       /* before a block: the deadline, and steps for any reason */

/* peers.c */
void peers_leave(struct engine *e);
void peers_lose_code(struct engine *e, uint64_t page);
void peers_lose_writes(struct engine *e, uint64_t page);
void peers_flush(struct engine *e);                /* Unicorn's TLBs of the others */

/* vcpu.c */
bool borrow(struct engine *e, struct vcpu *v);    /* load it for accesses of the model's own; false: it cannot run */
struct glance { struct mmu mmu; uint64_t left[4]; };       /* what loading it changes that a guest could tell by its cycles */
bool glance_at(struct engine *e, struct vcpu *v, struct glance *g);        /* the same, for who only looks: */
void glance_away(struct engine *e, struct vcpu *v, const struct glance *g);

/* fill.c: Unicorn asks */
struct fill { uint64_t hpa; uint32_t perms; bool global; };    /* perms: UC_PROT_* */
bool fill_is_granted(struct engine *e, uint64_t page, enum access access, struct fill *out);

/* fill.c */
/* Translate for the model's own accesses: fills the TLB, sets A/D. false: pending is set. */
bool tlb_translate(struct engine *e, uint64_t linear, enum access access, bool user, uint64_t *hpa);
bool tlb_translate_again(struct engine *e, uint64_t linear, enum access access, uint64_t *hpa);    /* after a refusal */
void host_wrote(struct engine *e, uint64_t hpa, uint64_t size);
void linear_rip(struct engine *e, uint64_t *linear);
bool code_page(struct engine *e, uint64_t linear, uint64_t *hpa);              /* without side effects */
size_t peek_code(struct engine *e, uint64_t linear, void *to, size_t n);       /* likewise; how much there was */

/* walk.c */
enum walk_effects { WALK_SETS_BITS, WALK_LOOKS };
bool walk(struct engine *e, uint64_t linear, enum access access, bool user, enum walk_effects effects, struct walk *w);
bool permitted(struct engine *e, uint32_t rights, enum access access, bool user);
bool raise_page_fault(struct engine *e, uint64_t linear, uint32_t error);
bool load_pdptes(struct engine *e, uint64_t cr3);

/* vmfunc.c */
bool op_vmfunc(struct engine *e, const struct insn *i);
bool becomes_ve(struct engine *e);                 /* pending is an exit: #VE instead? */

/* trap.c */
void on_interrupt(uc_engine *uc, uint32_t vector, void *data);
bool on_invalid(uc_engine *uc, void *data);
void carry_out(struct engine *e, const struct insn *i);      /* a sensitive instruction: whatever comes of it */
void resolve_pending(struct engine *e, const struct event *during);
void raise_event(struct engine *e, struct event event);      /* exits if intercepted, else inject() */
void inject(struct engine *e, struct event event); /* deliver, with whatever follows from it */
void hold_back(struct engine *e, uint64_t hits);   /* a data breakpoint's #DB, until after the next instruction */
bool events_blocked(const struct engine *e);
bool in_mov_ss_shadow(const struct engine *e);
void update_limit(struct engine *e);

/* decode.c */
size_t decoded_size(void);
bool has_lock_prefix(const uint8_t *code, size_t size, int bits);
bool undefined_at_rip(struct engine *e);

/* translator.c: Unicorn gives up on a translation by abort(); while `e` runs that becomes TRAP_UNTRANSLATABLE. */

#include "watched.h"

/* intercept.c: what the two files below ask the controls */
bool exiting(struct engine *e, uint64_t primary_control);
bool exiting2(struct engine *e, uint64_t secondary_control);
bool instruction_exit(struct engine *e, const struct insn *i, uint32_t reason, uint64_t qualification);
bool table_exit(struct engine *e, const struct insn *i, uint32_t reason);
bool done(struct engine *e, const struct insn *i);         /* advance and say true */
bool msr_exits(struct engine *e, uint32_t msr, bool writes);
bool port_exits(struct engine *e, uint32_t port, uint32_t size);

/* privileged.c, emulate.c: false = pending; *known = false when the instruction is not privileged at all */
bool do_privileged(struct engine *e, const struct insn *i, bool *known);
bool do_sensitive(struct engine *e, const struct insn *i);
uint64_t *plain_msr(struct engine *e, uint32_t msr);           /* those that the processor keeps itself, or NULL */
bool write_plain_msr(struct engine *e, uint32_t msr, uint64_t value);      /* false: #GP(0) */
const uint8_t *opcode_of(const struct engine *e, const uint8_t *at, size_t size, int *left);
uint64_t media_flags(const struct engine *e, const uint8_t *code, size_t size, uint64_t flags);
bool is_sensitive(const struct engine *e, const cs_insn *i);
bool begins_block(const struct engine *e, const uint8_t *code, size_t size);
bool has_useless_vex(const struct engine *e, const cs_insn *i);
bool is_undefined(const struct engine *e, const uint8_t *code, size_t size);

/* deprivileged.c: the trap technique. *known = false: none of its business */
bool is_deprivileged(const struct engine *e);
bool keeps_sensitive(const struct engine *e);      /* to show what they would do */
bool trap_ring0(struct engine *e, const struct insn *i);
bool trap_interrupt_flag(struct engine *e, const struct insn *i, bool *known);
bool trap_replaced(struct engine *e, const struct insn *i, bool *known);
bool is_replaced(unsigned id);
void count_replaced(struct engine *e, const struct insn *i);
void name_operation(struct engine *e);

/* flagged.c */
void note_exit(const struct engine *e);
bool has_fragile_flags(unsigned id, const uint8_t *opcode, uint8_t modrm);
bool op_fragile_flags(struct engine *e, const struct insn *i);

/* leave.c, msrlist.c */
void load_by_control(struct engine *e);
void save_by_control(struct engine *e);
bool load_entry_msrs(struct engine *e, uint64_t *failed);      /* false: number of the entry, from 1 */
void exchange_exit_msrs(struct engine *e, bool stores);

/* apicv.c */
void apicv_at_entry(struct engine *e);
void deliver_virtual_interrupt(struct engine *e);
uint64_t read_cr8(struct engine *e);
bool write_cr8(struct engine *e, const struct insn *i, uint64_t value);
bool is_virtual_x2apic(struct engine *e, uint32_t msr, bool writes);
uint64_t read_virtual_x2apic(struct engine *e, uint32_t msr);
bool write_virtual_x2apic(struct engine *e, const struct insn *i, uint32_t msr, uint64_t value);
bool is_notification(struct engine *e, uint8_t vector);
void process_posted(struct engine *e);
uint64_t vapic_read(struct engine *e, unsigned offset, size_t bytes);
void vapic_write(struct engine *e, unsigned offset, uint64_t value, size_t bytes);
void tpr_written(struct engine *e);
void virtualize_eoi(struct engine *e);
void request_virtual(struct engine *e, unsigned vector);

/* apicaccess.c */
void select_apic_page(struct engine *e);
bool raise_apic_access(struct engine *e, uint64_t linear, enum access access);
bool raise_apic_access_by_walk(struct engine *e);
uint64_t apic_access_in_delivery(uint64_t qualification);
bool virtualize_apic_access(struct engine *e, const struct insn *i);       /* what is pending is done without an exit */

/* clock.c */
uint64_t guest_tsc(struct engine *e);
bool op_rdtsc(struct engine *e, const struct insn *i);
bool op_pause(struct engine *e, const struct insn *i);
bool op_pushf(struct engine *e, const struct insn *i);
bool op_random(struct engine *e, const struct insn *i);

/* vmxinsn.c: *known = false when the instruction is none of its own */
bool do_vmx(struct engine *e, const struct insn *i, bool *known);

/* boundary.c */
void start_timer(struct engine *e);
void stop_timer(struct engine *e);
void check_boundary(struct engine *e);
void take_what_is_due(struct engine *e);
bool watches_boundaries(struct engine *e);
void monitor_trap(struct engine *e, uint64_t debug_cause);
void halt_guest(struct engine *e);
bool is_halted(struct engine *e);
void wait_halted(struct engine *e);

/* entry.c */
bool entry_is_allowed(struct engine *e);           /* false: the exit record says how it failed */
void entry_was_good(struct engine *e);             /* after the exit: the saved guest state is a processor's */

/* vmcs.c */
bool load_guest(struct engine *e, struct vcpu *v);
void load_fpu(struct engine *e, struct vcpu *v);
void save_guest(struct engine *e);
void inject_at_entry(struct engine *e);
void publish_exit(struct engine *e);
void fill_exit(struct engine *e, uint32_t reason, uint64_t qualification, uint32_t length);
uint32_t flags_to_access_rights(uint32_t flags);
uint32_t access_rights_to_flags(uint32_t rights);

/* What an exit goes by: its operation under the trap technique, else its reason. */
static inline uint64_t exit_code(const struct exit_record *x) { return x->operation ? x->operation : x->reason; }
/* What deadlines are compared with: work or instructions. */
static inline uint64_t meter(const struct engine *e) { return e->costs ? e->work : e->retired; }
static inline int meter_shift(const struct engine *e) { return e->costs ? COST_SHIFT : 0; }
static inline uint64_t guest_cycles(const struct engine *e) { return meter(e) >> meter_shift(e); }
static inline uint64_t cycles_now(const struct engine *e) { return guest_cycles(e) + e->skew; }
static inline uint64_t retired_left(const struct engine *e)
{
    uint64_t passed = e->retired + e->counters.delivered;
    return e->most_retired > passed ? e->most_retired - passed : 0;
}
static inline uint32_t length_at(const struct engine *e, const struct block *b, uint32_t n) { return e->lengths[b->lengths + n] & LENGTH_MASK; }
static inline uint64_t *field(struct engine *e, int index) { return &e->vcpu->field[index]; }
#endif
