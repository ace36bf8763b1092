/* The whole interface of hwmodel._native: read by cffi and included by the C files.
 *
 * A `struct engine` is one physical CPU: a Unicorn engine, a modelled TLB and a cycle count.
 * A `struct vcpu` is what one virtual CPU is while it does not run: its VMCS and the registers that
 * software switches. engine_enter() loads a vcpu, runs it until something must be handled by
 * software, saves it, and says why it stopped: the shape of KVM_RUN.
 */
/* Why engine_enter() came back, beyond the architecture's exit reasons (which are < 0x100). */
enum {
    STOP_DEADLINE = 0x100,     /* the clock has reached `until` */
    STOP_INTERRUPTED = 0x101,  /* engine_interrupt() was called */
    STOP_INTERNAL = 0x102,     /* the engine cannot go on; engine_message() says why */
    STOP_VM_FAIL = 0x103,      /* no entry: VMfailValid; the qualification is the VM-instruction error */
    STOP_VMX_ABORT = 0x104,    /* no exit could be made: the qualification is the VMX-abort indicator */
    /* What a debugger asked for (stops.c): */
    STOP_TARGET = 0x105,       /* so many steps have been made */
    STOP_BREAKPOINT = 0x106,   /* at an instruction, before it */
    STOP_WATCHPOINT = 0x107,   /* behind an instruction that touched memory */
    STOP_EXIT = 0x108,         /* an exit, as the record says, before its handler */
};
/* What the processor's VT-x allows (hwmodel/vmx/capabilities.py says it). Words in the layout of the MSRs. */
enum { CONTROLS_PIN, CONTROLS_PRIMARY, CONTROLS_SECONDARY, CONTROLS_TERTIARY, CONTROLS_EXIT, CONTROLS_EXIT2, CONTROLS_ENTRY, CONTROL_WORDS };
struct vmx_capabilities {
    uint64_t must_be_1[7], may_be_1[7];        /* by CONTROLS_* */
    uint64_t basic, misc, ept_vpid, vm_functions;
    uint64_t cr0_fixed0, cr0_fixed1, cr4_fixed0, cr4_fixed1;
    uint64_t efer_bits, debugctl_bits, pending_debug_bits;     /* that may be set */
    uint64_t physical_bits, linear_bits;
    uint64_t root_is_long_mode;
};

/* What a guest of the trap technique asked for, beyond the instructions that have an exit reason of their own. */
enum {
    OPERATION_CLI = 0x80, OPERATION_STI, OPERATION_PUSHF, OPERATION_POPF, OPERATION_IRET, OPERATION_LGDT, OPERATION_LIDT,
    OPERATION_LLDT, OPERATION_LTR, OPERATION_SGDT, OPERATION_SIDT, OPERATION_SLDT, OPERATION_STR, OPERATION_SMSW,
    OPERATION_SWAPGS, OPERATION_SYSCALL, OPERATION_SYSRET, OPERATION_SYSENTER, OPERATION_SYSEXIT, OPERATION_CLAC,
    OPERATION_STAC, OPERATION_INT
};

/* One exit, as the VMCS exit-information fields would show it. 64-bit words in this order. */
struct exit_record {
    uint64_t reason;               /* basic exit reason, or STOP_* */
    uint64_t qualification;
    uint64_t instruction_length;   /* bytes */
    uint64_t guest_linear;
    uint64_t guest_physical;
    uint64_t interruption_info;
    uint64_t interruption_error;
    uint64_t idt_vectoring_info;
    uint64_t idt_vectoring_error;
    uint64_t instruction_info;
    uint64_t rip;
    uint64_t instructions;         /* retired on this engine since it was made */
    uint64_t cycles;               /* the engine's clock */
    uint64_t sequence;             /* number of this exit on this engine, from 1 */
    uint64_t operation;            /* under the trap technique: what instruction it was, an exit reason or OPERATION_*; else 0 */
};

