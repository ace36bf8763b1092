/* The engine block: one physical CPU's insides, shared by the C files of this folder.
 *
 * Map of the folder, in the order of one instruction's way through it:
 *   binding.c     opens the libunicorn and libcapstone that the Python packages carry
 *   cpustate.c    finds Unicorn's CPU state and proves its layout
 *   engine.c      engines, the run loop, exits
 *   block.c       each translated block's record: instruction count, sensitive instructions
 *   translator.c media.c   what is corrected while TCG translates
 *   step.c        single steps: deadlines, breakpoints, blocks that do not pay
 *   fill.c tlb.c  fills of Unicorn's TLB from the modelled one
 *   walk.c ept.c  guest page walks, each table through the EPT; pml.c logs pages that get dirty
 *   vmfunc.c      EPTP switching, #VE
 *   explain.c     a walk, reference by reference
 *   mmucache.c context.c invalidate.c   paging-structure caches; whose translations they are; what drops them
 *   memory.c      guest memory accesses that the model itself makes
 *   trap.c        every trap out of translated code: what does it mean?
 *   decode.c      the trapped instruction, decoded
 *   privileged.c  what ring 0 may do and the processor does by itself
 *   segment.c far.c system.c   descriptors; far transfers, IRET; SYSCALL and friends
 *   deliver.c     exceptions and interrupts through the guest's IDT
 *   ledger.c      where each cycle went; price.c: what events cost
 *   vmcs.c        guest state in and out of the VMCS, exit records
 *   debugreg.c    breakpoints by address
 *   trace.c       entries and exits written down, for those who look on
 *
 * Conventions. A function that can fault returns bool: true = done, false = e->pending says what
 * happened instead (an exception to deliver or a VM-exit); nothing architectural was changed.
 * "Guest" values are what the guest believes (CPL 0, its own IOPL); "core" values are Unicorn's
 * (CPL 1). Only cpustate.c and mode.c translate between them.
 */
#ifndef RING1_ENGINE_H
#define RING1_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "binding.h"
#include "native.cdef.h"
#include "port.cdef.h"
#include "xen.cdef.h"
#include "vmcs_fields.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum { ES, CS, SS, DS, FS, GS, LDTR, TR };
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };

/* A segment register as Unicorn keeps it: `flags` is the descriptor's second doubleword. */
struct core_segment {
    uint32_t selector;
    uint64_t base;
    uint32_t limit;
    uint32_t flags;
};

/* The head of Unicorn's CPUX86State (QEMU 5.0's layout, proved by cpustate.c at start). */
struct core {
    uint64_t regs[16];
    uint64_t rip;
    uint64_t eflags;               /* without the condition codes and DF */
    uint64_t cc_dst, cc_src, cc_src2;
    uint32_t cc_op;
    int32_t df;
    uint32_t hflags, hflags2;
    struct core_segment segs[6];
    struct core_segment ldt, tr, gdt, idt;
    uint64_t cr[9];
};

/* hflags, by QEMU's names. */
enum {
    HF_CPL = 3, HF_INHIBIT_IRQ = 1 << 3, HF_CS32 = 1 << 4, HF_SS32 = 1 << 5, HF_ADDSEG = 1 << 6, HF_PE = 1 << 7,
    HF_MP = 1 << 9, HF_EM = 1 << 10, HF_TS = 1 << 11, HF_LMA = 1 << 14, HF_CS64 = 1 << 15,
    HF_OSFXSR = 1 << 22, HF_SMAP = 1 << 23,
};

/* Descriptor bits as they stand in core_segment.flags (second doubleword). */
enum {
    DESC_A = 1 << 8, DESC_RW = 1 << 9, DESC_C = 1 << 10, DESC_CODE = 1 << 11, DESC_S = 1 << 12,
    DESC_DPL_SHIFT = 13, DESC_P = 1 << 15, DESC_L = 1 << 21, DESC_B = 1 << 22, DESC_G = 1 << 23,
};

