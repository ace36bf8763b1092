/* Breakpoints by address
 *
 * Data, code and I/O breakpoints in DR0 to DR3: every type and length, what touches them and what
 * only comes near, DR6, and how RF lets an instruction pass. */
#include "lib/test.h"

const char test_title[] = "Breakpoints by address";

enum { EXECUTE, WRITE, PORT, ACCESS };
enum { ONE = 0, TWO = 1, EIGHT = 2, FOUR = 3 };
#define DR6_IDLE 0xffff0ff0ul
#define DR7_IDLE 0x400ul
#define GLOBAL(n) (2ul << 2 * (n))
#define LOCAL(n) (1ul << 2 * (n))
#define KIND(n, type, length) ((uint64_t)((length) << 2 | (type)) << (16 + 4 * (n)))
#define LE_GE 0x300ul
#define SINGLE_STEP 0x4000ul
#define SET_TF "pushf; orl $0x100, (%%rsp); popf"

static uint8_t area[2][4096] __attribute__((aligned(4096)));
static uint8_t *const watched = area[0] + 2048;

static void arm(uint64_t address, uint64_t dr7)
{
    write_dr0(address);
    write_dr6(DR6_IDLE);
    write_dr7(DR7_IDLE | dr7);
}

static uint64_t hits(void)
{
    write_dr7(DR7_IDLE);
    return read_dr6() ^ DR6_IDLE;
}

/* One store or load of `size` bytes: did it trap after itself, with DR6.B0 and nothing else? */
static bool touched(unsigned size, bool writes, uint8_t *at)
{
    struct trap trap = { 0 };
    uint64_t value;

    if (size == 1)
        trap = writes ? TRY("movb $1, (%0)", : : "r"(at) : "memory")
                      : TRY("movb (%1), %b0", : "=q"(value) : "r"(at));
    else if (size == 2)
        trap = writes ? TRY("movw $1, (%0)", : : "r"(at) : "memory")
                      : TRY("movw (%1), %w0", : "=r"(value) : "r"(at));
    else if (size == 4)
        trap = writes ? TRY("movl $1, (%0)", : : "r"(at) : "memory")
                      : TRY("movl (%1), %k0", : "=r"(value) : "r"(at));
    else
        trap = writes ? TRY("movq $1, (%0)", : : "r"(at) : "memory")
                      : TRY("movq (%1), %0", : "=r"(value) : "r"(at));
    uint64_t causes = hits();

    return trap.vector == DB && trap.after && causes == 1;
}

static void check_type(unsigned type, unsigned code, unsigned length)
{
    static const char *const types[] = { "", "writes", "", "reads and writes" };
    unsigned wrong = 0;

    for (unsigned size = 1; size <= 8; size *= 2)
        for (int offset = -9; offset <= 9; offset++)
            for (unsigned writes = 0; writes < 2; writes++) {
                bool overlaps = offset < (int)length && offset + (int)size > 0;

                arm((uint64_t)watched, GLOBAL(0) | KIND(0, type, code));
                wrong += touched(size, writes, watched + offset)
                         != (overlaps && (writes || type == ACCESS));
            }
    report(!wrong, "data: %s, length %u: 152 accesses around it", types[type], length);
}

static void check_data_types(void)
{
    static const unsigned codes[4][2] = { { ONE, 1 }, { TWO, 2 }, { FOUR, 4 }, { EIGHT, 8 } };

    for (int i = 0; i < 4; i++) {
        check_type(WRITE, codes[i][0], codes[i][1]);
        check_type(ACCESS, codes[i][0], codes[i][1]);
    }
}

#define WATCH_WRITES (GLOBAL(0) | KIND(0, WRITE, FOUR))
#define WATCH_ALL (GLOBAL(0) | KIND(0, ACCESS, FOUR))

#define STORE "movq $2, (%0)", : : "r"(watched) : "memory"

#define EXPECT_HIT(dr7, wanted, name, ...)                              \
    do {                                                                             \
        arm((uint64_t)watched, dr7);                                                 \
        struct trap trap_ = TRY(__VA_ARGS__);                           \
        uint64_t hits_ = hits();                                                     \
        report(hits_ == (wanted) && trap_.vector == ((wanted) ? DB : NO_TRAP)        \
               && trap_.after == !!(wanted), "data: " name);                        \
    } while (0)