/* Where each cycle went: see ledger.h. */
enum ledger_heading {
    LEDGER_GUEST, LEDGER_WALK, LEDGER_EXIT, LEDGER_ENTRY, LEDGER_HYPERVISOR, LEDGER_DEVICE, LEDGER_INJECTION, LEDGER_STEAL, LEDGER_IDLE,
    LEDGER_HEADINGS,
};
enum { REASONS = 160 };            /* basic exit reasons are below 0x80, OPERATION_* above */
struct ledger {
    uint64_t cycles[9];            /* by heading */
    uint64_t exits[160];           /* by exit reason or operation: how many, and what they cost from exit to entry */
    uint64_t exit_cycles[160];
    uint64_t work;                 /* of a processor: guest time in 1/64 cycle, kept under --timing cycle */
};

/* The part of a virtual CPU that the VMCS does not hold. */
struct vcpu {
    uint64_t gpr[16];              /* hardware order; [4] mirrors GUEST_RSP on exit and is ignored on entry */
    uint64_t field[256];           /* the VMCS, by the dense indexes of vmcs_fields.h */
    uint64_t dr[4];
    uint64_t dr6;
    uint64_t cr2;
    uint64_t cr8;                  /* task priority as MOV CR8 sees it, when no TPR shadow is used */
    uint64_t star, lstar, cstar, fmask, kernel_gs_base;
    uint64_t tsc_aux;
    uint64_t pkru;
    uint64_t retire;               /* instructions that software completed for the guest: booked at the next entry */
    /* About the instruction that exited, for software that carries it out; valid until the next entry. */
    uint64_t code_size, cpl;       /* 16, 32 or 64; 0 to 3 */
    uint64_t code_bytes;           /* how many bytes of code could be read at RIP, up to 15 */
    uint8_t code[16];              /* for EPT_VIOLATION and IO_INSTRUCTION */
    /* A decode assist for the commonest access to a device, a plain MOV: bytes moved (0: something else), direction,
     * general register read into or value written. The address is the exit's. */
    uint64_t mov_size, mov_writes, mov_register, mov_value;
    uint8_t fpu[5120];             /* x87, MMX and SSE state, the engine's layout */
    uint64_t fpu_bytes;            /* how much of it is used; 0 = reset state */
    uint64_t launched;             /* the VMCS's launch state: 0 clear, 1 launched */
    /* Left by a stop, not by an exit: to the architecture the guest has run on. */
    uint64_t paused;
    uint64_t kept[3];              /* fields that no control saves: what they read before the entry (leave.c) */
    uint64_t efer_before;          /* IA32_EFER likewise */
    uint64_t timer_expires;        /* cycle of the VMX-preemption timer's end */
    uint64_t pause_seen, pause_first, pause_last;  /* cycles of PAUSEs since the entry */
    uint64_t random;               /* state of RDRAND and RDSEED where they do not exit */
    uint64_t region;               /* its physical address, or ~0 where it has none */
    /* The trap technique (deprivileged.c): 1 on, 2 on without replacing what is sensitive (the classic problem); and whether
     * the IRET at that RIP may run, software having seen it. */
    uint64_t deprivileged, permitted, permitted_rip;
    uint64_t stretch_start, stretch_at, stretch_done, stretch_in_rep, stretch_late;    /* and how far it was in what is priced together, cycles lost in it */
    uint8_t stretch_code[960], stretch_lengths[64];    /* and what code that was, by instructions */
    uint64_t left[4];              /* CR0, CR3, CR4, EFER at the last exit: translations may be cached for those */
    uint64_t open_exit;            /* basic reason + 1 of the exit that no entry has followed yet; 0: none */
    uint64_t xen;                  /* Xen PV: its number in the domain, plus 1 */
    struct ledger ledger;          /* its own part of the processor's */
};

/* The CPU model's part in translation. Each cache: `sets` (a power of two) of `ways`. */
struct cache_geometry { uint32_t sets, ways; };
struct tlb_geometry { uint32_t level, kinds, sizes, sets, ways; };     /* bits: 1 data, 2 code; 1 4K, 2 2M, 4 1G */
struct paging_model {
    uint32_t physical_bits;        /* MAXPHYADDR, 32 to 52 */
    uint32_t linear_bits;          /* the most that it can use: 48, or 57 */
    uint32_t has_1g;
    uint32_t level_count;
    struct tlb_geometry level[8];
    struct cache_geometry structure[4];        /* paging-structure caches: PDE, PDPTE, PML4E, PML5E */
    struct cache_geometry nested;              /* guest-physical mappings */
};
/* How closely the TLB is modelled; see tlb.c. */
enum tlb_fidelity { TLB_LARGE, TLB_SHARED, TLB_SPLIT, TLB_DATA };

