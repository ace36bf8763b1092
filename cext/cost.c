/* Costs of instructions in a row. The most that one of three holds them up:
 *
 * (i)   the front end: micro-operations by the processor's width; a compare and the jump behind it are one;
 * (ii)  the ports: for each set of ports, what can go nowhere else, shared evenly;
 * (iii) the dependency chain: until the last instruction begins whose result others may wait for; a jump is predicted, and
 *       a store is waited for by nobody. Where the stretch jumps to itself iterations overlap, and what counts instead is
 *       by how much each begins later than the one before: the loop-carried latency.
 *
 * The first two grow with each instruction; the third is booked with the last. Serialising instructions and microcode, for
 * which nothing else runs, are added. Tables: cost_tables.inc, made from llvm-mca (hwmodel/timing/tables).
 */
#include "cost.h"

#include <string.h>

#include "engine.h"

enum role {                        /* hwmodel/timing/tables/forms.py */
    READS_REG = 1 << 0, WRITES_REG = 1 << 1, READS_RM = 1 << 2, WRITES_RM = 1 << 3, LOADS = 1 << 4, STORES = 1 << 5,
    VECTOR_REG = 1 << 6, VECTOR_RM = 1 << 7, READS_OPCODE = 1 << 8, WRITES_OPCODE = 1 << 9, READS_VVVV = 1 << 10,
    WRITES_VVVV = 1 << 11, READS_FLAGS = 1 << 12, WRITES_FLAGS = 1 << 13, X87 = 1 << 14, ENDS = 1 << 15, FUSES = 1 << 16,
    ZEROES = 1 << 17, MOVES = 1 << 18, BRANCH = 1 << 19, PUSHES = 1 << 20, POPS = 1 << 21, BYTES = 1 << 22,
    CONDITIONAL = 1 << 23, MERGES = 1 << 24,
};

struct form { uint32_t roles, reads, writes; };
struct timing {
    uint16_t latency, alone;
    uint8_t uops, count, known;
    struct { uint8_t group; uint16_t units; } use[6];
};
struct repeat { uint16_t start, rate[4]; };
struct cost_table {
    const char *name;
    uint8_t width, load, vector_load, forward, moves, branches;
    const struct timing *timings;
    const uint16_t *of_form;
    const uint64_t *holds;         /* by group of ports: bit n, it lies within candidate n */
    const uint32_t *shares;        /* by candidate: 65536 / ports */
    uint32_t candidates;
};

#include "cost_tables.inc"

enum { COUNT = sizeof tables / sizeof *tables, NO_REGISTER = 16, MMX_FORMS = 1 };

const struct cost_table *cost_table(const char *name)
{
    for (unsigned i = 0; i < COUNT; i++)
        if (!strcmp(tables[i].name, name))
            return &tables[i];
    return NULL;
}

const char *cost_table_name(int index) { return index >= 0 && index < COUNT ? tables[index].name : NULL; }

/* ---- forms ---- */

static uint16_t variant(const struct encoding *e, uint8_t prefix)
{
    uint16_t slot = e->map < 6 ? slot_of[(e->map * 4 + prefix) * 256 + e->opcode] : 0;
    if (!slot)
        return 0;
    uint16_t start = slot_starts[slot - 1];
    unsigned reg = start & 0x8000 ? e->modrm >> 3 & 7 : 0, memory = e->has_modrm && e->modrm >> 6 != 3;
    const uint16_t *at = variants + (start & 0x7fff) + (reg * 2 + memory) * 3;
    uint16_t found = at[e->size == 2 ? 0 : e->size == 4 ? 1 : 2];
    return found ? found : at[1] ? at[1] : at[2] ? at[2] : at[0];
}

/* Number of its form, from 1; 0: none. */
static uint16_t form_of(struct encoding *e, int bits)
{
    if (!e->map && bits != 64 && e->opcode >> 4 == 4) {        /* INC and DEC, whose bytes are prefixes in 64-bit mode */
        e->modrm = (uint8_t)(0xc0 | (e->opcode & 8) | (e->opcode & 7));
        e->opcode = 0xff;
        e->has_modrm = true;
    }
    uint16_t found = variant(e, e->map || e->prefix == 2 ? e->prefix : e->prefix == 3 ? 2 : 0);
    return found ? found : variant(e, 0);
}

/* ---- values ---- */

static uint64_t bit(unsigned n) { return 1ull << n; }

