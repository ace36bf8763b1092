/* Lazy changes of page tables and of CR3. */
#include "pv/mmu.h"
#include "lib/cpu.h"
#include "pv/batch.h"

static struct batch batch;
static bool batched, open;
static uint64_t loads, root;

void mmu_init(bool with_hypercalls)
{
    batched = with_hypercalls;
    open = false;
    loads = 0;
    root = read_cr3();
    batch_init(&batch, 0);
}

void mmu_begin(void)
{
    open = batched;
}

void mmu_end(void)
{
    open = false;
    batch_run(&batch);
}

void mmu_write(uint64_t *entry, uint64_t value, uint64_t address)
{
    if (open) {
        batch_put(&batch, NATIVE_CALL_MMU_UPDATE, (uint64_t)(uintptr_t)entry, value, address);
        return;
    }
    *entry = value;
    invlpg(address);
}

/* The newest value that was written, even if it still waits. */
uint64_t mmu_read(const uint64_t *entry)
{
    for (uint32_t back = 1; back <= batch_waiting(&batch); back++) {
        const struct native_multicall_entry *one = &batch.entries[(batch.ring.tail - back) % BATCH_ENTRIES];

        if (one->number == NATIVE_CALL_MMU_UPDATE && one->arguments[0] == (uint64_t)(uintptr_t)entry)
            return one->arguments[1];
    }
    return *entry;
}

void mmu_switch(const struct space *to)
{
    if (!to->root || to->root == root)
        return;                          /* a kernel thread, or the same space: nothing to load */
    root = to->root;
    loads++;
    if (open)
        batch_put(&batch, NATIVE_CALL_SET_CR3, root, 0, 0);
    else
        write_cr3(root);
}

uint64_t mmu_loads(void)
{
    return loads;
}