/* By page size: 4K, 2M, 1G. Hits of the level that Unicorn's own TLB stands on are not counted: see tlb.c. */
struct mmu_counters {
    uint64_t misses[3];            /* walks that ended in an entry */
    uint64_t level2_hits[3];       /* misses of the first level, told apart by TLB_SPLIT only */
    uint64_t guest_references, ept_references;
    uint64_t structure_hits[4];    /* walks that began at a cached PDE, PDPTE, PML4E, PML5E */
    uint64_t nested_hits, nested_misses;
    uint64_t loads_cr3;            /* all, and those that invalidated: */
    uint64_t flushes_cr3, flushes_invlpg, flushes_invpcid, flushes_cr0, flushes_cr4;
    uint64_t flushes_entry;        /* entries and exits without VPID, or with another paging mode */
    uint64_t flushes_invvpid, flushes_invept;
};

/* One memory reference of a walk. */
enum walk_kind { WALK_GUEST, WALK_EPT };
enum walk_cache { WALK_BY_MEMORY, WALK_BY_TLB, WALK_BY_STRUCTURE_CACHE, WALK_BY_NESTED_TLB };
enum walk_verdict { WALK_GOES_ON, WALK_LEAF, WALK_PAGE_FAULT, WALK_EPT_VIOLATION, WALK_MISCONFIGURED };
struct walk_reference {
    uint32_t kind;                 /* enum walk_kind */
    uint32_t level;                /* guest: log2 of what an entry covers (12, 21, 22, 30, 39, 48); EPT: 1 to 5 */
    uint64_t gpa;                  /* guest: of the entry; EPT: the address being translated */
    uint64_t hpa;                  /* of the entry */
    uint64_t entry;
    uint32_t cache;                /* enum walk_cache: what would have saved this reference */
    uint32_t verdict;              /* enum walk_verdict */
};

/* How a walk ended: `result` 0: hpa; 1: exception `vector` with `error`; 2: VM-exit `reason`. */
struct walk_outcome {
    uint32_t result, vector, error, reason;
    uint64_t qualification;
    uint64_t gpa, hpa;             /* gpa: translated, or what the exit was for */
    uint32_t rights, shift;        /* TLB_* of cext/mmu.h; log2 of the size of the mapping */
    uint32_t count;                /* references made; as many as there was room for are recorded */
};

/* How the time-stamp counter goes: at cycle `since` it read `value`, and it makes `ticks` in `cycles` cycles. */
struct tsc_rate { uint64_t since, value, ticks, cycles; };

/* What events cost, in cycles; by a CPU model and what is known of hypervisors on it. */
struct event_costs {
    uint64_t vm_exit, vm_entry;    /* the hardware's part */
    uint64_t handler[160];         /* by exit reason or operation: software, with its VMREADs and VMWRITEs */
    uint64_t exception, interrupt; /* delivery through the IDT: of a fault; of an interrupt, INT n, INT3 */
    uint64_t syscall, sysret, write_cr8;           /* beyond what the block's table has for them */
    uint64_t kick;                 /* to make a running guest take an event */
    uint64_t far_device;           /* a device that is modelled in user space, beside its handler */
    uint64_t latency[4];           /* a walk's reference: first, second, third cache level, memory */
    uint64_t structure_hit, nested_hit, level2_hit, mispredict;
    uint64_t bare;                 /* 1: on bare metal, where no nested table is walked */
    struct cache_geometry line[3]; /* what page tables have of the caches; `sets` of any number, 0: there is none */
    uint64_t near_port[8][2], near_memory[4][2];   /* devices that are not far, first and last address */
    uint32_t near_ports, near_memories;
};

