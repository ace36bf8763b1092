/* Unicorn's own TLB, read and written in place (micro.c); QEMU's structures as version 2.1.4 of Unicorn has them. */
#ifndef RING1_MICRO_H
#define RING1_MICRO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;

enum { MICRO_INDEXES = 3, MICRO_VICTIMS = 8 };     /* ring 0 with SMAP, ring 3, ring 0 without */

struct micro_entry {               /* CPUTLBEntry: page addresses with flags, all ones: no such access */
    uint64_t read, write, code, paddr, addend, unused[3];
};
struct micro_io { uint64_t addr, attributes; };
struct micro_index {               /* CPUTLBDesc */
    uint64_t large_address, large_mask, window_begin, window_most, used, victims_used;
    struct micro_entry victims[MICRO_VICTIMS];
    struct micro_io victims_io[MICRO_VICTIMS];
    struct micro_io *io;
};
struct micro_table { uint64_t mask; struct micro_entry *entries; };    /* mask: of a byte offset */
struct micro_tlb {                 /* CPUTLB; it ends 16 bytes before the CPU state */
    uint64_t dirty;                /* low half word: indexes that are not empty */
    uint64_t flushes[3];
    struct micro_index index[MICRO_INDEXES];
    uint64_t padding;
    struct micro_table table[MICRO_INDEXES];
};
enum { MICRO_END = 16 };

static inline struct micro_tlb *micro_of(char *env) { return (struct micro_tlb *)(void *)(env - MICRO_END - sizeof(struct micro_tlb)); }

enum { NONGLOBAL_MAX = 256, EXECUTABLE_WORDS = 64 };
struct micro {
    struct micro_tlb *tlb;
    void *region;                  /* Unicorn's name for machine memory */
    uint64_t nonglobal[NONGLOBAL_MAX];             /* pages that it may hold, and the index in the low bits */
    uint64_t executable[EXECUTABLE_WORDS];         /* filter: pages whose code it may know */
    uint32_t nonglobal_count;
};

bool micro_open(struct engine *e);                 /* false: the library keeps its TLB in another way */
/* Unicorn's TLB only: the model keeps its entries. */
void micro_flush(struct engine *e);
void micro_flush_nonglobal(struct engine *e);
void micro_flush_page(struct engine *e, uint64_t linear);

#endif
