/* The record of entries and exits: what trace.c writes, and what vmm/observe/trace/records.py reads.
 *
 * A trace file is a header of TRACE_HEADER bytes that software writes, then segments of TRACE_SEGMENT bytes. A segment
 * begins with its number (from 1; 0: never used) and the bytes in use, both little-endian 64-bit words; records follow.
 * `used` is raised after a record is whole, and the segment is a shared mapping: what was written is there whatever
 * happens to the process.
 *
 * A record is some 64-bit words. The first: kind (bits 7:0), how many words (15:8), vCPU (31:16), for a note its
 * number (63:32). The second: the clock, in cycles.
 */
#ifndef RING1_TRACE_H
#define RING1_TRACE_H

#include "engine.h"

enum { TRACE_VCPUS = 256, SUMS = 1 << 13 };
enum trace_kind { TRACE_ENTER = 1, TRACE_EXIT, TRACE_NOTE };

/* What a vCPU has done since its last exit, for the sums. */
struct since_exit {
    bool out, reading;             /* it has exited; and has read no device's memory since */
    uint64_t at, reason;
    struct exit_sum *access;       /* the port or memory that it accessed, from `accessed` on */
    bool answers;                  /* a plain IN or a load is under way: its value is that of a register at the entry */
    uint32_t note, reg, size;
    uint64_t address;
    uint64_t accessed;
};

struct tracer {
    struct vcpu *vcpu[TRACE_VCPUS];
    uint32_t last;                 /* the vCPU found last */
    /* the file */
    bool writes;
    bool derives;                  /* plain accesses are noted here, from registers; software notes the others */
    uint64_t ram[8];               /* guest-physical first and end of each piece of memory */
    int descriptor;
    uint64_t first, limit, segment;    /* offset of segment 1; how many there may be (0: any); the number of the mapped one */
    uint64_t allocated;            /* segments that the file has room for */
    uint8_t *map;
    uint64_t used;
    struct trace_counters counters;
    uint64_t told[LEDGER_HEADINGS];    /* the ledger as of the last entry or exit, */
    uint64_t spent[LEDGER_HEADINGS];   /* and what each heading got between the last two */
    /* a stop of the engine that is not written yet, see stop_or_none() */
    bool stopped;
    uint32_t stopped_vcpu;
    struct exit_record stop;
    uint64_t stop_ledger[LEDGER_HEADINGS];
    uint64_t *idle;                /* the newest record, if it says how long nothing ran */
    /* the sums */
    struct exit_sum *sums;
    struct since_exit since[TRACE_VCPUS];
};

void trace_enter(struct engine *e);
void trace_exit(struct engine *e);
void trace_free(struct engine *e);

/* tracefile.c */
int trace_segment(struct tracer *t, uint64_t number);
uint64_t *trace_room(struct tracer *t, unsigned words);
void trace_commit(struct tracer *t, unsigned words);
void trace_unmap(struct tracer *t);

/* sums.c */
void sum_enter(struct tracer *t, uint32_t vcpu, uint64_t now);
void sum_exit(struct tracer *t, uint32_t vcpu, uint64_t now, uint64_t reason);
void sum_access(struct tracer *t, uint32_t vcpu, uint64_t now, uint32_t note, uint64_t key);

#endif