static void check_enables(void)
{
    EXPECT_HIT(LOCAL(0) | KIND(0, WRITE, FOUR), 1, "L enables", STORE);
    EXPECT_HIT(KIND(0, WRITE, FOUR), 0, "neither L nor G", STORE);
    EXPECT_HIT(LE_GE | WATCH_WRITES, 1, "LE and GE change nothing", STORE);
    arm((uint64_t)watched + 3, WATCH_WRITES);
    report(touched(1, true, watched), "data: the address is aligned down to the length");
    write_dr3((uint64_t)watched + 4);
    EXPECT_HIT(WATCH_WRITES | GLOBAL(3) | KIND(3, WRITE, FOUR), 9, "two at once", STORE);
    EXPECT_HIT(GLOBAL(3) | KIND(3, WRITE, FOUR), 8, "DR3", STORE);
    EXPECT_HIT(0, 0, "none is enabled any more", STORE);
}

static void check_instructions(void)
{
    uint64_t value = 7;

    EXPECT_HIT(WATCH_WRITES, 1, "XADD", "lock xaddl %k0, (%1)",
               : "+r"(value) : "r"(watched) : "memory");
    EXPECT_HIT(WATCH_WRITES, 1, "BTS far from its operand", "btsl %k0, (%1)",
               : : "r"(32 * 8), "r"(watched - 32) : "memory");
    EXPECT_HIT(WATCH_WRITES, 0, "CMP only reads", "cmpl $1, (%0)", : : "r"(watched) : "cc");
    EXPECT_HIT(WATCH_ALL, 1, "CMP", "cmpl $1, (%0)", : : "r"(watched) : "cc");
    EXPECT_HIT(WATCH_ALL, 0, "LEA touches nothing", "lea (%1), %0", : "=r"(value) : "r"(watched));
    EXPECT_HIT(WATCH_ALL, 1, "MOVUPS across its start", "movups (%0), %%xmm0",
               : : "r"(watched - 13));
    EXPECT_HIT(WATCH_ALL, 0, "MOVUPS just before it", "movups (%0), %%xmm0", : : "r"(watched - 16));
}

static void check_strings(void)
{
    uint8_t *to = area[1], *from = watched;

    EXPECT_HIT(WATCH_ALL, 1, "MOVS, source", "movsb", : "+D"(to), "+S"(from) : : "memory");
    to = watched;
    from = area[1];
    EXPECT_HIT(WATCH_WRITES, 1, "MOVS, destination", "movsb", : "+D"(to), "+S"(from) : : "memory");
    to = watched;
    EXPECT_HIT(WATCH_WRITES, 1, "STOS", "stosl", : "+D"(to) : "a"(0) : "memory");
    to = watched;
    EXPECT_HIT(WATCH_ALL, 1, "SCAS", "scasb", : "+D"(to) : "a"(0) : "cc");
}

#define ON_STACK "mov %%rsp, %%rbx; lea 12(%0), %%rsp"
#define OFF_STACK "mov %%rbx, %%rsp"

/* The stack pointer is in the watched page for one instruction; the trap has its own stack. */
static void check_stack(void)
{
    struct trap trap;

    gate_set(DB, trap_stub(DB), GATE_INTERRUPT, IST_TEST);
    arm((uint64_t)watched + 4, WATCH_WRITES);
    trap = TRY_WITHIN(ON_STACK, "push %%rax", OFF_STACK, : : "r"(watched) : "rbx", "memory");
    report(hits() == 1 && trap.vector == DB, "data: PUSH");
    arm((uint64_t)watched + 4, WATCH_WRITES);
    trap = TRY_WITHIN(ON_STACK, "pushf", OFF_STACK, : : "r"(watched) : "rbx", "memory");
    report(hits() == 1 && trap.vector == DB && trap.after, "data: PUSHF");
    arm((uint64_t)watched + 12, WATCH_ALL);
    trap = TRY_WITHIN(ON_STACK, "pop %%rax", OFF_STACK, : : "r"(watched) : "rax", "rbx", "memory");
    report(hits() == 1 && trap.vector == DB, "data: POP");
    gate_reset(DB);
}

static int stops;
static uint64_t stops_at, left[8];

static void count_stop(struct trap_frame *frame)
{
    left[stops++ & 7] = frame->rcx;
    stops_at = frame->rip;
    frame->rflags |= FLAG_RF;
}

static void check_repeated(void)
{
    uint8_t *to = watched - 4, *from = area[1];
    uint64_t count = 16, start;

    trap_handle(DB, count_stop);
    stops = 0;
    arm((uint64_t)watched, WATCH_WRITES);
    asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(9) : "memory");
    report(hits() == 1 && stops == 4 && !count,
           "data: REP STOS stops after each of four iterations");
    report(left[0] == 11 && left[3] == 8 && watched[11] == 9,
           "data: REP STOS goes on where it was");
    stops = 0;
    to = watched;
    count = 5;
    asm volatile("lea 1f(%%rip), %0; mov %0, %%dr0; mov %4, %%dr7\n1:\trep movsb"
                 : "=&r"(start), "+D"(to), "+S"(from), "+c"(count) : "r"(0x402ul) : "memory");
    report(hits() == 1 && stops == 1 && stops_at == start && !count,
           "code: RF lets a repeated instruction pass as a whole");
    trap_handle(DB, NULL);
}