/* What an instruction or a delivery ran into. */
enum pending_kind { PENDING_NONE, PENDING_EXCEPTION, PENDING_EXIT };
struct pending {
    enum pending_kind kind;
    uint8_t vector;                /* PENDING_EXCEPTION */
    bool has_error;
    uint32_t error;
    uint64_t cr2;                  /* linear address, for #PF */
    uint64_t dr6;                  /* bits to set in DR6, for #DB */
    uint32_t reason;               /* PENDING_EXIT */
    uint64_t qualification, guest_linear, guest_physical, instruction_info;
    uint32_t instruction_length;
    bool suppresses_ve;            /* of an EPT violation: bit 63 of the entry */
};

/* An event on its way through the IDT; `type` as in the interruption-information field. */
enum event_type {
    EVENT_EXTERNAL = 0, EVENT_NMI = 2, EVENT_HARDWARE_EXCEPTION = 3, EVENT_SOFTWARE_INTERRUPT = 4,
    EVENT_PRIVILEGED_SOFTWARE_EXCEPTION = 5 /* ICEBP */, EVENT_SOFTWARE_EXCEPTION = 6 /* INT3, INTO */,
};
struct event {
    enum event_type type;
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t cr2;                  /* applied before a #PF is delivered */
    uint64_t dr6;                  /* applied before a #DB is delivered */
    uint32_t instruction_length;   /* of INT n, INT3, INTO, ICEBP: what to add to RIP for the frame */
};

/* Whose rights an access of the model has. */
enum rights { RIGHTS_CURRENT, RIGHTS_SYSTEM /* implicit supervisor: descriptor tables, TSS */ };
enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH };

struct engine;

/* ---- cpustate.c: the translation between guest and core values ---- */
struct core *core_of(struct engine *e);
int guest_cpl(const struct engine *e);
void set_guest_cpl(struct engine *e, int cpl);              /* also SS's DPL in the core, core CPL and IOPL */
uint64_t guest_rflags(struct engine *e);                    /* all of it: guest IOPL, no TF of ours */
void set_guest_rflags(struct engine *e, uint64_t value);    /* all of it, no checks; bit 1 forced */
/* Load a segment register's visible and hidden parts. `seg` ES..GS, LDTR, TR. `flags` as a descriptor's second
 * doubleword (DPL as the guest wrote it); DESC_P clear = null/unusable. Does not change CPL. */
void set_segment(struct engine *e, int seg, uint16_t selector, uint64_t base, uint32_t limit, uint32_t flags);
struct core_segment guest_segment(struct engine *e, int seg);   /* flags with the guest's DPL */
void sync_mode(struct engine *e);                           /* recompute hflags after CR0/CR4/EFER/CS/SS/RFLAGS.VM/CPL changed */
bool in_real_mode(const struct engine *e);                  /* CR0.PE = 0 */
bool in_v8086(struct engine *e);
bool in_long_mode(const struct engine *e);                  /* EFER.LMA */
bool in_64bit_code(const struct engine *e);                 /* CS.L with EFER.LMA */
int code_bits(const struct engine *e);                      /* 16, 32, 64 */
int stack_bits(const struct engine *e);                     /* 16, 32, 64: how wide SP is */
struct vcpu *vcpu_of(struct engine *e);                     /* star, lstar, fmask, kernel_gs_base, dr[], dr6, cr2 live there while it runs */
uint64_t vmcs_read(struct engine *e, int field);            /* VMCS_* dense index */
void block_events_for_one_instruction(struct engine *e, bool by_mov_ss);   /* STI / MOV SS shadow */
void clear_event_shadow(struct engine *e);
void set_nmi_blocking(struct engine *e, bool blocked);      /* IRET clears it */

/* ---- memory.c ---- */
bool mem_read(struct engine *e, uint64_t linear, void *to, size_t n, enum rights rights);
bool mem_write(struct engine *e, uint64_t linear, const void *from, size_t n, enum rights rights);
bool mem_check(struct engine *e, uint64_t linear, size_t n, enum access access, enum rights rights);  /* would it fault? */
bool mem_fetch(struct engine *e, uint64_t linear, void *to, size_t n);
bool is_canonical(const struct engine *e, uint64_t linear);
bool fits_register(const struct engine *e, uint64_t linear);   /* canonical, where an address is only kept */

