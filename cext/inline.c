/* The block hook's fast way, written into the translation itself: no call, eight instructions.
 *
 * When a block has run once and turned out to be an ordinary one, the call of its hook
 *
 *     movabs rdi, uc; mov rsi, pc; mov edx, size; lea rcx, record; call on_block     (mov and lea in their several lengths)
 *     movabs rdi, uc; xor esi, esi; call helper_check_exit_request                   (17 bytes, jumped over already)
 *
 * is replaced by
 *
 *     lea rcx, record; mov eax, engine; mov rdx, [rax + retired]; add rdx, counted; cmp rdx, [rax + limit]; ja slow
 *     mov [rax + retired], rdx; mov [rax + block], rcx; jmp over
 *     slow: call on_block_again; over:
 *
 * (--timing cycle: it adds the block's work and compares that, and counts the instructions beside it) in the same bytes. All of the registers are free there: a call was to come. Anything else that stands there stays.
 *
 * The record is not read, only named: a line of it for every block is what a processor's first cache has no room for. That
 * takes an engine below 4 GiB (engine_create()); else, and where a byte is missing, its address is [rcx + engine].
 */
#include "state.h"

enum { MOVABS_RDI = 10, MOV_EDX = 5, CALL = 5, CHECK = 17, FAST_BYTES = 32, MOST_COUNTED = 127 };

static uint64_t get(const uint8_t *at, size_t n)
{
    uint64_t value = 0;
    memcpy(&value, at, n);
    return value;
}

static bool calls(const uint8_t *at, uintptr_t target) { return *at == 0xe8 && (uintptr_t)(at + CALL + (int32_t)get(at + 1, 4)) == target; }

/* Length of the instruction before `end` that loads the record's address into RCX; 0: it is another one. */
static int record_load(const uint8_t *end, const struct block *b)
{
    if (get(end - 7, 3) == 0x0d8d48 && (uintptr_t)(end + (int32_t)get(end - 4, 4)) == (uintptr_t)b)
        return 7;
    return get(end - 10, 2) == 0xb948 && get(end - 8, 8) == (uintptr_t)b ? 10 : 0;
}

/* Likewise for RSI and the block's address. */
static int address_load(const uint8_t *end, uint64_t pc)
{
    if (end[-5] == 0xbe && get(end - 4, 4) == pc)
        return 5;
    if (get(end - 7, 3) == 0xc6c748 && (uint64_t)(int64_t)(int32_t)get(end - 4, 4) == pc)
        return 7;
    return get(end - 10, 2) == 0xbe48 && get(end - 8, 8) == pc ? 10 : 0;
}

/* Where the sequence begins whose call returns to `back`; NULL: another sequence. */
static uint8_t *hook_call(struct engine *e, const struct block *b, uint8_t *back)
{
    uint8_t *at = back - CALL;
    int n = calls(at, (uintptr_t)on_block) ? record_load(at, b) : 0;
    at -= n + MOV_EDX;
    if (!n || *at != 0xba)
        return NULL;
    n = address_load(at, b->real_pc);
    at -= n + MOVABS_RDI;
    return n && get(at, 2) == 0xbf48 && get(at + 2, 8) == (uintptr_t)e->uc ? at : NULL;
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t n) { memcpy(at, bytes, n); return at + n; }

static uint8_t *put_call(uint8_t *at, void (*target)(void))
{
    int32_t distance = (int32_t)((uintptr_t)target - (uintptr_t)(at + CALL));
    *at = 0xe8;
    memcpy(at + 1, &distance, sizeof distance);
    return at + CALL;
}

static bool reaches(const void *from, const void *to) { return (int64_t)((uintptr_t)to - (uintptr_t)from) == (int32_t)((uintptr_t)to - (uintptr_t)from); }

/* The rare way of a block that was rewritten: RCX holds its record, the other arguments are not there. */
static void on_block_again(uc_engine *uc, uint64_t pc, uint32_t size, void *data)
{
    (void)uc, (void)pc, (void)size;
    block_again(data);
}

