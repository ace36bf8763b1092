/* Grants that a guest maps, copies and ends itself: its own. */
#include "xen/pv.h"

const char test_title[] = "Mapping grants";

enum { MAP, UNMAP, COPY = 5, REPLACE = 7, SWAP = 11, OWN = 1 };
enum { PERMIT = 1, READ_ONLY = 4, READING = 8, WRITING = 16 };
enum { HOST = 2, READS = 4, DEVICE = 1, PTE = 16 };

struct entry { uint16_t flags, domain; uint32_t frame; };
static struct { uint16_t domain, pad; uint32_t count; int16_t status, pad1[3]; uint64_t list; } setup;
static struct { uint64_t address; uint32_t flags, reference; uint16_t domain; int16_t status; uint32_t handle; uint64_t bus; } m;
static struct { uint64_t address, other; uint32_t handle; int16_t status; } u;
static struct { uint64_t source; uint16_t giver, start; uint32_t pad; uint64_t target; uint16_t taker, end; uint32_t pad1; uint16_t size, flags; int16_t status; } c;
static struct { uint32_t one, other; int16_t status; } s;
static uint64_t frames[1];
static volatile struct entry *table;

static void grant(uint32_t reference, const void *page, uint16_t flags)
{
    table[reference] = (struct entry){ .flags = flags, .domain = OWN, .frame = (uint32_t)mfn_of(page) };
}

static int map_at(const void *page, uint32_t reference, uint32_t flags)
{
    m.address = flags & PTE ? entry_address(page) : (uint64_t)page;
    m.flags = flags;
    m.reference = reference;
    m.status = 99;
    return CALL3(GRANT_TABLE_OP, MAP, &m, 1) ? -100 : m.status;
}

static int unmap(const void *page, uint64_t bus, uint32_t handle)
{
    u.address = (uint64_t)page;
    u.other = bus;
    u.handle = handle;
    u.status = 99;
    return CALL3(GRANT_TABLE_OP, UNMAP, &u, 1) ? -100 : u.status;
}

static void make_table(void)
{
    setup.domain = SELF;
    setup.count = 1;
    setup.list = (uint64_t)frames;
    CALL3(GRANT_TABLE_OP, 2, &setup, 1);
    map(scratch[0], frames[0] << 12 | 0x67);
    table = (volatile struct entry *)scratch[0];
    grant(8, scratch[1], PERMIT);
    grant(9, scratch[2], PERMIT | READ_ONLY);
    m.domain = OWN;
    *(volatile uint64_t *)scratch[1] = 0x1234;
}

/* In use, a grant cannot be moved; unmapped, it is nobody's. */
static void map_and_unmap(void)
{
    uint32_t two = 2;

    equal(map_at(scratch[3], 8, HOST), 0, "a grant of one's own is mapped");
    equal(*(volatile uint64_t *)scratch[3], 0x1234, "and shows its frame");
    equal(m.bus, mfn_of(scratch[1]) << 12, "whose bus address is told");
    equal(table[8].flags, PERMIT | READING | WRITING, "the entry shows that it is in use");
    equal(CALL3(GRANT_TABLE_OP, 8, &two, 1), BUSY, "no other version meanwhile");
    s.one = 8;
    s.other = 9;
    CALL3(GRANT_TABLE_OP, SWAP, &s, 1);
    equal(s.status, -12, "nor another place: GNTST_eagain");
    equal(unmap(scratch[4], 0, m.handle), -1, "it is not unmapped elsewhere");
    equal(unmap(scratch[3], 0, m.handle), 0, "it is unmapped");
    equal(*entry_of(scratch[3]), 0, "and its entry is clear");
    equal(table[8].flags, PERMIT, "nobody has it");
    equal(unmap(scratch[3], 0, m.handle), -4, "twice is GNTST_bad_handle");
}

static void map_wrongly(void)
{
    equal(map_at(scratch[3], 9, HOST), -1, "what is read-only is not mapped writable");
    equal(map_at(scratch[3], 9, HOST | READS), 0, "it is to be read");
    equal(unmap(scratch[3], 0, m.handle), 0, "and unmapped");
    equal(map_at(scratch[3], 10, HOST), -1, "an entry that grants nothing is an error");
    equal(map_at(scratch[3], 100000, HOST), -3, "one that there is not is GNTST_bad_gntref");
    equal(map_at(scratch[3], 8, 0), -3, "so is a mapping of no kind");
    m.domain = 0;
    equal(map_at(scratch[3], 8, HOST), -1, "the first domain has granted nothing");
    m.domain = 77;
    equal(map_at(scratch[3], 8, HOST), -2, "domain 77 is GNTST_bad_domain");
    m.domain = OWN;
    equal(map_at(scratch[3], 8, HOST | PTE), 0, "an entry may be named by its machine address");
    u.address = m.address;
    u.other = 0;
    u.handle = m.handle;
    CALL3(GRANT_TABLE_OP, UNMAP, &u, 1);
    equal(u.status, 0, "and unmapped so");
    equal(map_at(scratch[3], 8, HOST | DEVICE), 0, "one grant, two mappings");
    equal(unmap(scratch[3], 0, m.handle), 0, "the processor's goes");
    equal(unmap(0, m.bus, m.handle), 0, "the device's goes");
}

static void replace(void)
{
    uint64_t before = *entry_of(scratch[5]);

    equal(map_at(scratch[3], 8, HOST), 0, "again");
    u = (__typeof__(u)){ .address = (uint64_t)scratch[3], .other = (uint64_t)scratch[5], .handle = m.handle };
    CALL3(GRANT_TABLE_OP, REPLACE, &u, 1);
    equal(u.status, 0, "a mapping is replaced by another's");
    equal(*entry_of(scratch[3]) & ~0x60ul, before & ~0x60ul, "which stands in its place");
    equal(*entry_of(scratch[5]), 0, "and no more in its own");
}

static void copy(void)
{
    c = (__typeof__(c)){ .source = 8, .giver = SELF, .start = 0, .target = mfn_of(scratch[6]), .taker = SELF, .end = 16, .size = 8, .flags = 1 };
    CALL3(GRANT_TABLE_OP, COPY, &c, 1);
    equal(c.status, 0, "a copy from a grant");
    equal(*(volatile uint64_t *)(scratch[6] + 16), 0x1234, "arrives");
    c.start = 4090;
    CALL3(GRANT_TABLE_OP, COPY, &c, 1);
    equal(c.status, -10, "across the page's end it is GNTST_bad_copy_arg");
    c.start = 0;
    c.taker = 0;
    CALL3(GRANT_TABLE_OP, COPY, &c, 1);
    equal(c.status, -8, "a frame of another is GNTST_permission_denied");
    c.taker = SELF;
    c.target = mfn_of((void *)start_info->pt_base);
    CALL3(GRANT_TABLE_OP, COPY, &c, 1);
    equal(c.status, -1, "a page table is not written to");
}

void test_main(void)
{
    uint32_t two = 2;

    make_table();
    map_and_unmap();
    map_wrongly();
    replace();
    copy();
    CALL3(GRANT_TABLE_OP, SWAP, &s, 1);
    equal(s.status, 0, "two entries change places");
    equal(table[8].flags, PERMIT | READ_ONLY, "flags and all");
    equal(CALL3(GRANT_TABLE_OP, MAP, BAD, 1), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL3(GRANT_TABLE_OP, 8, &two, 1), 0, "version 2, now that nobody has any");
}
