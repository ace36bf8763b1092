/* The native dialect: multicall and lazy page tables
 *
 * A ring of hypercalls is carried out in one exit.  Entries fail alone; with the STOP flag the batch
 * ends behind the first that fails.  A ring that changes itself, that is nowhere or that lies on
 * another shared page gets an error.  Then page tables: changes wait in the ring until mmu_end(),
 * and a kernel thread keeps the address space of whoever ran before. */
#include "lib/test.h"
#include "pv/batch.h"
#include "pv/mmu.h"

const char test_title[] = "The native dialect: multicall and lazy page tables";

enum { SPACES = 2, PAGES = 64, SWITCHES = 12 };

static struct batch ring;
static struct native_contract contract;

#define CODE(error) ((uint64_t)-(int64_t)NATIVE_E_##error)

static void expect_code(int64_t result, uint64_t code, const char *what)
{
    expect_equal((uint64_t)result, code, what);
}

static void check_results(void)
{
    batch_init(&ring, 0);
    batch_put(&ring, NATIVE_CALL_NOP, 0, 0, 0);
    batch_put(&ring, NATIVE_CALL_CONTRACT_STATE, NATIVE_FEATURE_MULTICALL, 0, 0);
    batch_put(&ring, NATIVE_TAG + 0xfff, 0, 0, 0);
    batch_put(&ring, NATIVE_CALL_CONTRACT_STATE, NATIVE_FEATURE_MULTICALL, 0, 0);
    expect_code(batch_run(&ring), 1, "one of four fails");
    expect_code(batch_result(&ring, 0), 0, "the first's result");
    expect_code(batch_result(&ring, 1), NATIVE_STATE_ACTIVE, "the second's result");
    expect_code(batch_result(&ring, 2), CODE(NO_CALL), "the third's error");
    expect_code(batch_result(&ring, 3), NATIVE_STATE_ACTIVE, "the fourth is carried out all the same");
    expect_equal(ring.ring.first_failed, 2, "the header names the one that failed");
    expect_equal(ring.ring.head, 4, "all were consumed");
}

static void check_stop(void)
{
    batch_init(&ring, NATIVE_MULTICALL_STOP);
    batch_put(&ring, NATIVE_CALL_NOP, 0, 0, 0);
    batch_put(&ring, NATIVE_CALL_CONTRACT_STATE, 1000, 0, 0);
    batch_put(&ring, NATIVE_CALL_CONTRACT_STATE, NATIVE_FEATURE_MULTICALL, 0, 0);
    expect_code(native_multicall(PHYSICAL(ring)), 2, "STOP: two are consumed");
    expect_equal(batch_waiting(&ring), 1, "STOP: the third waits");
    expect_code(native_multicall(PHYSICAL(ring)), 1, "and is carried out by the next call");
    expect_code(batch_result(&ring, 2), NATIVE_STATE_ACTIVE, "with its result");
}

static void check_wrap(void)
{
    int64_t failed = 0;

    batch_init(&ring, 0);
    ring.ring.head = ring.ring.tail = 0xffffffff;  /* the counts run over in a moment */
    for (int i = 0; i < 3 * BATCH_ENTRIES + 5; i++)
        batch_put(&ring, i % 7 ? NATIVE_CALL_NOP : NATIVE_TAG + 0xfff, 0, 0, 0);
    failed = batch_run(&ring);
    expect_equal(ring.ring.head, 3 * BATCH_ENTRIES + 4, "more than the ring holds: it runs by itself");
    report(failed == 1, "the last five have one that fails (%ld)", failed);
}

static void check_bad_rings(void)
{
    batch_init(&ring, 0);
    expect_code(native_multicall(PHYSICAL(ring) + 8), CODE(MISALIGNED), "a ring askew");
    expect_code(native_multicall(0x7ffffff000), CODE(BAD_ADDRESS), "a ring nowhere");
    ring.ring.entries = 3;
    expect_code(native_multicall(PHYSICAL(ring)), CODE(BAD_ARGUMENT), "three entries");
    ring.ring.entries = 2 * NATIVE_MULTICALL_MOST;
    expect_code(native_multicall(PHYSICAL(ring)), CODE(BAD_ARGUMENT), "too many entries");
    batch_init(&ring, 4);
    expect_code(native_multicall(PHYSICAL(ring)), CODE(BAD_ARGUMENT), "an unknown flag");
    batch_init(&ring, 0);
    ring.ring.tail = BATCH_ENTRIES + 1;
    expect_code(native_multicall(PHYSICAL(ring)), CODE(BAD_ARGUMENT), "more waiting than there is room");
    batch_init(&ring, 0);
    batch_put(&ring, NATIVE_CALL_MULTICALL, PHYSICAL(ring), 0, 0);
    batch_run(&ring);
    expect_code(batch_result(&ring, 0), CODE(NESTED), "a batch in a batch");
    native_set_page(NATIVE_PAGE_CONTRACT, PHYSICAL(ring.entries[10]));
    expect_code(native_multicall(PHYSICAL(ring)), CODE(OVERLAP), "a ring on a page that is shared");
    native_set_page(NATIVE_PAGE_CONTRACT, PHYSICAL(contract));
}

