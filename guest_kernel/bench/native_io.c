/* The same bytes twice: to the serial port, register by register, and through the native ring
 *
 * Marks on the debug port say where each way begins and ends. */
#include "bench/marks.h"
#include "abi/ports.h"
#include "lib/io.h"
#include "lib/test.h"
#include "pv/ring.h"

const char test_title[] = "Benchmark: native I/O";

enum { BYTES = 16384, PIECE = 256, SERIAL = 0x3f8, LINE_STATUS = SERIAL + 5, EMPTY = 0x20 };

static struct ring ring;
static char text[BYTES];

static void by_registers(void)
{
    for (unsigned i = 0; i < BYTES; i++) {
        while (!(inb(LINE_STATUS) & EMPTY))
            asm volatile("pause");
        outb((uint8_t)text[i], SERIAL);
    }
}

static void by_ring(void)
{
    for (unsigned i = 0; i < BYTES; i += PIECE)
        ring_put(&ring, text + i, PIECE, 0, 0);
    ring_kick(&ring);
}

static void timed(const char *name, void (*how)(void))
{
    native_call(NATIVE_CALL_NOP, 1, 0, 0, 0, 0, 0);
    uint64_t began = rdtsc();
    how();
    uint64_t took = rdtsc() - began;
    native_call(NATIVE_CALL_NOP, 2, 0, 0, 0, 0, 0);
    outb('\n', SERIAL);
    mark_figure(name, BYTES, took);
}

void test_main(void)
{
    uint64_t wanted = 1ul << NATIVE_FEATURE_RING;

    if (!native_find() || native_use(wanted) != wanted || ring_init(&ring, NATIVE_DEVICE_CONSOLE, 0))
        report_abort("no rings");
    for (unsigned i = 0; i < BYTES; i++)
        text[i] = i % 64 == 63 ? '\n' : (char)('A' + i % 26);
    timed("registers", by_registers);
    timed("ring", by_ring);
    exit_with(0);
}
