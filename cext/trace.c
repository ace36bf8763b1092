/* Every entry and exit, written to a file as it happens or added to sums; for traces, `ring1 stat` and reports.
 *
 * The file is tracefile.c's.
 */
#define _GNU_SOURCE
#include "trace.h"
#include "state.h"

#include <errno.h>
#include <stdlib.h>

enum { INTERRUPTION_TYPE = 7 << 8, TYPE_NMI = 2 << 8, TYPE_EXCEPTION = 3 << 8 };

static uint64_t head(enum trace_kind kind, unsigned words, uint32_t vcpu, uint32_t note)
{
    return (uint64_t)kind | (uint64_t)words << 8 | (uint64_t)vcpu << 16 | (uint64_t)note << 32;
}

/* ---- plain accesses: what software need not tell ---- */

/* Words of a note: head, cycle, a, b, c. */
static void write_note(struct tracer *t, uint32_t note, uint32_t vcpu, uint64_t now, uint64_t a, uint64_t b, uint64_t c)
{
    enum { WORDS = 5 };
    uint64_t kind = head(TRACE_NOTE, WORDS, vcpu, note);
    if (note == NOTE_IDLE && t->idle && t->idle[0] == kind && t->idle[1] == now - a) {
        t->idle[1] = now;          /* looking at the host in between is nothing of the guest's */
        t->idle[2] += a;
        return;
    }
    uint64_t *w = trace_room(t, WORDS);
    if (!w)
        return;
    w[0] = kind;
    w[1] = now;
    w[2] = a;
    w[3] = b;
    w[4] = c;
    trace_commit(t, WORDS);
    t->idle = note == NOTE_IDLE ? w : NULL;
}

/* Memory that is swapped out is no device. */
static bool is_ram(const struct tracer *t, uint64_t gpa)
{
    for (int k = 0; k < 8; k += 2)
        if (gpa >= t->ram[k] && gpa < t->ram[k + 1])
            return true;
    return false;
}

static uint64_t low_bytes(uint64_t value, uint64_t size) { return size >= 8 ? value : value & ((1ull << size * 8) - 1); }

static void access_begins(struct tracer *t, uint32_t n, uint64_t now, uint32_t note, uint64_t address, uint32_t size, uint64_t value)
{
    if (t->sums)
        sum_access(t, n, now, note, address);
    write_note(t, note, n, now, address, size, value);
}

static void answer_awaited(struct tracer *t, uint32_t n, uint64_t now, uint32_t note, uint64_t address, uint32_t size, uint32_t reg)
{
    struct since_exit *s = &t->since[n];
    if (t->sums)
        sum_access(t, n, now, note, address);
    s->answers = true;
    s->note = note;
    s->address = address;
    s->size = size;
    s->reg = reg;
}

static void derive_access(struct engine *e, uint32_t n)
{
    enum { IS_IN = 1 << 3, STRING = 1 << 4 };
    struct tracer *t = e->tracer;
    const struct vcpu *v = e->vcpu;
    const struct exit_record *x = &e->exit;
    uint64_t q = x->qualification, now = x->cycles;
    if (x->reason == EXIT_IO_INSTRUCTION && !(q & STRING)) {
        uint32_t size = (uint32_t)(q & 7) + 1;
        if (q & IS_IN)
            answer_awaited(t, n, now, NOTE_PORT_IN, q >> 16, size, RAX);
        else
            access_begins(t, n, now, NOTE_PORT_OUT, q >> 16, size, low_bytes(v->gpr[RAX], size));
    } else if (x->reason == EXIT_EPT_VIOLATION && v->mov_size && !is_ram(t, x->guest_physical)) {
        uint32_t size = (uint32_t)v->mov_size;
        if (v->mov_writes)
            access_begins(t, n, now, NOTE_MMIO_WRITE, x->guest_physical, size, v->mov_value);
        else
            answer_awaited(t, n, now, NOTE_MMIO_READ, x->guest_physical, size, (uint32_t)v->mov_register);
    }
}

static void tell_answer(struct tracer *t, uint32_t n, uint64_t now, const struct vcpu *v)
{
    struct since_exit *s = &t->since[n];
    if (!s->answers)
        return;
    s->answers = false;
    write_note(t, s->note, n, now, s->address, s->size, low_bytes(v->gpr[s->reg], s->size));
}

/* ---- what happens ---- */

static uint32_t number_of(struct tracer *t, const struct vcpu *v)
{
    if (t->vcpu[t->last] == v)
        return t->last;
    for (uint32_t n = 0; n < TRACE_VCPUS; n++)
        if (t->vcpu[n] == v)
            return t->last = n;
    return 0;
}

static void count_injection(struct tracer *t, uint64_t info)
{
    if (!(info >> 31 & 1))
        return;
    uint64_t type = info & INTERRUPTION_TYPE;
    *(type == 0 ? &t->counters.injected_interrupts : type == TYPE_NMI ? &t->counters.injected_nmis : &t->counters.injected_exceptions) += 1;
}

