/* Page tables.  The boot code maps the first 4 GiB one to one with pages of 2 MiB; paging_init()
 * takes the second GiB (TEST_AREA) out of that, for tests to map as they like, in reach of 32-bit
 * code. */
#ifndef LIB_PAGING_H
#define LIB_PAGING_H
#include <stdint.h>

#define PAGE_BYTES 4096ul
#define LARGE_BYTES (2ul << 20)
#define HUGE_BYTES (1ul << 30)
#define TEST_AREA 0x40000000ul
#define TEST_AREA_END 0x80000000ul
#define NON_CANONICAL 0x8000000000000000ul

#define PTE_P (1ul << 0)
#define PTE_W (1ul << 1)
#define PTE_U (1ul << 2)
#define PTE_PWT (1ul << 3)
#define PTE_PCD (1ul << 4)
#define PTE_A (1ul << 5)
#define PTE_D (1ul << 6)
#define PTE_PS (1ul << 7)
#define PTE_G (1ul << 8)
#define PTE_NX (1ul << 63)
#define PTE_FRAME 0x000ffffffffff000ul

/* Bits of a page-fault error code. */
enum { PF_PRESENT = 1, PF_WRITE = 2, PF_USER = 4, PF_RESERVED = 8, PF_FETCH = 16 };

void paging_init(void);
void *alloc_page(void);                  /* 4 KiB, zeroed; never given back */
uint64_t *page_entry(uint64_t address, int level);
void map_at(uint64_t address, uint64_t physical, uint64_t flags, int level);
void map_page(uint64_t address, uint64_t physical, uint64_t flags);
void unmap_page(uint64_t address);
#endif
