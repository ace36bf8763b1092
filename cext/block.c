/* Tour 2.2: translated blocks: exact instruction counts and sensitive instructions, for a few nanoseconds a block.
 *
 * Unicorn calls a block hook at the head of every translated block and bakes the hook's user data into the
 * translation as a constant. So the user data is changed after each translation: every block carries the address of
 * its own record, and its hook adds one number and compares two. Whatever is out of the ordinary (an unseen block, a
 * REP, a deadline inside the block) makes the record or the limit disagree and takes the slow way.
 *
 * An instruction that must trap but does not (POPF, CPUID, IRET, ...) is found when its block first runs: the one
 * code hook's range is put on it and the block is translated again; from then on it raises TRAP_SENSITIVE.
 */
#include "state.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { HOOK_BEGIN = 24, HOOK_END = 32, HOOK_CALLBACK = 40, HOOK_DATA = 48 };   /* struct hook, proved below */
enum { LONGEST_INSTRUCTION = 15 };
#define NO_CODE_HOOK 0xfffffffffffffff0ull

/* The only unbounded thing here is the number of blocks; records are recycled when all translations are dropped. */
bool blocks_create(struct engine *e)
{
    /* mapped, not from the heap: code written into a translation reaches a record that is within 2 GiB of it (inline.c) */
    void *records = mmap(NULL, BLOCK_RECORDS * sizeof *e->blocks, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    e->blocks = records == MAP_FAILED ? NULL : records;
    e->lengths = malloc(LENGTH_BYTES);
    e->units = malloc(LENGTH_BYTES * sizeof *e->units);
    e->codes = malloc(CODE_BYTES);
    e->scratch = (struct block){.pc = BLOCK_UNSEEN, .engine = e};
    if (!e->blocks || !e->lengths || !e->units || !e->codes)
        return false;
    e->blocks[0] = (struct block){.pc = BLOCK_UNSEEN, .engine = e};
    return true;
}

void blocks_destroy(struct engine *e)
{
    if (e->blocks)
        munmap(e->blocks, BLOCK_RECORDS * sizeof *e->blocks);
    free(e->lengths);
    free(e->units);
    free(e->codes);
}

static void next_record(struct engine *e)
{
    if (e->block_count < BLOCK_RECORDS - 1)
        e->block_count++;
    struct block *b = &e->blocks[e->block_count];
    *b = (struct block){.pc = BLOCK_UNSEEN, .engine = e};
    *e->block_data = b;
}

void blocks_forget(struct engine *e)
{
    e->block_count = 0;
    e->length_count = e->code_count = 0;
    e->carry.left = e->base.left = e->left_base.left = 0;
    e->oldest_code = e->newest_code = NULL;
    e->block = NULL;
    e->blocks[0] = (struct block){.pc = BLOCK_UNSEEN, .engine = e};
    *e->block_data = &e->blocks[0];
}

/* Unicorn must not find its buffer full: it then drops all translations within a block, and forgets that the next one is
 * to be of one instruction (is_second_try()). */
bool blocks_nearly_full(const struct engine *e)
{
    return e->block_count > BLOCK_RECORDS - 1024 || e->length_count > LENGTH_BYTES - (1 << 16) || e->code_count > CODE_BYTES - (1 << 16) ||
           e->newest_code - e->oldest_code > CODE_BUFFER_BYTES - (4 << 20);
}

static void note_code(struct engine *e, const uint8_t *at)
{
    if (!e->oldest_code)
        e->oldest_code = at;
    e->newest_code = at > e->newest_code ? at : e->newest_code;
}

/* Unicorn hands out the address of its struct hook as the handle; prove where begin, end and user data stand. */
bool find_hook_fields(struct engine *e, uc_hook block, uc_hook code)
{
    char *b = (char *)block, *c = (char *)code;
    void *data = *(void **)(void *)(b + HOOK_DATA), *callback = *(void **)(void *)(b + HOOK_CALLBACK);
    uint64_t begin = *(uint64_t *)(void *)(c + HOOK_BEGIN), end = *(uint64_t *)(void *)(c + HOOK_END);
    if (data != &e->blocks[0] || callback != (void *)on_block || begin != NO_CODE_HOOK || end != NO_CODE_HOOK)
        return false;
    e->block_data = (void **)(void *)(b + HOOK_DATA);
    e->code_begin = (uint64_t *)(void *)(c + HOOK_BEGIN);
    e->code_end = (uint64_t *)(void *)(c + HOOK_END);
    return true;
}

csh capstone_for(const struct engine *e)
{
    int bits = code_bits(e);
    return e->capstone[bits == 64 ? 2 : bits == 32 ? 1 : 0];
}

static void add_instruction(struct engine *e, struct block *b, unsigned length)
{
    if (e->length_count < LENGTH_BYTES)
        e->lengths[e->length_count++] = (uint8_t)length;
    b->total++;
}

/* TCG knows instructions that capstone does not, and takes LOCK where the processor does not. One stands between `size`
 * bytes and the end of the block. With TF it is alone, and the block shows how long it is; else its block must stop there. */
static void scan_unknown(struct engine *e, struct block *b, const uint8_t *code, size_t size, uint64_t address)
{
    bool alone = !b->total && e->core->eflags & 0x100;
    add_instruction(e, b, size > 15 ? 15 : (unsigned)size);
    if (b->flags & BLOCK_SENSITIVE || (alone && !is_undefined(e, code, size)))
        return;
    b->flags |= BLOCK_SENSITIVE;
    b->sensitive = (uint16_t)(address - b->real_pc);
}

static uint16_t kind_of_end(unsigned id)
{
    switch (id) {
    case X86_INS_CALL: case X86_INS_LCALL: return BLOCK_CALL;
    case X86_INS_JMP: case X86_INS_LJMP: case X86_INS_LOOP: case X86_INS_RET: case X86_INS_RETF: return BLOCK_JUMP;
    default: return id >= X86_INS_JAE && id <= X86_INS_JS ? BLOCK_JUMP : 0;    /* Jcc, JRCXZ */
    }
}

/* Count the block's instructions and find the first one that must trap; what follows it never runs from here. TCG ends a
 * block within an instruction that faults whatever follows (MOV CR at CPL 1): what stands there is looked at in full. */
static void scan(struct engine *e, struct block *b)
{
    uint8_t code[4096 + 32];
    size_t all = peek_code(e, b->real_pc, code, b->size + LONGEST_INSTRUCTION);
    const uint8_t *at = code, *end = code + (all < b->size ? all : b->size);
    uint64_t address = b->real_pc;
    csh handle = capstone_for(e);
    uint16_t kind = 0;
    bool plain = false, wide = in_64bit_code(e);
    b->lengths = e->length_count;
    while (at < end) {
        unsigned length = wide ? plain_length(at, all, &kind) : 0;
        plain = length;
        if (plain) {
            add_instruction(e, b, length);
            at += length, all -= length, address += length;
            continue;
        }
        if (!lib.cs_disasm_iter(handle, &at, &all, &address, e->scan))
            break;
        if (!(b->flags & BLOCK_SENSITIVE) && is_sensitive(e, e->scan)) {
            b->flags |= BLOCK_SENSITIVE | (is_replaced(e->scan->id) ? BLOCK_REPLACED : 0);
            b->sensitive = (uint16_t)(e->scan->address - b->real_pc);
            b->quick = wide ? quick_kind(e->scan->bytes, e->scan->size) : 0;
        }
        add_instruction(e, b, e->scan->size);
    }
    bool known = at >= end;
    if (!known)
        scan_unknown(e, b, at, (size_t)(end - at), address);
    b->counted = b->total;
    if (known && b->total)
        b->flags |= plain ? kind : kind_of_end(e->scan->id);
    if (known && b->total && !plain && is_repeated_string(e->scan) && e->scan->address + e->scan->size == b->real_pc + b->size) {
        b->flags |= BLOCK_REP | (b->total == 1 && in_64bit_code(e) ? bulk_kind(e->scan->bytes, e->scan->size) : 0);
        b->counted--;
    }
}

static void fill_record(struct engine *e, struct block *b, uint64_t pc, uint32_t size)
{
    *b = (struct block){.engine = e, .real_pc = pc, .pc = pc, .size = (uint16_t)size};
    scan(e, b);
    b->flags |= BLOCK_SCANNED;
    if (stops_within(e, pc, size))
        b->flags |= BLOCK_STOP;
    if (b->flags & (BLOCK_REP | BLOCK_STOP))
        b->pc = BLOCK_SLOW;
    e->debt += b->total;
    e->counters.blocks_seen++;
}

/* The translation of the newest block is over: give the next one another record. */
void on_translated(uc_engine *uc, uc_tb *block, uc_tb *previous, void *data)
{
    (void)uc, (void)block, (void)previous;
    struct engine *e = data;
    struct block *b = *e->block_data;
    b->sensitive = 0xffff;         /* translated, not yet run */
    b->real_pc = *e->code_begin;   /* until then: which address had the code hook */
    next_record(e);
}

void leave_block(struct engine *e, int trap) { lib.internal.raise(e->env, trap, 0, 0); }

/* The block holds an instruction that would not trap, or the hook on one that need not: translate it again. */
static void __attribute__((noreturn)) retranslate(struct engine *e, struct block *b, uint64_t hook)
{
    uint64_t hpa;
    *e->code_begin = *e->code_end = hook;
    e->counters.hooked++;
    e->counters.patched_sites += hook != NO_CODE_HOOK && b->flags & BLOCK_REPLACED && is_deprivileged(e);
    if (code_page(e, b->real_pc, &hpa))
        lib.internal.tb_invalidate(e->uc, hpa, hpa + 1);
    b->pc = BLOCK_UNSEEN;
    b->flags = 0;
    leave_block(e, TRAP_AGAIN);
}

static bool holds_instruction(const struct engine *e, const struct block *b, uint64_t pc, uint32_t size)
{
    uint64_t at = b->real_pc;
    for (uint32_t n = 0; n < b->total && at <= pc; n++) {
        uint32_t length = length_at(e, b, n);
        if (at == pc)
            return length == size;
        at += length;
    }
    return false;
}

/* Whether the CALL that is `b` has just been carried out: it calls itself, and its return address is on the stack. */
static bool has_called_itself(struct engine *e, const struct block *b)
{
    uint64_t mask = stack_bits(e) == 64 ? ~0ull : (1ull << stack_bits(e)) - 1;
    uint64_t at = (e->core->regs[RSP] & mask) + (in_64bit_code(e) ? 0 : e->core->segs[SS].base);
    uint16_t top = 0, next = (uint16_t)(e->core->rip + b->size);
    return peek_code(e, at, &top, sizeof top) == sizeof top && top == next;
}

/* A store into the running block makes TCG drop the block and carry out that one instruction again in a block of its
 * own, unannounced. Where the block that was left ends with a jump, a block of that instruction may also be its next round;
 * but jumps do not write. A CALL may do both. In single steps every block has one instruction, and a trap after it. */
static bool is_second_try(struct engine *e, const struct block *left, const struct block *b)
{
    if (!left->engine || b->total != 1 || !holds_instruction(e, left, b->real_pc, b->size))
        return false;
    if (e->core->eflags & 0x100)
        return left->real_pc == b->real_pc && !(b->flags & BLOCK_REP);
    if (b->flags & (BLOCK_JUMP | BLOCK_REP))
        return false;
    return !(b->flags & BLOCK_CALL) || !has_called_itself(e, b);
}

/* `left` ran to its end only as it seemed. */
static void unretire_left(struct engine *e, const struct block *left, uint64_t pc)
{
    restore_left(e);
    unretire(e, left, pc);
}

static struct block *identify(struct engine *e, struct block *b, uint64_t pc, uint32_t size, const struct block *left)
{
    if (b->flags & BLOCK_SCANNED && b->real_pc == pc && b->size == size) {
        if (b->flags & BLOCK_SECOND_TRY && is_second_try(e, left, b))
            unretire_left(e, left, pc);
        else
            left_behind(e, left, pc);
        return b;
    }
    bool fresh = b->pc == BLOCK_UNSEEN && !(b->flags & BLOCK_SCANNED);
    uint64_t hooked_at = fresh && b->sensitive == 0xffff ? b->real_pc : *e->code_begin;
    if (fresh && b == *e->block_data)      /* no report of its translation came (the first block of a run) */
        next_record(e);
    if (!fresh)
        b = &e->scratch;           /* two blocks got one record: possible only if one never ran; count it by hand */
    fill_record(e, b, pc, size);
    if (is_second_try(e, left, b)) {
        b->flags |= BLOCK_SECOND_TRY;
        b->pc = BLOCK_SLOW;
        unretire_left(e, left, pc);
    } else {
        left_behind(e, left, pc);
    }
    bool sensitive = b->flags & BLOCK_SENSITIVE, hooked = hooked_at - pc < size;
    if (sensitive && hooked_at != pc + b->sensitive)
        retranslate(e, b, pc + b->sensitive);
    if (!sensitive && hooked)
        retranslate(e, b, NO_CODE_HOOK);
    if (e->costs && !(b->flags & BLOCK_PRICED))
        price_block(e, b);
    return b;
}

/* After the windows: an interrupt comes before a code breakpoint (manual: "Priority Among Concurrent Events"). Behind MOV SS
 * there is none ("Masking Exceptions and Interrupts When Switching Stacks"). */
static void check_breakpoints(struct engine *e, const struct block *b, bool repeats)
{
    uint64_t hits = debug_before_block(e, b->real_pc, b->size, repeats);
    if (!hits || is_due(e) || in_mov_ss_shadow(e))
        return;
    e->debug.hits = hits;
    leave_block(e, TRAP_BREAKPOINT);
}

/* Behind the hook's call Unicorn asks a helper whether to stop, in each block; nothing of ours stops that way (see
 * probe_exit_check()). Jump over it: mov rdi, uc; xor esi, esi; call helper. Anything else that stands there stays. */
static void skip_exit_check(struct engine *e, uint8_t *code)
{
    enum { LENGTH = 17, MOVABS_RDI = 0xbf48, XOR_ESI_ESI = 0xf633, CALL = 0xe8, JMP_OVER = (LENGTH - 2) << 8 | 0xeb };
    uint64_t argument;
    int32_t relative;
    uint16_t first, second, jump = JMP_OVER;
    memcpy(&first, code, 2);
    memcpy(&second, code + 10, 2);
    memcpy(&argument, code + 2, 8);
    memcpy(&relative, code + 13, 4);
    bool calls = code[12] == CALL && (uintptr_t)(code + LENGTH + relative) == lib.internal.check_exit_request;
    bool passes = first == MOVABS_RDI && argument == (uint64_t)e->uc && second == XOR_ESI_ESI;
    if (calls && passes && layout.no_exit_request)
        memcpy(code, &jump, sizeof jump);
}

/* What translated code may have made of the core, and must not go on with. */
static void mend_core(struct engine *e, const struct block *left, uint64_t pc)
{
    if (!(e->core->hflags & HF_CPL)) {     /* a slip of privilege: never run guest code at CPL 0 */
        e->counters.privilege_slips++;
        set_guest_cpl(e, e->cpl);
        left_behind(e, left, pc);
        leave_block(e, TRAP_AGAIN);
    }
    if (e->core->rip >> 32 && !in_64bit_code(e)) {     /* TCG's JMP EAX takes all of RAX */
        e->core->rip = (uint32_t)e->core->rip;
        left_behind(e, left, (uint32_t)pc);
        leave_block(e, TRAP_AGAIN);
    }
}

/* `back`: where the hook returns to; NULL if its call has been replaced (inline.c). */
static void __attribute__((noinline)) block_slow(struct engine *e, struct block *b, uint64_t pc, uint32_t size, uint8_t *back)
{
    uint64_t rep = e->rep_pc;
    if (goes_on_in_rep(e, b, pc) || begins_rep(e, b, pc, size))
        return;
    struct block left = e->block ? *e->block : (struct block){0};
    settle_rep(e, e->block, pc, e->block != NULL);
    end_block(e);
    mend_core(e, &left, pc);
    if (rep != NO_REP && b->pc == pc && runs_behind_rep(e, b))
        return;
    if (back) {
        skip_exit_check(e, back);
        note_code(e, back);
    }
    struct block *baked = b;
    b = identify(e, b, pc, size, &left);
    if (unlikely(blocks_nearly_full(e))) {
        e->rep_pc = rep == pc ? rep : NO_REP;
        leave_block(e, TRAP_AGAIN);
    }
    check_boundary(e);
    if (e->debug.code)
        check_breakpoints(e, b, rep == pc);
    keep_pace(e, b);
    bool in_rep = e->carry.in_rep;
    book_block(e, b);
    if (b->flags & BLOCK_REP)
        e->rep_pc = pc + b->size - length_at(e, b, b->total - 1u);
    if (e->costs && b->flags & BLOCK_REP)
        begin_rep(e, b, in_rep);
    update_limit(e);
    if (back && b == baked && b->pc == pc)
        inline_hook(e, b, back);
}

void block_again(struct block *b) { block_slow(b->engine, b, b->real_pc, b->size, NULL); }

void on_block(uc_engine *uc, uint64_t pc, uint32_t size, void *data)
{
    (void)uc;
    struct block *b = data;
    struct engine *e = b->engine;
    uint64_t after = e->costs ? e->work + b->work : e->retired + b->counted;
    if (likely(b->pc == pc) && likely(after <= e->limit)) {
        e->retired += b->counted;
        e->work += b->work;
        e->block = b;
        return;
    }
    block_slow(e, b, pc, size, __builtin_return_address(0));
}

/* The hook's fast way ends at `limit`: zero while anything must be looked at before each block. */
void update_limit(struct engine *e)
{
    bool look = e->interrupted || e->rep_pc != NO_REP || e->stepping || e->debug.code || watches_boundaries(e) || tracks_stretch(e) || e->detail.on;
    uint64_t left = retired_left(e), target = target_left(e);
    left = left < target ? left : target;
    if (look || !left)
        e->limit = 0;
    else if (!e->costs)
        e->limit = e->until < e->retired || e->until - e->retired < left ? e->until : e->retired + left;
    else if (left < 1ull << 48 && e->work + left * COST_LEAST < e->until)
        e->limit = e->work + left * COST_LEAST;
    else
        e->limit = e->until ? e->until - 1 : 0;
}