static void check_code(void)
{
    uint64_t sum = 0;

    trap_handle(DB, count_stop);
    stops = 0;
    arm(0, 0);
    asm volatile("lea 2f(%%rip), %%rax; mov %%rax, %%dr0; mov %1, %%dr7; mov $10, %%ecx\n"
                 "1:\tadd $1, %0; add $2, %0\n2:\tadd $3, %0; add $4, %0; dec %%ecx; jnz 1b"
                 : "+r"(sum) : "r"(0x402ul) : "rax", "rcx", "memory", "cc");
    report(hits() == 1 && stops == 10 && sum == 100, "code: in the middle of a loop, ten times");
    stops = 0;
    asm volatile("lea 1f+1(%%rip), %%rax; mov %%rax, %%dr0; mov %0, %%dr7\n1:\tmov $5, %%eax"
                 : : "r"(0x402ul) : "rax", "memory");
    report(hits() <= 1 && stops == 0, "code: not inside an instruction");
    stops = 0;
    asm volatile("lea 1f(%%rip), %%rax; mov %%rax, %%dr0; mov %0, %%dr7\n1:\tcpuid"
                 : : "r"(0x402ul) : "rax", "rbx", "rcx", "rdx", "memory");
    report(hits() == 1 && stops == 1, "code: on an instruction that exits");
    trap_handle(DB, NULL);
}

static void check_single_step(void)
{
    arm((uint64_t)watched, WATCH_WRITES);
    struct trap trap = TRY_WITHIN(SET_TF, "movl $3, (%0)", "", : : "r"(watched) : "memory", "cc");
    report(hits() == (SINGLE_STEP | 1) && trap.vector == DB && trap.after,
           "data: one #DB with a single step");
}

static void check_dr6(void)
{
    arm((uint64_t)watched, WATCH_WRITES);
    write_dr6(DR6_IDLE | 2 | SINGLE_STEP);
    TRY("movl $3, (%0)", : : "r"(watched) : "memory");
    report(hits() == (SINGLE_STEP | 1), "DR6: a match clears those before it, BS stays");
}

/* MOV SS holds the trap of its operand back; INT comes first, and the trap in its handler. */
static void check_held_by_ss(void)
{
    uint16_t *selector = (uint16_t *)watched;
    uint64_t handler = (uint64_t)trap_stub(0x81);

    asm("mov %%ss, %0" : "=m"(*selector));
    trap_handle(DB, count_stop);
    gate_set(0x81, trap_stub(0x81), GATE_INTERRUPT, 0);
    stops = 0;
    arm((uint64_t)watched, WATCH_ALL);
    struct trap trap = TRY_WITHIN("", "movw (%0), %%ss; int $0x81", "", : : "r"(selector) : "memory");
    report(hits() == 1 && trap.vector == 0x81 && stops == 1 && stops_at == handler,
           "data: held by MOV SS before INT, it comes at the handler's first instruction");
    trap_handle(DB, NULL);
}

static void check_fault_first(void)
{
    arm((uint64_t)watched, WATCH_ALL);
    struct trap trap = TRY("divl (%0)", : : "r"(watched), "a"(1), "d"(9) : "cc");
    uint64_t causes = hits();

    report(trap.vector == DE && !causes, "data: an instruction that faults does not hit");
}

static void check_ports(void)
{
    uint64_t cr4 = read_cr4();
    struct trap trap;

    write_cr4(cr4 | CR4_DE);
    arm(0x80, GLOBAL(0) | KIND(0, PORT, TWO));
    trap = TRY("out %%al, $0x81", : : "a"(0));
    report(hits() == 1 && trap.vector == DB && trap.after, "port: OUT");
    arm(0x80, GLOBAL(0) | KIND(0, PORT, TWO));
    trap = TRY("out %%al, $0x84", : : "a"(0));
    report(!hits() && trap.vector == NO_TRAP, "port: OUT to another");
    write_cr4(cr4);
}

void test_main(void)
{
    check_data_types();
    check_enables();
    check_instructions();
    check_strings();
    check_stack();
    check_repeated();
    check_code();
    check_single_step();
    check_dr6();
    check_fault_first();
    check_held_by_ss();
    check_ports();
}