enum { SPENT_WORDS = LEDGER_HEADINGS - 1 };

/* What each heading got since the last entry or exit; nothing where the clock was put back. */
static void look_at_ledger(struct tracer *t, const uint64_t cycles[LEDGER_HEADINGS])
{
    for (int heading = 0; heading < LEDGER_HEADINGS; heading++) {
        uint64_t now = cycles[heading], before = t->told[heading];
        t->spent[heading] = now > before ? now - before : 0;
        t->told[heading] = now;
    }
}

static void put_spent(const struct tracer *t, uint64_t *w)
{
    for (int heading = 0; heading < LEDGER_HEADINGS; heading++)
        if (heading != LEDGER_STEAL)
            *w++ = t->spent[heading];
}

/* When the guest was left: an exit's price is booked at once, before its handler runs. */
static uint64_t left_at(const struct engine *e)
{
    const uint64_t *spent = e->tracer->spent;
    uint64_t price = spent[LEDGER_EXIT] + spent[LEDGER_HYPERVISOR] + spent[LEDGER_DEVICE];
    return e->exit.cycles > price ? e->exit.cycles - price : 0;
}

static bool goes_on(struct tracer *t, uint32_t n, uint64_t now, uint64_t event);
static void tell_stop(struct engine *e);

/* Words of an entry: head, cycle, instructions, RIP, event to inject and its error code, RAX, RBX, RCX, RDX, and the
 * ledger. */
void trace_enter(struct engine *e)
{
    enum { WORDS = 9 + SPENT_WORDS };
    struct tracer *t = e->tracer;
    const struct vcpu *v = e->vcpu;
    uint32_t n = number_of(t, v);
    uint64_t now = cycles_now(e), event = v->field[VMCS_VM_ENTRY_INTR_INFO_FIELD];
    if (goes_on(t, n, now, event))
        return;
    tell_stop(e);
    look_at_ledger(t, e->ledger.cycles);
    t->counters.price[LEDGER_ENTRY] = t->spent[LEDGER_ENTRY];
    count_injection(t, event);
    tell_answer(t, n, now - t->spent[LEDGER_ENTRY], v);
    if (t->sums)
        sum_enter(t, n, now);
    uint64_t *w = trace_room(t, WORDS);
    if (!w)
        return;
    w[0] = head(TRACE_ENTER, WORDS, n, 0);
    w[1] = now;
    w[2] = e->retired;
    w[3] = v->field[VMCS_GUEST_RIP];
    w[4] = (uint32_t)event | v->field[VMCS_VM_ENTRY_EXCEPTION_ERROR_CODE] << 32;
    w[5] = v->gpr[RAX];
    w[6] = v->gpr[RBX];
    w[7] = v->gpr[RCX];
    w[8] = v->gpr[RDX];
    put_spent(t, &w[9]);
    trace_commit(t, WORDS);
}

static void keep_price(struct tracer *t)
{
    for (int heading = LEDGER_EXIT; heading <= LEDGER_DEVICE; heading++)
        if (heading != LEDGER_ENTRY)
            t->counters.price[heading] = t->spent[heading];
}

/* The register that MOV to or from a control register names. */
static uint64_t moved(const struct vcpu *v, const struct exit_record *x) { return v->gpr[x->qualification >> 8 & 15]; }

/* Words of an exit: head, cycle, instructions, sequence, reason, qualification, linear and physical address,
 * interruption and IDT-vectoring information each with its error code, length and instruction information, RIP, RAX,
 * RBX, RCX, RDX, RSI, the register of a CR access, page walks so far, references so far, 16 bytes of
 * code (the last says how many are valid), CS base with the code size (39:32) and CPL (47:40), the ledger. */
static void write_exit(struct engine *e, uint32_t n, const struct exit_record *x)
{
    enum { WORDS = 23 + SPENT_WORDS };
    struct tracer *t = e->tracer;
    const struct vcpu *v = t->vcpu[n] ? t->vcpu[n] : e->vcpu;
    uint64_t *w = trace_room(t, WORDS);
    if (!w)
        return;
    w[0] = head(TRACE_EXIT, WORDS, n, 0);
    w[1] = x->cycles;
    w[2] = x->instructions;
    w[3] = x->sequence;
    w[4] = exit_code(x);
    w[5] = x->qualification;
    w[6] = x->guest_linear;
    w[7] = x->guest_physical;
    w[8] = (uint32_t)x->interruption_info | x->interruption_error << 32;
    w[9] = (uint32_t)x->idt_vectoring_info | x->idt_vectoring_error << 32;
    w[10] = (uint32_t)x->instruction_length | x->instruction_info << 32;
    w[11] = x->rip;
    w[12] = v->gpr[RAX];
    w[13] = v->gpr[RBX];
    w[14] = v->gpr[RCX];
    w[15] = v->gpr[RDX];
    w[16] = v->gpr[RSI];
    w[17] = moved(v, x);
    w[18] = e->counters.tlb_walks;
    w[19] = e->mmu.counters.guest_references + e->mmu.counters.ept_references;
    memset(&w[20], 0, 16);
    memcpy(&w[20], v->code, v->code_bytes < 15 ? v->code_bytes : 15);
    w[21] = (w[21] & ~0ull >> 8) | v->code_bytes << 56;
    w[22] = (uint32_t)v->field[VMCS_GUEST_CS_BASE] | v->code_size << 32 | v->cpl << 40;
    put_spent(t, &w[23]);
    trace_commit(t, WORDS);
}

