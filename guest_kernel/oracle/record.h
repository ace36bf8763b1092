/* What a sequence of instructions starts with and ends with: the same on the host processor, in a guest under ring1,
 * under QEMU and under Bochs. vmm/testing/fuzz/record.py has the same layout.
 *
 * A batch is one piece of memory: a header page, code, and records. Linear addresses are the same everywhere:
 *
 *   SEQ_CODE               the batch's code, readable and executable
 *   SEQ_DATA               page 0, 1: read and write; 2: read; 3: missing; 4: read and write
 *
 * Of the data pages only six windows of 128 bytes, mostly around the borders of pages, have contents; all else is zero
 * and must stay so. */
#ifndef ORACLE_RECORD_H
#define ORACLE_RECORD_H
#include <stdint.h>

enum {
    SEQ_CODE = 0x1f000000,
    SEQ_DATA = 0x20000000,
    SEQ_PAGES = 5,
    SEQ_CODE_OFFSET = 0x1000,            /* in the batch */
    SEQ_RECORDS_OFFSET = 0x80000,
    SEQ_CODE_BYTES = SEQ_RECORDS_OFFSET - SEQ_CODE_OFFSET,
    SEQ_WINDOWS = 6,
    SEQ_WINDOW_BYTES = 128,
};

enum { SEQ_NOT_RUN, SEQ_STARTED, SEQ_DONE };

struct seq_header {
    uint32_t count, failed;              /* records; those in which the harness itself went wrong */
};

struct seq_record {
    uint32_t bits, vector, error, ran;
    uint64_t address, rip, gpr[16];      /* hardware order */
    uint64_t rflags, end_mask, fault_mask;             /* flags that are compared at the end, and at a fault */
    uint64_t status_open;                              /* bits of the x87 status word that are not */
    uint8_t fx[512];                     /* as FXSAVE has it */
    uint8_t window[SEQ_WINDOWS][SEQ_WINDOW_BYTES];
};

static const uint32_t seq_window_at[SEQ_WINDOWS] = { 0x400, 0xfc0, 0x1fc0, 0x2f80, 0x4000, 0x4800 };

enum { SEQ_BP = 3, SEQ_PF = 14, SEQ_WITH_ERROR = 0x27d00 };

/* Leave out what the architecture leaves open: where x87 instructions lay, padding, undefined flags. */
static inline void seq_normalize(struct seq_record *r)
{
    for (int i = 6; i < 24; i++)
        r->fx[i] = 0;
    for (int i = 28; i < 32; i++)
        r->fx[i] = 0;
    for (int st = 0; st < 8; st++)
        for (int i = 10; i < 16; i++)
            r->fx[32 + st * 16 + i] = 0;
    for (int i = 416; i < 512; i++)
        r->fx[i] = 0;
    r->fx[2] &= (uint8_t)~r->status_open;
    r->fx[3] &= (uint8_t)~(r->status_open >> 8);
    r->rflags &= r->vector == SEQ_BP ? r->end_mask : r->fault_mask;
    if (r->vector == SEQ_BP)
        r->rip--;
    if (r->vector != SEQ_PF)
        r->address = 0;
    if (!(SEQ_WITH_ERROR >> (r->vector & 31) & 1))
        r->error = 0;
    for (int i = 0; r->bits == 32 && i < 16; i++)
        r->gpr[i] = i < 8 ? (uint32_t)r->gpr[i] : 0;
}
#endif
