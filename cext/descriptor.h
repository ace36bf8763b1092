/* Descriptors, stacks and far-transfer targets: shared by the files that do what the processor does with them.
 *
 *   segment.c   reads descriptors; loads segment registers, LDTR, TR
 *   inspect.c   LAR LSL VERR VERW ARPL: looks without loading
 *   stack.c     frames on a stack segment, operands in memory, with the limit checks TCG leaves out
 *   tss.c       inner stacks, the software-interrupt redirection map, task switches (which exit)
 *   far.c       far CALL and JMP; gate.c their call gates; return.c far RET; iret.c IRET
 *   deliver.c   events: modes without gates, double faults; interrupt.c events through IDT gates
 *
 * Order in every function that can fault: look, check, write memory (accessed bits, the frame), and only
 * then change registers.
 */
#ifndef RING1_DESCRIPTOR_H
#define RING1_DESCRIPTOR_H

#include "engine.h"

enum { FAULT_UD = 6, FAULT_TS = 10, FAULT_NP = 11, FAULT_SS = 12, FAULT_GP = 13 };

enum {
    FL_TF = 1 << 8, FL_IF = 1 << 9, FL_IOPL = 3 << 12, FL_NT = 1 << 14, FL_RF = 1 << 16, FL_VM = 1 << 17,
    FL_AC = 1 << 18, FL_VIF = 1 << 19, FL_VIP = 1 << 20, FL_ID = 1 << 21, FL_ZF = 1 << 6,
};
#define FL_ARITHMETIC_AND_DF 0xcd5ull

/* Types of system descriptors. */
enum {
    SYS_TSS16 = 1, SYS_LDT = 2, SYS_TSS16_BUSY = 3, SYS_CALL16 = 4, SYS_TASK_GATE = 5, SYS_INT16 = 6, SYS_TRAP16 = 7,
    SYS_TSS32 = 9, SYS_TSS32_BUSY = 11, SYS_CALL32 = 12, SYS_INT32 = 14, SYS_TRAP32 = 15,
};
enum { TSS_BUSY = 2 };

/* Flags of a segment as real mode and V8086 mode make it. */
enum { REAL_DATA = 0x9300, REAL_CODE = 0x9b00, V8086_SEGMENT = 0xf300 };

struct descriptor {
    uint16_t selector;
    uint64_t linear;               /* where it was read */
    uint32_t low, high;
    uint32_t upper;                /* long mode's system descriptors: bits 63:32 of base or offset */
};

static inline int dpl_of(uint32_t high) { return high >> DESC_DPL_SHIFT & 3; }
static inline unsigned system_type(uint32_t high) { return high >> 8 & 15; }
static inline bool is_null(uint16_t selector) { return (selector & 0xfffc) == 0; }
static inline int rpl_of(uint16_t selector) { return selector & 3; }
static inline uint16_t with_rpl(uint16_t selector, int rpl) { return (uint16_t)((selector & 0xfffc) | rpl); }
static inline bool is_code(uint32_t high) { return (high & (DESC_S | DESC_CODE)) == (DESC_S | DESC_CODE); }
static inline bool is_conforming(uint32_t high) { return is_code(high) && (high & DESC_C); }
static inline bool is_readable(uint32_t high) { return (high & DESC_S) && (!(high & DESC_CODE) || (high & DESC_RW)); }
static inline bool is_writable(uint32_t high) { return (high & (DESC_S | DESC_CODE | DESC_RW)) == (DESC_S | DESC_RW); }

static inline uint64_t base_of(const struct descriptor *d)
{
    return (uint64_t)d->upper << 32 | (d->high & 0xff000000) | (d->high & 0xff) << 16 | d->low >> 16;
}

static inline uint32_t limit_of(const struct descriptor *d)
{
    uint32_t limit = (d->low & 0xffff) | (d->high & 0xf0000);
    return d->high & DESC_G ? limit << 12 | 0xfff : limit;
}

/* A gate's parts. */
static inline uint16_t gate_selector(const struct descriptor *d) { return (uint16_t)(d->low >> 16); }
static inline uint64_t gate_offset(const struct descriptor *d, size_t unit)
{
    uint64_t offset = (d->low & 0xffff) | (unit > 2 ? d->high & 0xffff0000 : 0);
    return unit == 8 ? offset | (uint64_t)d->upper << 32 : offset;
}