/* A register operand; `number` without REX's bit where that does not count. */
static uint64_t operand(const struct encoding *e, uint32_t roles, bool vector, unsigned number)
{
    bool mmx = vector && e->map >= 1 && e->map <= 3 && e->prefix == 0 && e->opcode >= 0x60 && (e->map != 1 || e->opcode != 0xc6) &&
               !(e->map == 1 && (e->opcode == 0xc2 || e->opcode < 0x60));
    if (mmx)
        return bit(FLOW_MMX + (number & 7));
    if (vector)
        return bit(FLOW_XMM + number);
    if (roles & BYTES && !e->rex && number >= 4 && number < 8)
        number -= 4;               /* AH to BH */
    return bit(number);
}

static void address_of(const struct encoding *e, struct flow_step *s)
{
    unsigned mod = e->modrm >> 6, rm = e->modrm & 7, b = e->rex & 1 ? 8 : 0, x = e->rex & 2 ? 8 : 0;
    s->base = s->index = NO_REGISTER;
    s->displacement = e->displacement;
    if (e->address_size == 2) {
        static const uint8_t bases[8] = {3, 3, 5, 5, 6, 7, 5, 3}, indexes[8] = {6, 7, 6, 7, 16, 16, 16, 16};
        s->base = mod == 0 && rm == 6 ? NO_REGISTER : bases[rm];
        s->index = indexes[rm];
    } else if (rm == 4) {
        unsigned base = e->sib & 7, index = (e->sib >> 3 & 7) | x;
        s->base = (uint8_t)(mod == 0 && base == 5 ? NO_REGISTER : base | b);
        s->index = (uint8_t)(index == 4 ? NO_REGISTER : index);
        s->scale = e->sib >> 6;
    } else if (mod != 0 || rm != 5) {
        s->base = (uint8_t)(rm | b);
    }
    s->address_reads = (s->base < 16 ? bit(s->base) : 0) | (s->index < 16 ? bit(s->index) : 0);
}

static void operands_of(const struct encoding *e, const struct form *f, struct flow_step *s)
{
    uint32_t roles = f->roles;
    uint64_t reg = operand(e, roles, roles & VECTOR_REG, (e->modrm >> 3 & 7) | (e->rex & 4 ? 8 : 0));
    uint64_t rm = operand(e, roles, roles & VECTOR_RM, (e->modrm & 7) | (e->rex & 1 ? 8 : 0));
    uint64_t low = operand(e, roles, false, (e->opcode & 7) | (e->rex & 1 ? 8 : 0));
    s->reads = f->reads | (roles & READS_REG ? reg : 0) | (roles & READS_RM ? rm : 0) | (roles & READS_OPCODE ? low : 0) |
               (roles & READS_VVVV ? bit(e->vvvv) : 0) | (roles & READS_FLAGS ? bit(FLOW_FLAGS) : 0) | (roles & X87 ? bit(FLOW_X87) : 0);
    s->writes = f->writes | (roles & WRITES_REG ? reg : 0) | (roles & WRITES_RM ? rm : 0) | (roles & WRITES_OPCODE ? low : 0) |
                (roles & WRITES_VVVV ? bit(e->vvvv) : 0) | (roles & WRITES_FLAGS ? bit(FLOW_FLAGS) : 0) | (roles & X87 ? bit(FLOW_X87) : 0);
    if (roles & MERGES)
        s->reads |= s->writes & 0xffff;
    if (roles & ZEROES && reg == rm)
        s->reads = 0;
    if (roles & (PUSHES | POPS)) {
        s->reads &= ~bit(4);
        s->writes &= ~bit(4);
    }
}

static void step_of(const struct cost_table *t, const struct encoding *e, const struct form *f, const struct timing *timing, struct flow_step *s)
{
    uint32_t roles = f->roles;
    *s = (struct flow_step){.latency = timing->latency, .base = NO_REGISTER, .index = NO_REGISTER};
    operands_of(e, f, s);
    if (e->has_modrm && e->modrm >> 6 != 3)
        address_of(e, s);
    s->loads = roles & LOADS;
    s->stores = roles & STORES;
    s->vector = roles & (VECTOR_REG | VECTOR_RM);
    s->pushes = roles & PUSHES;
    s->pops = roles & POPS;
    if ((roles & ZEROES && !s->reads) || (roles & MOVES && t->moves && !(roles & MERGES)))
        s->latency = 0;
}

