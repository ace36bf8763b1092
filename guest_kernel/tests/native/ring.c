/* The native dialect: rings
 *
 * A store that is written and read through a ring, characters for people, completions that
 * interrupt, and every way to fill a descriptor wrongly: each fails alone. */
#include "lib/apic.h"
#include "lib/test.h"
#include "pv/ring.h"

const char test_title[] = "The native dialect: rings";

enum { VECTOR = 0x55, PIECE = 100, PIECES = 50 };

static struct ring store, console;
static struct native_contract contract;
static uint8_t out[PIECE * PIECES], in[PIECE * PIECES];
static volatile int interrupts;

#define CODE(error) ((uint64_t)-(int64_t)NATIVE_E_##error)

static void on_completion(struct trap_frame *frame)
{
    (void)frame;
    interrupts++;
    apic_end();
}

static int32_t status_of_last(const struct ring *ring)
{
    return ring->descriptors[(ring->shared.head - 1) % RING_SIZE].status;
}

static void expect_failure(struct ring *ring, const void *buffer, uint32_t length, uint64_t offset,
                           uint32_t flags, int error, const char *what)
{
    ring_put(ring, buffer, length, offset, flags);
    expect_equal((uint64_t)ring_kick(ring), 1, what);
    expect_equal((uint64_t)status_of_last(ring), (uint64_t)-(int64_t)error, what);
}

static void check_store(void)
{
    for (unsigned i = 0; i < sizeof out; i++)
        out[i] = (uint8_t)(i * 7 + i / 256);
    for (unsigned i = 0; i < PIECES; i++)
        ring_put(&store, out + i * PIECE, PIECE, i * PIECE, 0);
    expect_equal((uint64_t)ring_kick(&store), PIECES, "one kick writes 50 pieces");
    for (unsigned i = 0; i < PIECES; i++)
        ring_put(&store, in + (PIECES - 1 - i) * PIECE, PIECE, (PIECES - 1 - i) * PIECE, NATIVE_RING_IN);
    expect_equal((uint64_t)ring_kick(&store), PIECES, "one kick reads them, from the last to the first");
    report(!memcmp(in, out, sizeof out), "they are what was written");
    expect_equal(store.failed, 0, "and nothing failed");
    ring_put(&store, in, 64, NATIVE_STORE_BYTES - 64, NATIVE_RING_IN);
    ring_kick(&store);
    report(!in[0] && !in[63], "what was never written is zero");
    expect_equal((uint64_t)ring_kick(&store), 0, "a kick with nothing new");
}

static void check_errors(void)
{
    expect_failure(&store, in, 64, NATIVE_STORE_BYTES - 63, 0, NATIVE_E_BAD_ARGUMENT, "beyond the store's end");
    expect_failure(&store, in, 64, -1ul, 0, NATIVE_E_BAD_ARGUMENT, "an offset that overflows");
    expect_failure(&store, (void *)0x7ffffff000, 64, 0, 0, NATIVE_E_BAD_ADDRESS, "a buffer nowhere");
    expect_failure(&store, in, -1u, 0, 0, NATIVE_E_BAD_ARGUMENT, "a length too large");
    expect_failure(&store, in, 64, 0, 8, NATIVE_E_BAD_ARGUMENT, "an unknown flag");
    expect_failure(&store, &store, 64, 0, NATIVE_RING_IN, NATIVE_E_OVERLAP, "a buffer in the ring itself");
    expect_failure(&console, in, 1, 0, NATIVE_RING_IN, NATIVE_E_BAD_ARGUMENT, "to read from a console");
    expect_equal((uint64_t)native_ring_kick(99), CODE(BAD_STATE), "a kick of no device");
    expect_equal((uint64_t)native_ring_setup(99, PHYSICAL(in), 0, 0), CODE(BAD_ARGUMENT), "a ring for no device");
    expect_equal((uint64_t)native_ring_setup(0, PHYSICAL(store) + 64, 2, 0), CODE(OVERLAP),
                 "a ring that lies on another");
    expect_equal((uint64_t)native_ring_setup(0, PHYSICAL(store) + 1, 2, 0), CODE(MISALIGNED), "a ring askew");
    expect_equal((uint64_t)native_ring_setup(0, 0x7ffffff000, 2, 0), CODE(BAD_ADDRESS), "a ring nowhere");
    expect_equal((uint64_t)native_ring_setup(0, PHYSICAL(console), 60, 0), CODE(BAD_ARGUMENT), "a huge ring");
    expect_equal((uint64_t)native_set_page(NATIVE_PAGE_CONTRACT, PHYSICAL(store) + 64), CODE(OVERLAP),
                 "a shared page on a ring");
    store.shared.tail += RING_SIZE + 1;
    expect_equal((uint64_t)native_ring_kick(store.device), CODE(BAD_ARGUMENT), "more than the ring holds");
    store.shared.tail = store.shared.head;
}

static void check_interrupts(void)
{
    static const char text[] = "written through a ring\n";

    trap_handle(VECTOR, on_completion);
    ring_put(&console, text, sizeof text - 1, 0, 0);
    ring_kick(&console);
    ring_put(&console, text, 8, 0, 0);
    ring_put(&console, text + 22, 1, 0, 0);
    ring_kick(&console);
    asm volatile("sti; nop; cli");
    report(interrupts == 1 || interrupts == 2, "completions interrupt");
    int before = interrupts;
    console.shared.flags = NATIVE_RING_QUIET;
    ring_put(&console, text, 23, 0, 0);
    ring_kick(&console);
    asm volatile("sti; nop; cli");
    expect_equal((uint64_t)interrupts, (uint64_t)before, "not those of a quiet ring");
    expect_equal((uint64_t)native_ring_setup(NATIVE_DEVICE_CONSOLE, NATIVE_NOWHERE, 0, 0), 0, "taken back");
    expect_equal((uint64_t)native_ring_kick(NATIVE_DEVICE_CONSOLE), CODE(BAD_STATE), "there is none any more");
}

void test_main(void)
{
    uint64_t wanted = 1ul << NATIVE_FEATURE_RING;

    apic_init();
    if (!native_find() || native_use(wanted) != wanted)
        report_abort("no rings");
    native_set_page(NATIVE_PAGE_CONTRACT, PHYSICAL(contract));
    expect_equal((uint64_t)ring_init(&store, NATIVE_DEVICE_STORE, 0), 0, "a ring for the store");
    expect_equal((uint64_t)ring_init(&console, NATIVE_DEVICE_CONSOLE, VECTOR), 0, "a ring for the console");
    expect_equal(store.shared.size, RING_SIZE, "the device says how large it is");
    check_store();
    check_errors();
    check_interrupts();
}