struct engine_counters {
    uint64_t exits, entries;
    uint64_t resolved;             /* traps that the processor model resolved without an exit */
    uint64_t delivered;            /* events delivered through the guest's IDT */
    uint64_t tlb_fills, tlb_walks, tlb_flushes, tlb_page_flushes;
    uint64_t blocks_seen;          /* translated blocks */
    uint64_t hooked;               /* blocks translated again because of a sensitive instruction */
    uint64_t priced;               /* blocks whose cost was computed */
    uint64_t inlined;              /* blocks whose hook was replaced by its fast way */
    uint64_t drops;                /* times that all translations were dropped, their room nearly used up */
    uint64_t steps;                /* single steps taken to land an event exactly */
    uint64_t patched, patched_sites;   /* trap technique: replaced instructions, executed and translated */
    uint64_t privilege_slips;      /* blocks that were caught before they ran at CPL 0 */
    uint64_t code_pages, demotions;
};

/* Binding and probes. All return 0 on success, else -1 with binding_error(). */
int bind_libraries(const char *unicorn_path, const char *capstone_path);
const char *binding_error(void);
unsigned unicorn_version(void);
unsigned capstone_version(void);
int probe_count(void);
const char *probe_name(int index);
int64_t probe_value(int index);

/* Engines. `ram` is machine memory (host-physical 0..size), owned by the caller. */
struct engine *engine_create(uint8_t *ram, uint64_t size);
void engine_destroy(struct engine *engine);
const char *engine_message(const struct engine *engine);

/* 0, or -1 for a model that is not sound or memory that is not to be had. Forgets all translations. */
int engine_set_paging(struct engine *engine, const struct paging_model *model, uint32_t fidelity);
void engine_set_maker(struct engine *engine, int is_amd);
void engine_set_tsc(struct engine *engine, const struct tsc_rate *rate);
int engine_set_prices(struct engine *engine, const struct event_costs *costs);     /* charge for events; NULL: --timing fast. -1: no memory */
/* Machine memory in [from, to) is of this processor's node; what needs a walk elsewhere costs `far` cycles more. */
void engine_set_near(struct engine *engine, uint64_t from, uint64_t to, uint32_t far);
/* --timing detailed: look at every data access and every branch from now on; before the first entry. -1: Unicorn refuses.
 * Misses: lines that were not in the first level; in no level up to the second; in none. Branches: that are guessed at all. */
struct detail_counters { uint64_t loads, stores, misses[3], branches, mispredicted; };
int engine_set_detailed(struct engine *engine);
const struct detail_counters *engine_detail_counters(const struct engine *engine);
const struct mmu_counters *engine_mmu_counters(const struct engine *engine);
/* Dirty log: one bit a machine page, set when the guest may have written to it; ram_size / 4096 / 64 words. */
uint64_t *engine_dirty_log(struct engine *engine);
void engine_harvest_dirty(struct engine *engine);  /* after clearing bits of the log: writes are logged afresh */
/* Make each page of the dirty log below `pages` what it is in `mirror`, and clear the log; how many those were. */
uint64_t engine_revert(struct engine *engine, const uint8_t *mirror, uint64_t pages);
/* The host wrote [hpa, hpa+size) (a device's DMA, the debugger): drop code translated from it. */
void engine_host_wrote(struct engine *engine, uint64_t hpa, uint64_t size);
/* Let an engine that has not run yet be another processor of the machine that `other` belongs to: the same memory. */
void engine_join(struct engine *engine, struct engine *other);
void engine_flush_tlb(struct engine *engine);      /* every cached translation of every context */
int engine_invvpid(struct engine *engine, uint32_t type, uint32_t vpid, uint64_t linear);     /* by its types, as INVEPT; -1: there is no such */
int engine_invvpid_here(struct engine *engine, uint32_t type, uint32_t vpid, uint64_t linear);    /* on one processor alone */
int engine_invept(struct engine *engine, uint32_t type, uint64_t eptp);
void engine_invalidate_page(struct engine *engine, uint64_t linear);   /* INVVPID 0 of the VPID that ran last */

