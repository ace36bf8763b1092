/* Code that another processor writes
 *
 * One processor patches a function that both have run; both call it and have to see the patch.  The
 * other way round as well: each is the writer in turn.  Between writing and running stand the handshake
 * and a serializing instruction, as the manual asks for cross-modifying code. */
#include "lib/apic.h"
#include "lib/others.h"
#include "lib/test.h"

const char test_title[] = "Code that another processor writes";

enum { ROUNDS = 300 };

static uint8_t code[4096] __attribute__((aligned(4096)));
static volatile uint32_t written, seen, wrong;

typedef uint32_t (*answer)(void);

static uint32_t call(void)
{
    cpuid(0, 0);
    return ((answer)(uintptr_t)code)();
}

static void patch(uint32_t value)
{
    code[0] = 0xb8;                      /* MOV EAX, imm32; RET */
    memcpy(code + 1, &value, 4);
    code[5] = 0xc3;
    cpuid(0, 0);
}

static void check(uint32_t round)
{
    if (call() != round)
        __sync_fetch_and_add(&wrong, 1);
}

/* `me` writes every second round. */
static void play(uint32_t me)
{
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        if (round % 2 == me) {
            patch(round);
            check(round);
            written = round;
            while (seen != round)
                asm volatile("pause");
        } else {
            while (written != round)
                asm volatile("pause");
            check(round);
            seen = round;
        }
    }
}

static volatile uint32_t finished;

static void other(uint64_t index)
{
    if (index == 1)
        play(1);
    __sync_fetch_and_add(&finished, 1);
}

void test_main(void)
{
    apic_init();
    patch(0);
    call();
    others_start(other);
    play(0);
    report(others_wait(&finished, others_running()), "both come to the end");
    expect_equal(wrong, 0, "what the other one wrote is what runs");
}
