/* Building and changing the page tables that CR3 points at. */
#include "paging.h"
#include "cpu.h"
#include "report.h"
#include "string.h"

enum { POOL_PAGES = 256 };

static uint8_t pool[POOL_PAGES][PAGE_BYTES] __attribute__((aligned(4096)));
static int pool_used;

void *alloc_page(void)
{
    if (pool_used == POOL_PAGES)
        report_abort("out of pages");
    return memset(pool[pool_used++], 0, PAGE_BYTES);
}

void paging_init(void)
{
    *page_entry(TEST_AREA, 3) = 0;
    if (has_nx())
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    write_cr3(read_cr3());
}

static uint64_t *descend(uint64_t *entry)
{
    if (!(*entry & PTE_P))
        *entry = (uint64_t)alloc_page() | PTE_P | PTE_W;
    if (*entry & PTE_PS)
        report_abort("a large page is in the way");
    *entry |= PTE_U;                     /* the leaf decides */
    return (uint64_t *)(*entry & PTE_FRAME);
}

/* The entry that maps `address` at `level`: 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB, 4 the top.
 * Tables on the way are made when missing. */
uint64_t *page_entry(uint64_t address, int level)
{
    uint64_t *table = (uint64_t *)(read_cr3() & PTE_FRAME);

    for (int at = 4;; at--) {
        uint64_t *entry = table + (address >> (12 + 9 * (at - 1)) & 511);

        if (at == level)
            return entry;
        table = descend(entry);
    }
}

void map_at(uint64_t address, uint64_t physical, uint64_t flags, int level)
{
    *page_entry(address, level) = physical | flags | (level > 1 ? PTE_PS : 0);
    invlpg(address);
}

void map_page(uint64_t address, uint64_t physical, uint64_t flags)
{
    map_at(address, physical, flags, 1);
}

void unmap_page(uint64_t address)
{
    *page_entry(address, 1) = 0;
    invlpg(address);
}
