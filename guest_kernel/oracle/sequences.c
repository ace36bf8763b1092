/* Batches of instruction sequences, for `ring1 fuzz` and the oracles.
 *
 * A loader's first module is a batch: it is run, the records go to the debug console byte by byte, and the machine ends.
 * Without a module whoever runs us puts a batch into memory at BATCH while we halt, and finds the records there at the
 * next halt: thousands of sequences for one reset. */
#include "lib/test.h"
#include "record.h"

#define BATCH 0x1000000ul
enum { DATA_PHYSICAL = 0xf00000, DEBUG_CONSOLE = 0xe9 };

const char test_title[] = "Instruction sequences";

void sequence_run(struct seq_record *record);
extern const char sequence_stubs[];

static void put_windows(const struct seq_record *r)
{
    for (int i = 0; i < SEQ_WINDOWS; i++)
        memcpy((void *)(uint64_t)(DATA_PHYSICAL + seq_window_at[i]), r->window[i], SEQ_WINDOW_BYTES);
}

static void take_windows(struct seq_record *r)
{
    for (int i = 0; i < SEQ_WINDOWS; i++)
        memcpy(r->window[i], (void *)(uint64_t)(DATA_PHYSICAL + seq_window_at[i]), SEQ_WINDOW_BYTES);
}

static void run_batch(struct seq_header *header)
{
    struct seq_record *records = (void *)(BATCH + SEQ_RECORDS_OFFSET);

    for (uint32_t i = 0; i < header->count; i++) {
        records[i].ran = SEQ_STARTED;
        put_windows(&records[i]);
        sequence_run(&records[i]);
        take_windows(&records[i]);
        seq_normalize(&records[i]);
        header->failed += records[i].ran != SEQ_DONE;
    }
}

static void map_all(void)
{
    static const uint64_t rights[SEQ_PAGES] = { PTE_P | PTE_W | PTE_U, PTE_P | PTE_W | PTE_U, PTE_P | PTE_U, 0, PTE_P | PTE_W | PTE_U };
    uint64_t nx = has_nx() ? PTE_NX : 0;

    paging_init();
    *page_entry(SEQ_CODE, 2) = *page_entry(SEQ_DATA, 2) = *page_entry(SEQ_DATA - 1, 2) = 0;
    for (uint64_t at = 0; at < SEQ_CODE_BYTES; at += PAGE_BYTES)
        map_page(SEQ_CODE + at, BATCH + SEQ_CODE_OFFSET + at, PTE_P | PTE_U);
    for (int i = 0; i < SEQ_PAGES; i++)
        if (rights[i])
            map_page(SEQ_DATA + i * PAGE_BYTES, DATA_PHYSICAL + i * PAGE_BYTES, rights[i] | nx);
    write_cr3(read_cr3());
}

/* As Linux sets a processor up for its programs. */
static void set_up(void)
{
    for (unsigned vector = 0; vector < 32; vector++)
        gate_set(vector, (void *)(sequence_stubs + 16 * vector),
                 GATE_INTERRUPT | (vector == BP || vector == OF ? GATE_DPL3 : 0), 0);
    write_cr0((read_cr0() & ~CR0_EM) | CR0_MP | CR0_NE | CR0_AM | CR0_WP);
    write_cr4(read_cr4() | 0x600);
    asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"(USER_SS));
    wrmsr(MSR_GS_BASE, SEQ_DATA);
}

static void run_module(void)
{
    uint64_t start = boot_info.module[0].start, bytes = boot_info.module[0].end - start;
    struct seq_header *header = (void *)BATCH;
    const char *records = (void *)(BATCH + SEQ_RECORDS_OFFSET);
    uint64_t length;

    memmove(header, (void *)start, bytes);
    run_batch(header);
    length = header->count * sizeof(struct seq_record);
    asm volatile("rep outsb" : "+S"(records), "+c"(length) : "d"(DEBUG_CONSOLE) : "memory");
    outl(header->failed != 0, 0xf4);
    for (const char *word = "Shutdown"; *word; word++)
        outb((uint8_t)*word, 0x8900);
}

void test_main(void)
{
    map_all();
    set_up();
    if (boot_info.modules)
        run_module();
    for (;;) {
        asm volatile("hlt" : : : "memory");
        run_batch((struct seq_header *)BATCH);
    }
}