/* Run `vcpu` until an exit, or until the engine's clock reads `until` cycles, exactly. */
uint64_t engine_enter(struct engine *engine, struct vcpu *vcpu, uint64_t until, struct exit_record *record);   /* record->operation, else ->reason */
/* The checks of an entry, in the manual's order. Which one failed last, or -1; `skip` >= 0 leaves one out (make mutate). */
void engine_set_capabilities(struct engine *engine, const struct vmx_capabilities *capabilities);
int entry_check_count(void);
const char *entry_check_name(int index);
int entry_check_passes(const struct engine *engine, const struct vcpu *vcpu, int index);
int engine_failed_check(const struct engine *engine);
void engine_skip_check(struct engine *engine, int index);
/* Make every check at every entry, also where nothing has changed since the last one: the same result, and slower. */
void engine_check_always(struct engine *engine, int always);
void engine_interrupt(struct engine *engine);    /* from a signal handler or another thread */
uint64_t engine_instructions(const struct engine *engine);
uint64_t engine_cycles(const struct engine *engine);
/* This processor's own pins: an external interrupt (-1 takes it back) and an NMI, pending until they are taken. */
void engine_raise_interrupt(struct engine *engine, int vector);
void engine_raise_nmi(struct engine *engine);
void engine_raise_init(struct engine *engine);
/* Virtual time that passes without instructions, by heading: idle (no vcpu), devices, handlers. `reason`: the exit that it is
 * part of, or REASONS. Returns the clock. */
uint64_t engine_book(struct engine *engine, struct vcpu *vcpu, uint32_t heading, uint64_t cycles, uint32_t reason);
/* Book now what software completed for this vcpu, instead of at its next entry. Returns the clock. */
uint64_t engine_settle(struct engine *engine, struct vcpu *vcpu);
void engine_set_clock(struct engine *engine, uint64_t instructions, uint64_t cycles);     /* behind the ledger */
/* The table that blocks are priced by (cost_table_name()); NULL: an instruction is a cycle. Not while translations are held
 * that were priced by another: call it before the first entry. -1: there is none of that name. */
int engine_set_costs(struct engine *engine, const char *table);
void engine_limit_instructions(struct engine *engine, uint64_t most);      /* stop when so many have retired, with the events delivered */
/* Instructions without a row, which cost the stated default (hwmodel/timing/tables/overlay.toml): a specimen of each form,
 * and in how many translated blocks it stood. Returns how many there are. */
enum { UNKNOWN_COSTS = 64 };
struct unknown_cost { uint8_t code[16]; uint32_t length, bits, blocks, form; };
uint32_t engine_unknown_costs(const struct engine *engine, struct unknown_cost *to);
/* Price `count` instructions, one after another from an address within a page; in 1/64 cycle, 0: no such table. */
uint32_t cost_of_block(const char *table, const uint8_t *code, const uint8_t *lengths, uint32_t count, int bits);
const char *cost_table_name(int index);            /* NULL behind the last */
struct ledger *engine_ledger(struct engine *engine);       /* the headings sum to the clock */
const struct engine_counters *engine_counters(const struct engine *engine);
/* Exits by basic reason (REASONS counts), and the newest HISTORY of them: number n stands at [n % HISTORY]. */
enum { HISTORY = 1024 };
const uint64_t *engine_exits_by_reason(const struct engine *engine);
const struct exit_record *engine_history(const struct engine *engine);
/* Which exits every engine of this process has seen, from now on: by reason the qualification's bits that tell classes apart.
 * A key is class << 16 | reason << 4 | mode. */
void exit_coverage_start(const uint64_t *masks);   /* REASONS of them */
uint32_t exit_coverage(uint64_t *keys, uint32_t room);