/* ---- raising: both return false so that `return raise_fault(...)` reads well ---- */
bool raise_fault(struct engine *e, int vector, uint32_t error);      /* with error code if the vector has one */
bool raise_exit(struct engine *e, uint32_t reason, uint64_t qualification);

/* ---- decode.c ---- */
struct insn {                      /* one decoded instruction, cached by address and bytes */
    uint16_t id;                   /* X86_INS_* of capstone */
    uint8_t length, bits;          /* bytes; code size 16/32/64 */
    uint8_t opcode[4];             /* opcode bytes without prefixes */
    uint8_t operand_size;          /* 2, 4, 8: effective operand size by mode, 66, REX.W */
    uint8_t address_size;          /* 2, 4, 8 */
    uint8_t prefix_rep, prefix_lock;   /* 0, 0xf2, 0xf3; 0 or 0xf0 */
    bool sensitive;                /* must trap although TCG would run it */
    bool useless_vex;              /* one where only AVX has it: invalid */
    bool defective;                /* TCG computes it wrongly (defects.c) */
    uint8_t rex, modrm;
    int8_t modrm_reg, modrm_rm;    /* register numbers with REX applied; rm register when is_memory is false */
    bool has_modrm, is_memory;
    bool reads_and_writes;         /* the memory operand is both source and destination */
    bool memory_written;
    uint16_t memory_size;          /* bytes; 0 where capstone does not say */
    bool uses_stack;               /* PUSH, POP, CALL, RET and the like */
    int8_t seg, base, index, scale;    /* memory operand: segment ES..GS (default applied), GPR numbers or -1, -2 = RIP */
    int64_t disp;
    uint64_t immediate;            /* first immediate; far pointers: offset, selector in immediate2 */
    uint16_t immediate2;
};
const struct insn *decode_at_rip(struct engine *e);         /* NULL: e->pending is set (#UD, #PF of the fetch) */
uint64_t operand_address(struct engine *e, const struct insn *i);     /* linear, segment base added, wrapped to the mode */
uint64_t effective_address(struct engine *e, const struct insn *i);   /* the offset alone */
void advance_rip(struct engine *e, const struct insn *i);   /* past it, wrapped to the code size; clears RF and the shadow */

/* ---- segment.c: descriptors ---- */
/* Load a data or stack segment register as MOV/POP/LxS do in the current mode: all checks, #GP/#NP/#SS with selector. */
bool load_segment_register(struct engine *e, int seg, uint16_t selector);
bool load_ldtr(struct engine *e, uint16_t selector);
bool load_tr(struct engine *e, uint16_t selector);
bool op_lar_lsl_verr_verw(struct engine *e, const struct insn *i);    /* and ARPL outside 64-bit mode */
bool op_move_to_segment(struct engine *e, const struct insn *i);      /* MOV Sreg; POP Sreg; LDS LES LFS LGS LSS */

/* ---- far.c: far CALL/JMP/RET and IRET, all modes ---- */
bool op_far_call(struct engine *e, const struct insn *i);
bool op_far_jump(struct engine *e, const struct insn *i);
bool op_far_return(struct engine *e, const struct insn *i);
bool op_iret(struct engine *e, const struct insn *i);

/* ---- system.c ---- */
bool has_syscall(struct engine *e);    /* false: with #UD raised */
bool has_sysenter(struct engine *e);
bool op_syscall(struct engine *e, const struct insn *i);
bool op_sysret(struct engine *e, const struct insn *i);
bool op_sysenter(struct engine *e, const struct insn *i);
bool op_sysexit(struct engine *e, const struct insn *i);

/* ---- deliver.c ---- */
/* One attempt to deliver; false = e->pending is what it ran into (a fault, or a VM-exit such as TASK_SWITCH or
 * EPT_VIOLATION). Nothing of the guest's register state is changed on failure. */
bool deliver_event(struct engine *e, const struct event *event);
/* What follows when `second` is raised while `first` was being delivered (manual: "Conditions for Generating a
 * Double Fault"): the event to deliver next; false = shut down (triple fault). */
struct event event_of(const struct pending *p);
bool combine_events(const struct event *first, const struct pending *second, struct event *next);

#endif