static uint32_t latest(const struct flow *f, uint64_t mask)
{
    uint32_t at = 0;
    for (; mask; mask &= mask - 1) {
        uint32_t ready = f->ready[__builtin_ctzll(mask)];
        at = ready > at ? ready : at;
    }
    return at;
}

/* Addresses are the same if their registers have not been written since and the rest is. */
static uint64_t place_key(const struct flow *f, const struct flow_step *s, int32_t stack)
{
    uint64_t base = s->base < 16 ? s->base | (uint64_t)f->version[s->base] << 5 : 31;
    uint64_t index = s->index < 16 ? s->index | (uint64_t)f->version[s->index] << 5 : 31;
    int32_t displacement = s->displacement + (s->base == 4 ? stack : 0);
    return (base * 0x9e3779b97f4a7c15ull ^ index * 0xc2b2ae3d27d4eb4full ^ s->scale) * 31 + (uint32_t)displacement + 1;
}

static uint32_t *find_place(struct flow *f, uint64_t key)
{
    for (int n = 0; n < FLOW_PLACES; n++)
        if (f->place[n].key == key)
            return &f->place[n].ready;
    return NULL;
}

static void store_at(struct flow *f, uint64_t key, uint32_t ready)
{
    uint32_t *known = find_place(f, key);
    if (!known) {
        f->place[f->next_place].key = key;
        known = &f->place[f->next_place].ready;
        f->next_place = (uint8_t)((f->next_place + 1) % FLOW_PLACES);
    }
    *known = ready;
}

/* Let values flow through one instruction. */
static void run_step(const struct cost_table *t, struct flow *f, const struct flow_step *s)
{
    struct flow_step stack = {.base = 4, .index = NO_REGISTER};
    const struct flow_step *place = s->pushes || s->pops ? &stack : s;
    uint32_t start = latest(f, s->reads), address = latest(f, s->address_reads);
    f->stack -= s->pushes ? 8 : 0;
    uint64_t key = s->loads || s->stores ? place_key(f, place, f->stack) : 0;
    if (s->loads) {
        uint32_t data = address + (s->vector ? t->vector_load : t->load), *stored = find_place(f, key);
        if (stored)
            data = (*stored > address ? *stored : address) + t->forward;
        start = data > start ? data : start;
    }
    f->stack += s->pops ? 8 : 0;
    uint32_t end = start + s->latency;
    for (uint64_t m = s->writes; m; m &= m - 1)
        f->ready[__builtin_ctzll(m)] = end;
    for (uint64_t m = s->writes & 0xffff; m; m &= m - 1)
        f->version[__builtin_ctzll(m)]++;
    if (s->stores)
        store_at(f, key, end);
    if (s->writes & ~bit(FLOW_FLAGS) && start + (s->latency > 0) > f->begun)
        f->begun = start + (s->latency > 0);
}

static uint32_t newest(const struct flow *f)
{
    uint32_t at = latest(f, (1ull << FLOW_COUNT) - 1);
    for (int n = 0; n < FLOW_PLACES; n++)
        at = f->place[n].ready > at ? f->place[n].ready : at;
    return at;
}

/* By how much an iteration is later than the one before, in units. */
static uint32_t carried(struct cost_run *r)
{
    enum { WARM = 2, ROUNDS = 4 };
    uint32_t from = 0;
    for (int round = 0; round < WARM + ROUNDS; round++) {
        if (round == WARM)
            from = newest(&r->flow);
        for (uint32_t n = 0; n < r->done; n++)
            run_step(r->table, &r->flow, &r->step[n]);
    }
    return (newest(&r->flow) - from) * COST_UNIT / ROUNDS;
}

/* ---- the three limits ---- */

static void occupy(struct cost_run *r, const struct timing *timing)
{
    for (unsigned n = 0; n < timing->count; n++)
        for (uint64_t m = r->table->holds[timing->use[n].group]; m; m &= m - 1)
            r->load[__builtin_ctzll(m)] += timing->use[n].units;
}

static uint32_t busiest(const struct cost_run *r)
{
    uint32_t most = 0;
    for (uint32_t n = 0; n < r->table->candidates; n++) {
        uint32_t units = (uint32_t)((uint64_t)r->load[n] * r->table->shares[n] >> 16);
        most = units > most ? units : most;
    }
    return most;
}

static bool returns_to_start(const struct cost_run *r, const struct encoding *e, uint32_t roles)
{
    bool relative = !e->map ? e->opcode != 0xff && e->opcode != 0xe8 : e->map == 1 && e->opcode >> 4 == 8;
    uint64_t target = r->at + (uint64_t)e->immediate;
    return roles & BRANCH && relative && (r->bits == 64 ? target == r->start : (uint32_t)target == (uint32_t)r->start);
}