_Static_assert(offsetof(struct engine, retired) == 0 && offsetof(struct engine, limit) == 8 && offsetof(struct engine, block) == 16 &&
               offsetof(struct engine, work) == 24 &&
               offsetof(struct block, engine) == 8, "the bytes below");

/* A short jump at `at`, of one byte's opcode. */
static uint8_t *put_jump(uint8_t *at, uint8_t opcode, const uint8_t *target)
{
    at[0] = opcode;
    at[1] = (uint8_t)(target - (at + 2));
    return at + 2;
}

static bool is_low(const void *p) { return (uintptr_t)p >> 32 == 0; }

/* lea rcx, record; mov eax, engine (12 bytes) or mov rax, [rcx + engine] (11) */
static uint8_t *put_record_and_engine(uint8_t *at, const struct block *b, bool by_record)
{
    int32_t record = (int32_t)((uintptr_t)b - (uintptr_t)(at + 7));
    uint32_t engine = (uint32_t)(uintptr_t)b->engine;
    at = put(at, "\x48\x8d\x0d", 3);
    at = put(at, &record, sizeof record);
    if (by_record)
        return put(at, "\x48\x8b\x41\x08", 4);
    *at = 0xb8;
    return put(at + 1, &engine, sizeof engine);
}

/* --timing cycle: the block's work is added and compared, and instructions are counted beside it. It takes all of the room:
 * 32 bytes before `back` and, as the call that is under way returns to a jump there, 15 behind that. */
static void inline_work(struct engine *e, const struct block *b, uint8_t *start, uint8_t *back)
{
    uint8_t *end = back + CHECK, *rest = back + 2;
    uint8_t *at = put_record_and_engine(start, b, !is_low(e) || back - start == FAST_BYTES);
    *at++ = 0xba;                                              /* mov edx, ... */
    at = put(at, &b->work, 4);
    at = put(at, "\x48\x03\x50\x18\x48\x3b\x50\x08", 8);       /* add rdx, [rax + 24]; cmp rdx, [rax + 8] */
    at = put_jump(at, 0x77, end - CALL);                       /* ja slow */
    at = put(at, "\x48\x89\x50\x18", 4);                       /* mov [rax + 24], rdx */
    put_jump(at, 0xeb, rest);
    at = put(rest, "\x48\x89\x48\x10\x48\x83\x00", 7);         /* mov [rax + 16], rcx; add qword [rax], ... */
    *at++ = (uint8_t)b->counted;
    at = put_jump(at, 0xeb, end);
    put_call(at, (void (*)(void))on_block_again);              /* slow: */
    e->counters.inlined++;
}

/* `back`: where the hook of `b`, which was called just now, returns to. */
void inline_hook(struct engine *e, const struct block *b, uint8_t *back)
{
    const uint8_t over[] = {0xeb, CHECK - 2};
    uint8_t *start = hook_call(e, b, back), *slow = back + sizeof over;
    if (!start || back - start < FAST_BYTES || b->counted > MOST_COUNTED || memcmp(back, over, sizeof over) ||
        !reaches(start, b) || !reaches(slow, (void *)on_block_again))
        return;
    if (e->costs) {
        inline_work(e, b, start, back);
        return;
    }
    uint8_t *at = put_record_and_engine(start, b, !is_low(e));
    at = put(at, "\x48\x8b\x10\x48\x83\xc2", 6);             /* mov rdx, [rax]; add rdx, ... */
    *at++ = (uint8_t)b->counted;
    at = put(at, "\x48\x3b\x50\x08\x77", 5);                   /* cmp rdx, [rax + 8]; ja ... */
    *at = (uint8_t)(slow - (at + 1));
    at = put(at + 1, "\x48\x89\x10\x48\x89\x48\x10", 7);       /* mov [rax], rdx; mov [rax + 16], rcx */
    memset(at, 0x90, (size_t)(back - at));
    slow = put_call(slow, (void (*)(void))on_block_again);
    slow[0] = 0xeb;
    slow[1] = (uint8_t)(back + CHECK - (slow + 2));
    e->counters.inlined++;
}