/* Tracing: every entry and exit is written to a file, or added to sums; nothing is attached at first. See trace.c. */
enum { TRACE_HEADER = 4096, TRACE_SEGMENT = 1 << 20, TRACE_VERSION = 1 };
/* What software tells of; `a`, `b`, `c` as vmm/observe/trace/records.py says. The first four feed the sums as well. */
enum trace_note_kind {
    NOTE_PORT_IN, NOTE_PORT_OUT, NOTE_MMIO_READ, NOTE_MMIO_WRITE, NOTE_ACCEPT, NOTE_EOI, NOTE_LINE, NOTE_VIRTIO_NOTIFY,
    NOTE_VIRTIO_INTERRUPT, NOTE_KICK, NOTE_HALT, NOTE_WAKE, NOTE_SWITCH, NOTE_IDLE, NOTE_MSI,
};
struct trace_counters {
    uint64_t records;              /* written */
    uint64_t lost;                 /* not written, for want of room */
    uint64_t error;                /* errno of what went wrong with the file, 0: nothing */
    uint64_t segments;             /* begun */
    uint64_t sums_lost;            /* not summed up, for want of a place */
    uint64_t injected_interrupts, injected_nmis, injected_exceptions;
    uint64_t price[9];             /* by heading: what the last exit cost when it was made, and the last entry */
};
/* What perf kvm stat keeps of one event: `event` 0 exits by reason, 1 MMIO by address, 2 ports; `writes` of an access. */
struct exit_sum {
    uint64_t key;
    uint32_t event, writes, vcpu, taken;
    uint64_t count, cycles, least, most;
    double mean, squares;
};
void engine_trace_vcpu(struct engine *engine, struct vcpu *vcpu, uint32_t number);
/* Write to a file from offset TRACE_HEADER on; `segments`: how many at most, the newest stay (0: no limit). 0, or errno. */
int engine_trace_start(struct engine *engine, int descriptor, uint64_t segments);
int engine_sums_start(struct engine *engine);      /* 0, or errno */
const struct exit_sum *engine_sums(const struct engine *engine, uint32_t *room);   /* count 0: an empty place */
void engine_trace_note(struct engine *engine, uint32_t note, uint32_t vcpu, uint64_t a, uint64_t b, uint64_t c);
/* Note plain accesses (IN, OUT, the MOVs of the decode assist) without being told: software then notes others only. `ram`:
 * up to four pieces of guest memory, first address and end; an EPT violation there is no device's. */
void engine_trace_derive(struct engine *engine, const uint64_t ram[8]);
const struct trace_counters *engine_trace_counters(const struct engine *engine);   /* NULL: nothing is attached */
void engine_trace_settle(struct engine *engine);    /* write what waits for the next entry: the run is over */
void engine_trace_stop(struct engine *engine);

/* Guest memory as the vcpu's current mode sees it. `access`: 0 read, 1 write, 2 fetch.
 * 0: fine. 1: page fault or #GP/#SS: fault[0] vector, [1] error code, [2] linear address.
 * 2: no memory there (EPT violation): fault[0] guest-physical address, [1] linear address. */
int vcpu_access(struct engine *engine, struct vcpu *vcpu, uint64_t linear, uint8_t *buffer, uint64_t size,
                int access, int user, uint64_t fault[3]);
/* Translate without any side effect: 0 and *gpa, or as vcpu_access(). */
int vcpu_translate(struct engine *engine, struct vcpu *vcpu, uint64_t linear, int access, int user,
                   uint64_t *gpa, uint64_t fault[3]);
/* Walk as for an access and record every reference, with what would have saved it. Without `effects` nothing changes
 * and no cache is asked; with them it is the real walk: flags are set, caches serve and are filled. */
void vcpu_explain_walk(struct engine *engine, struct vcpu *vcpu, uint64_t linear, int access, int user, int effects,
                       struct walk_reference *references, uint32_t room, struct walk_outcome *outcome);
/* The same for a guest-physical address: what the EPT makes of it. Nothing changes. */
void vcpu_explain_gpa(struct engine *engine, struct vcpu *vcpu, uint64_t gpa, int access,
                      struct walk_reference *references, uint32_t room, struct walk_outcome *outcome);
/* For `ring1 bench`: `rounds` translations of one address. `how` 0: every reference from memory; 1: by the caches of
 * walks; 2: found in the modelled TLB. Returns the sum of the addresses found. */
uint64_t vcpu_repeat_walk(struct engine *engine, struct vcpu *vcpu, uint64_t linear, uint64_t rounds, int how);
/* Power-up state (manual: "Processor State After Reset"). */
void vcpu_reset(struct vcpu *vcpu);
/* Move RIP past an instruction that software carried out: wrapped to the code size, RF and the shadow cleared, the
 * instruction booked, a single-step trap pending if TF is set. */