static struct cost repeated(const struct encoding *e)
{
    static const uint8_t kinds[16] = {0, 0, 0, 0, 0, 0, 4, 4, 9, 9, 1, 1, 2, 2, 3, 3};
    bool port = e->opcode < 0x70;
    const struct repeat *p = &repeats[port ? 5 + (e->opcode >= 0x6e) : kinds[e->opcode & 15]];
    int size = !(e->opcode & 1) ? 0 : e->size == 2 ? 1 : e->size == 4 ? 2 : 3;
    return (struct cost){.units = p->start, .last = true, .rate = p->rate[size], .address_size = e->address_size};
}

static bool is_repeated(const struct encoding *e)
{
    bool string = (e->opcode >= 0xa4 && e->opcode <= 0xa7) || (e->opcode >= 0xaa && e->opcode <= 0xaf) || (e->opcode >= 0x6c && e->opcode <= 0x6f);
    return !e->map && e->repeat && string;
}

void cost_begin(struct cost_run *r, const struct cost_table *table, int bits, uint64_t start)
{
    r->table = table;
    r->start = r->at = start;
    r->done = r->units = r->uops = r->alone = 0;
    r->bits = bits;
    r->may_fuse = false;
    memset(r->load, 0, sizeof r->load);
    memset(&r->flow, 0, sizeof r->flow);
}

static const struct form no_form;
static const struct timing locked = {.latency = 18, .alone = 18 * COST_UNIT, .uops = 8, .known = 1};
static const struct timing no_timing = {.latency = 1, .uops = 1};

static const struct timing *timing_of(const struct cost_table *t, const struct encoding *e, uint16_t form)
{
    return e->lock ? &locked : form ? &t->timings[t->of_form[form - 1]] : &no_timing;
}

static uint32_t total(struct cost_run *r, bool loops, bool last)
{
    uint32_t front = r->uops * COST_UNIT / r->table->width, ports = busiest(r), most = front > ports ? front : ports;
    uint32_t chain = !last ? 0 : loops ? carried(r) : r->flow.begun * COST_UNIT;
    most = chain > most ? chain : most;
    if (loops && most < r->table->branches * (uint32_t)COST_UNIT)
        most = r->table->branches * (uint32_t)COST_UNIT;
    most += r->alone;
    return most < r->done * COST_LEAST ? r->done * COST_LEAST : most;
}

struct cost cost_add(struct cost_run *r, const uint8_t *code, unsigned length)
{
    struct encoding e;
    encoding_of(code, length, r->bits, &e);
    uint16_t number = form_of(&e, r->bits);
    const struct form *f = number ? &forms[number - 1] : &no_form;
    const struct timing *timing = timing_of(r->table, &e, number);
    bool crosses = r->at >> 12 != (r->at + length) >> 12, fused = r->may_fuse && f->roles & CONDITIONAL;
    r->at += length;
    step_of(r->table, &e, f, timing, &r->step[r->done]);
    run_step(r->table, &r->flow, &r->step[r->done]);
    r->done++;
    if (!fused) {
        r->uops += timing->uops;
        occupy(r, timing);
        r->alone += timing->alone;
    }
    r->may_fuse = f->roles & FUSES;
    struct cost c = {.last = crosses || f->roles & ENDS, .transfers = crosses || f->roles & BRANCH, .unknown = timing->known ? 0 : (uint16_t)(1 << 15 | e.map << 8 | e.opcode), .address_size = e.address_size};
    if (is_repeated(&e)) {
        c = repeated(&e);
        r->alone += c.units;
    }
    uint32_t sum = total(r, returns_to_start(r, &e, f->roles), c.last || r->done == STRETCH_MOST), more = sum > r->units ? sum - r->units : 0;
    c.units = (uint16_t)(more < 65535 ? more : 65535);
    r->units += more;
    return c;
}

uint32_t cost_of_block(const char *table, const uint8_t *code, const uint8_t *lengths, uint32_t count, int bits)
{
    struct cost_run r;
    const struct cost_table *t = cost_table(table);
    if (!t)
        return 0;
    cost_begin(&r, t, bits, 0x100000);
    for (uint32_t n = 0; n < count && n < STRETCH_MOST; code += lengths[n], n++)
        cost_add(&r, code, lengths[n]);
    return r.units;
}