/* Where a turn ends and the host is looked at depends on who watches: a stop from which the same vCPU goes on at the
 * same moment, with nothing said and nothing injected, is left out, so that a replay has the trace of its record. */
static bool is_pause(const struct exit_record *x)
{
    return !x->operation && (x->reason == STOP_DEADLINE || x->reason == STOP_INTERRUPTED || x->reason == STOP_TARGET);
}

static void keep_stop(struct engine *e, uint32_t n)
{
    struct tracer *t = e->tracer;
    t->stopped = true;
    t->stopped_vcpu = n;
    t->stop = e->exit;
    t->stop.reason = STOP_DEADLINE;
    memcpy(t->stop_ledger, e->ledger.cycles, sizeof t->stop_ledger);
}

static void tell_stop(struct engine *e)
{
    struct tracer *t = e->tracer;
    if (!t->stopped)
        return;
    t->stopped = false;
    look_at_ledger(t, t->stop_ledger);
    write_exit(e, t->stopped_vcpu, &t->stop);
}

static bool goes_on(struct tracer *t, uint32_t n, uint64_t now, uint64_t event)
{
    if (!t->stopped || n != t->stopped_vcpu || now != t->stop.cycles || event >> 31 & 1)
        return false;
    t->stopped = false;
    return true;
}

void trace_exit(struct engine *e)
{
    struct tracer *t = e->tracer;
    const struct exit_record *x = &e->exit;
    uint32_t n = number_of(t, e->vcpu);
    if (is_pause(x)) {
        keep_stop(e, n);
        return;
    }
    look_at_ledger(t, e->ledger.cycles);
    keep_price(t);
    if (t->sums && (exit_code(x) & 0xffff) < REASONS)
        sum_exit(t, n, left_at(e), exit_code(x) & 0xffff);
    write_exit(e, n, x);
    if (t->derives)
        derive_access(e, n);
}

/* ---- from outside ---- */

static struct tracer *tracer_of(struct engine *e)
{
    if (!e->tracer)
        e->tracer = calloc(1, sizeof *e->tracer);
    return e->tracer;
}

void engine_trace_vcpu(struct engine *e, struct vcpu *v, uint32_t number)
{
    struct tracer *t = tracer_of(e);
    if (t && number < TRACE_VCPUS)
        t->vcpu[number] = v;
}

int engine_trace_start(struct engine *e, int descriptor, uint64_t segments)
{
    struct tracer *t = tracer_of(e);
    if (!t)
        return ENOMEM;
    t->descriptor = descriptor;
    t->limit = segments;
    memcpy(t->told, e->ledger.cycles, sizeof t->told);
    int error = trace_segment(t, 1);
    t->writes = !error;
    return error;
}

int engine_sums_start(struct engine *e)
{
    struct tracer *t = tracer_of(e);
    if (t)
        memcpy(t->told, e->ledger.cycles, sizeof t->told);
    if (t && !t->sums)
        t->sums = calloc(SUMS, sizeof *t->sums);
    return t && t->sums ? 0 : ENOMEM;
}

const struct exit_sum *engine_sums(const struct engine *e, uint32_t *room)
{
    *room = e->tracer && e->tracer->sums ? SUMS : 0;
    return *room ? e->tracer->sums : NULL;
}

void engine_trace_note(struct engine *e, uint32_t note, uint32_t vcpu, uint64_t a, uint64_t b, uint64_t c)
{
    struct tracer *t = e->tracer;
    if (!t || vcpu >= TRACE_VCPUS)
        return;
    if (t->sums && note <= NOTE_MMIO_WRITE)
        sum_access(t, vcpu, cycles_now(e), note, a);
    tell_stop(e);
    write_note(t, note, vcpu, cycles_now(e), a, b, c);
}

void engine_trace_derive(struct engine *e, const uint64_t ram[8])
{
    struct tracer *t = tracer_of(e);
    if (!t)
        return;
    t->derives = true;
    memcpy(t->ram, ram, sizeof t->ram);
}

const struct trace_counters *engine_trace_counters(const struct engine *e) { return e->tracer ? &e->tracer->counters : NULL; }
void engine_trace_settle(struct engine *e)
{
    if (e->tracer)
        tell_stop(e);
}

void engine_trace_stop(struct engine *e) { trace_free(e); }

void trace_free(struct engine *e)
{
    if (!e->tracer)
        return;
    trace_unmap(e->tracer);
    free(e->tracer->sums);
    free(e->tracer);
    e->tracer = NULL;
}
