/* Page tables and address spaces, lazily: changes are collected while nobody can see them.
 *
 * mmu_begin() ... mmu_end() brackets changes; in between, page-table entries hold their old values,
 * so whoever looks must look through mmu_read().  A change of CR3 joins the batch, and is not made
 * at all for a thread that touches no user memory: it keeps the address space of whoever ran before,
 * since the kernel's half is the same in all.
 *
 * Without the features (MMU_BATCH, LAZY_CR3) everything is done at once, as on bare metal. */
#ifndef PV_MMU_H
#define PV_MMU_H
#include <stdbool.h>
#include <stdint.h>

struct space {                           /* an address space; a kernel thread has none (root 0) */
    uint64_t root;
};

void mmu_init(bool batched);
void mmu_begin(void);
void mmu_end(void);
void mmu_write(uint64_t *entry, uint64_t value, uint64_t address);
uint64_t mmu_read(const uint64_t *entry);
void mmu_switch(const struct space *to);
uint64_t mmu_loads(void);                /* how often CR3 was really loaded */
#endif