void vcpu_skip(struct vcpu *vcpu, uint64_t length);
void vcpu_skip_exit(struct vcpu *vcpu);            /* by VM_EXIT_INSTRUCTION_LEN */
void engine_forget_vcpu(struct engine *engine, struct vcpu *vcpu);
/* Bring what the engine keeps lazily (x87/SSE) into *vcpu. */
void engine_sync(struct engine *engine, struct vcpu *vcpu);
/* FPU and SSE state in architectural form: XMM registers (16 x 16 bytes), FXSAVE-like words. */
void vcpu_get_xmm(struct engine *engine, struct vcpu *vcpu, int index, uint8_t value[16]);
void vcpu_set_xmm(struct engine *engine, struct vcpu *vcpu, int index, const uint8_t value[16]);
void vcpu_fxsave(struct engine *engine, struct vcpu *vcpu, uint8_t image[512]);
void vcpu_fxrstor(struct engine *engine, struct vcpu *vcpu, const uint8_t image[512]);  /* as vcpu_fxsave() wrote it */

/* Decode one instruction (for messages and the Python handlers): its length, 0 if it is none. */
int decode_length(const uint8_t *code, uint64_t size, int bits);
/* Likewise of an instruction of 64-bit code that the engine does not look at any further; 0: it does (plain.c). */
int decode_plain(const uint8_t *code, uint64_t size);

/* ---- stops.c: where a debugger wants the guest to stop ---- */

enum stops_mode { STOPS_OFF, STOPS_STOP, STOPS_RECORD };       /* record: go on, and keep the newest hits */
enum { WATCH_READS = 1, WATCH_WRITES = 2 };
enum { HIT_NONE, HIT_CODE, HIT_DATA, HIT_EXIT };
struct stop_hit {
    uint64_t id, kind;             /* of the breakpoint; HIT_* */
    uint64_t steps, exits, cycles; /* when: at the instruction, behind the access, at the exit */
    uint64_t address, size, writes;        /* what was touched; the first byte that is watched */
};
/* Steps: instructions retired and events delivered, `others` of them not booked yet (halted virtual CPUs'). The target is
 * none at ~0. Breakpoints at `pass` steps have been seen. */
uint64_t engine_steps(const struct engine *engine);
void engine_stop_target(struct engine *engine, uint64_t steps, uint64_t others);
void engine_stop_pass(struct engine *engine, uint64_t steps);
/* Lists: 0, or -1 for a program that is not sound or memory that is not to be had. Physical addresses are the host's. */
void engine_stops_clear(struct engine *engine);
int engine_stop_at_code(struct engine *engine, uint64_t id, int physical, uint64_t address);
int engine_stop_at_data(struct engine *engine, uint64_t id, int physical, uint64_t address, uint64_t size, uint32_t kinds);
/* Exits by two programs of (operation, argument) pairs: `match` says which are counted, `when` which of those stop; an empty
 * program holds always. `reasons`: a bitmap of those that `match` can hold for. `count`: met so often before. */
int engine_stop_at_exit(struct engine *engine, uint64_t id, const uint64_t reasons[3], const uint64_t *match, uint32_t match_words,
                        const uint64_t *when, uint32_t when_words, uint64_t count);
uint64_t engine_stop_count(const struct engine *engine, uint64_t id);
void engine_stops_arm(struct engine *engine, uint32_t mode, int renew);
/* How many hits there were since then; number so, from 1, or NULL: only the newest are kept. */
uint64_t engine_stop_hits(const struct engine *engine);
const struct stop_hit *engine_stop_hit(const struct engine *engine, uint64_t number);
/* Behind a handler, as of `steps` and `cycles`: 1 if watched memory was touched. */
int engine_stop_settle(struct engine *engine, uint64_t steps, uint64_t cycles);

/* keep.c: caches of translations, counts, newest exits; for checkpoints that nobody notices */
uint64_t engine_kept_bytes(struct engine *engine);
void engine_keep(struct engine *engine, uint8_t *bytes);
void engine_put_back(struct engine *engine, const uint8_t *bytes);
