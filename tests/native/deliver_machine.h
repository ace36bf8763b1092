/* A small machine for deliver_*.c: tables in flat memory, a vcpu put in any mode, instructions by their bytes.
 *
 * Expected values in the checks come from the manual's pseudo-code, not from a run.
 */
#ifndef DELIVER_MACHINE_H
#define DELIVER_MACHINE_H

#include <stdio.h>
#include <stdlib.h>

#include "state.h"

enum { RAM_BYTES = 8 << 20, GDT = 0x1000, IDT = 0x2000, TSS = 0x4000, PAGES = 0x10000, CODE = 0x20000, STACK = 0x30000, USTACK = 0x38000,
       INNER = 0x40000, IST1 = 0x48000, HANDLER = 0x50000, HOLE = 0x7f000 };

/* Selectors of the GDT that machine() makes. */
enum {
    K32 = 0x08, KD = 0x10, U32 = 0x1b, UD = 0x23, K64 = 0x28, U64 = 0x33, K16 = 0x38, KD16 = 0x40, CONFORM = 0x48, ABSENT = 0x50,
    TSS_SEL = 0x58, GATE = 0x68, TSS2 = 0x78, TASK_GATE = 0x80, READ_ONLY = 0x88, DOWN = 0x90, R1 = 0x98, R1D = 0xa0, BOTH = 0xa8,
    ABSENT_DATA = 0xb0, GATE_RAW = 0xb8, ABSENT_TSS = 0xc8, LDT_SEL = 0xd0, UD16 = 0xe3, GDT_BYTES = 0xf0,
};

enum mode { REAL, V8086, PROT, LONG64, COMPAT };

extern uint8_t *ram;
extern struct engine *engine;
extern int failures, checks;

void machine(enum mode mode, int cpl);
void put(uint64_t at, uint64_t value, unsigned n);
uint64_t get(uint64_t at, unsigned n);
void set_gdt(unsigned selector, uint32_t low, uint32_t high);
void set_call_gate(unsigned selector, uint16_t code, uint64_t offset, uint32_t high);
void set_idt_gate(unsigned vector, uint16_t code, uint64_t offset, uint32_t type, int dpl, int ist);
/* Put the bytes at CS:RIP, decode them with the engine's own decoder, and do `op`. */
bool step(bool (*op)(struct engine *, const struct insn *), unsigned n, const uint8_t *bytes);
bool deliver(enum event_type type, int vector, int error, unsigned length);

void check_equal(uint64_t got, uint64_t want, const char *what, const char *file, int line);
#define EQ(got, want) check_equal((uint64_t)(got), (uint64_t)(want), #got, __FILE__, __LINE__)
#define STEP(op, ...) step(op, sizeof((uint8_t[]){__VA_ARGS__}), (uint8_t[]){__VA_ARGS__})
#define DONE(call) do { bool ok_ = (call); EQ(ok_, true); if (!ok_) show_pending(__LINE__); } while (0)
#define FAULT(call, v, err) do { struct before b_ = remember(); EQ((call), false); EQ(engine->pending.kind, PENDING_EXCEPTION); \
        EQ(engine->pending.vector, v); EQ(engine->pending.error, err); unchanged(&b_, __LINE__); } while (0)
#define TASK(call, q) do { EQ((call), false); EQ(engine->pending.kind, PENDING_EXIT); EQ(engine->pending.reason, EXIT_TASK_SWITCH); \
        EQ(engine->pending.qualification, q); } while (0)

struct before { struct core_segment segs[6], ldt, tr; uint64_t regs[16], rip, flags; int cpl; };
struct before remember(void);
void unchanged(const struct before *b, int line);
void show_pending(int line);

static inline struct core *core(void) { return engine->core; }
static inline uint64_t rsp(void) { return core()->regs[RSP]; }
static inline uint64_t flags(void) { return guest_rflags(engine); }
static inline uint16_t sel(int seg) { return guest_segment(engine, seg).selector; }

void check_loads(void);
void check_far_transfers(void);
void check_returns(void);
void check_events(void);

#endif