/* ---- segment.c ---- */
/* The descriptor that `selector` names; `vector` with the selector and `ext` when it lies beyond its table. */
bool read_descriptor(struct engine *e, uint16_t selector, int vector, uint32_t ext, struct descriptor *d);
/* The second half of a long-mode system descriptor. */
bool read_upper_half(struct engine *e, int vector, uint32_t ext, struct descriptor *d);
enum lookup { LOOKUP_NONE, LOOKUP_FOUND, LOOKUP_FAULT };
enum lookup look_up(struct engine *e, uint16_t selector, struct descriptor *d);
bool selector_fault(struct engine *e, int vector, uint16_t selector, uint32_t ext);
bool mark_accessed(struct engine *e, const struct descriptor *d);
void set_from_descriptor(struct engine *e, int seg, uint16_t selector, const struct descriptor *d);
void set_null(struct engine *e, int seg, uint16_t selector, int dpl);
/* As real mode (hidden limit and size stay) and V8086 mode load any segment register. */
void set_without_descriptor(struct engine *e, int seg, uint16_t selector);

/* ---- stack.c ---- */
struct stack {
    uint64_t base, mask, sp;
    uint32_t limit, flags;
    bool flat;                     /* 64-bit: no limit, canonical addresses instead */
    enum rights rights;
    uint32_t error;                /* what #SS reports */
};
struct stack current_stack(struct engine *e);
struct stack flat_stack(uint64_t sp, enum rights rights, uint32_t error);
struct stack stack_of(const struct descriptor *ss, uint64_t sp, enum rights rights, uint32_t error);
uint64_t moved_sp(const struct stack *s, int64_t by);
enum { MAX_POPPED = 36 };          /* slots */
/* Read `count` slots of `unit` bytes, beginning `skip` bytes above the top. */
bool stack_read(struct engine *e, const struct stack *s, unsigned skip, uint64_t *slots, unsigned count, unsigned unit);

struct frame { uint8_t bytes[160]; unsigned n, unit; };
void frame_push(struct frame *f, uint64_t value);
bool frame_store(struct engine *e, struct stack *s, const struct frame *f);    /* moves s->sp */

/* Memory operand of `n` bytes, beginning `delta` bytes after its address. */
bool operand_read(struct engine *e, const struct insn *i, unsigned delta, void *to, unsigned n);
bool operand_write(struct engine *e, const struct insn *i, const void *from, unsigned n);
bool operand_selector(struct engine *e, const struct insn *i, uint16_t *selector);    /* r/m16 */
void write_gpr(struct engine *e, int number, unsigned size, uint64_t value);

/* ---- tss.c ---- */
bool inner_stack(struct engine *e, int cpl, uint32_t ext, struct descriptor *ss, struct stack *s);
bool inner_stack_long(struct engine *e, int cpl, int ist, uint32_t ext, struct stack *s);
bool is_redirected_to_8086(struct engine *e, uint8_t vector, bool *redirected);
enum task_source { TASK_BY_CALL, TASK_BY_IRET, TASK_BY_JMP, TASK_BY_IDT_GATE };
/* Check the TSS that `selector` names and exit: always false. `length`: of the instruction, for the exit record. */
struct task_switch { uint16_t selector; enum task_source source; int vector; uint32_t ext; unsigned length; };
bool switch_task(struct engine *e, const struct task_switch *t);

/* ---- far.c, gate.c, return.c ---- */
bool is_64bit_target(struct engine *e, const struct descriptor *code);
bool check_code_bits(struct engine *e, const struct descriptor *code, uint32_t ext);    /* L and D */
bool check_target_offset(struct engine *e, const struct descriptor *code, uint64_t offset, uint32_t ext);
void enter_code(struct engine *e, const struct descriptor *code, int cpl, uint64_t offset);
void transfer_done(struct engine *e);
bool far_through_gate(struct engine *e, const struct insn *i, struct descriptor *gate, bool call);
uint64_t return_address(struct engine *e, unsigned length);

struct far_return {
    struct descriptor cs, ss;
    uint64_t rip, rsp;
    int cpl;
    bool outer, null_ss;           /* outer: SS:RSP come from the frame */
};
bool check_return_code(struct engine *e, uint16_t selector, struct far_return *r);
bool check_return_stack(struct engine *e, uint16_t selector, struct far_return *r);
bool mark_return(struct engine *e, const struct far_return *r);
void do_return(struct engine *e, const struct far_return *r, uint64_t inner_sp, uint64_t release);

/* ---- interrupt.c ---- */
struct delivery {
    const struct event *event;
    uint32_t ext;
    uint64_t rip, flags;           /* as the frame shows them */
};
bool deliver_through_gate(struct engine *e, const struct delivery *v);

#endif