/* The first entry overwrites the second, and the header: what was read is what counts. */
static void check_changing(void)
{
    batch_init(&ring, 0);
    batch_put(&ring, NATIVE_CALL_MMU_UPDATE, PHYSICAL(ring.entries[1].number), NATIVE_TAG + 0xfff, -1ul);
    batch_put(&ring, NATIVE_CALL_CONTRACT_STATE, NATIVE_FEATURE_MULTICALL, 0, 0);
    expect_code(batch_run(&ring), 0, "an entry that overwrites the next");
    expect_code(batch_result(&ring, 1), NATIVE_STATE_ACTIVE, "the next is as it was read");
    expect_equal(ring.entries[1].number, NATIVE_TAG + 0xfff, "the change is there for the next batch");
    batch_put(&ring, NATIVE_CALL_MMU_UPDATE, PHYSICAL(ring.ring), 1024, -1ul);
    expect_code(native_multicall(PHYSICAL(ring)), CODE(CHANGED), "an entry that changes the ring's shape");
    expect_equal(ring.ring.head, 2, "the header is left alone");
}

static void check_updates(void)
{
    uint64_t *entry = page_entry(TEST_AREA, 1);
    volatile uint64_t *there = (uint64_t *)TEST_AREA;
    uint64_t *one = alloc_page(), *two = alloc_page();

    *one = 1;
    *two = 2;
    map_page(TEST_AREA, (uint64_t)one, PTE_P | PTE_W);
    report(*there == 1, "the first page is mapped");
    mmu_begin();
    mmu_write(entry, (uint64_t)two | PTE_P | PTE_W, TEST_AREA);
    report(*there == 1, "a change that waits does not show");
    expect_equal(mmu_read(entry) & PTE_FRAME, (uint64_t)two, "but is read");
    mmu_end();
    report(*there == 2, "afterwards it shows");
    mmu_begin();
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t address = TEST_AREA + i * PAGE_BYTES;

        mmu_write(page_entry(address, 1), (uint64_t)(i % 2 ? one : two) | PTE_P, address);
    }
    mmu_end();
    unsigned right = 0;
    for (unsigned i = 0; i < PAGES; i++)
        right += *(volatile uint64_t *)(TEST_AREA + i * PAGE_BYTES) == (i % 2 ? 1 : 2);
    expect_equal(right, PAGES, "64 changes in one call");
    mmu_begin();
    mmu_write(entry, 0, TEST_AREA);
    mmu_end();
    report(TRY("movq (%0), %%rax", : : "r"(TEST_AREA) : "rax").vector == PF, "an entry taken away faults");
}

/* Address spaces that share the kernel's half and differ in one page. */
static uint64_t make_space(uint64_t value)
{
    uint64_t *root = alloc_page(), *top = (uint64_t *)(read_cr3() & PTE_FRAME), old = read_cr3();
    uint64_t *page = alloc_page();

    memcpy(root, top, PAGE_BYTES);
    root[1] = 0;                         /* 512 GiB up: the space's own */
    *page = value;
    write_cr3((uint64_t)root);
    map_page(HUGE_BYTES * 512, (uint64_t)page, PTE_P | PTE_W);
    write_cr3(old);
    return (uint64_t)root;
}

static void check_spaces(void)
{
    struct space users[SPACES], kernel = {0};
    volatile uint64_t *own = (uint64_t *)(HUGE_BYTES * 512);
    unsigned right = 0;

    for (unsigned i = 0; i < SPACES; i++)
        users[i].root = make_space(100 + i);
    mmu_init(true);
    for (unsigned i = 0; i < SWITCHES; i++) {
        mmu_begin();
        mmu_switch(&kernel);
        mmu_switch(&users[i / 3 % SPACES]);  /* three turns of the same user, kernel threads between */
        mmu_switch(&kernel);
        mmu_end();
        right += *own == 100 + i / 3 % SPACES;
    }
    expect_equal(right, SWITCHES, "each turn sees its own page");
    expect_equal(mmu_loads(), SWITCHES / 3, "CR3 is loaded only for another user");
    expect_code(native_set_cr3(1ul << 60), CODE(BAD_ARGUMENT), "CR3 with reserved bits");
    expect_code(native_flush(HUGE_BYTES * 512), 0, "FLUSH of one address");
    expect_code(native_flush(NATIVE_NOWHERE), 0, "FLUSH of all");
    expect_code(native_mmu_update(0x7ffffff000, 0, -1ul), CODE(BAD_ADDRESS), "an entry nowhere");
    expect_code(native_mmu_update(PHYSICAL(contract) + 8, 0, -1ul), CODE(OVERLAP), "an entry in a shared page");
}

void test_main(void)
{
    uint64_t wanted = 1ul << NATIVE_FEATURE_MULTICALL | 1ul << NATIVE_FEATURE_MMU_BATCH | 1ul << NATIVE_FEATURE_LAZY_CR3;

    paging_init();
    if (!native_find() || native_use(wanted) != wanted)
        report_abort("no multicall");
    native_set_page(NATIVE_PAGE_CONTRACT, PHYSICAL(contract));
    check_results();
    check_stop();
    check_wrap();
    check_bad_rings();
    check_changing();
    mmu_init(true);
    check_updates();
    check_spaces();
}
