/* Prices of blocks: at the start of a stretch, and where they go on with one that an earlier block began (stretch.c).
 *
 * What a stretch costs depends on its instructions as they ran. A guest may have written over them by the time when its
 * rest is priced, so their code goes along with it (`trail`), also into a virtual CPU that is stopped.
 */
#include "state.h"

static bool goes_on(const struct stretch *s) { return s->done || s->in_rep; }

/* `s`, after the first `n` instructions of `b`. */
struct stretch follow(const struct engine *e, struct stretch s, const struct block *b, uint32_t n)
{
    bool priced = s.done && s.left >= b->total;
    s.units_at = priced ? s.units_at + n : b->lengths + n;
    s.left = priced ? s.left - n : s.done ? 0 : b->total - n;
    s.at = b->real_pc;
    s.in_rep = false;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t length = e->lengths[b->lengths + i];
        if (!s.done)
            s.start = s.at;
        s.at += length & LENGTH_MASK;
        s.done++;
        if (length & LAST_OF_STRETCH || s.done == STRETCH_MOST)
            s.done = 0;
    }
    return s;
}

void copy_trail(struct trail *to, const struct trail *from)
{
    to->length = from->length;
    to->count = from->count;
    memcpy(to->code, from->code, from->length);
    memcpy(to->lengths, from->lengths, from->count);
}

/* Add `count` instructions; there is room for STRETCH_MOST. */
void append_to_trail(struct trail *t, const uint8_t *code, const uint8_t *lengths, uint32_t count)
{
    for (uint32_t n = 0; n < count && t->count < STRETCH_MOST; n++) {
        uint32_t length = lengths[n] & LENGTH_MASK;
        memcpy(t->code + t->length, code, length);
        t->lengths[t->count++] = (uint8_t)length;
        t->length += length;
        code += length;
    }
}

uint32_t bytes_before(const struct engine *e, const struct block *b, uint32_t n)
{
    uint32_t sum = 0;
    while (n--)
        sum += length_at(e, b, n);
    return sum;
}

/* The code of the stretch in which the first `n` instructions of `b` leave `done`; `before`: where `b` began. */
void follow_code(const struct engine *e, struct trail *to, const struct trail *before, uint32_t done, const struct block *b, uint32_t n)
{
    uint32_t first = done < n ? n - done : 0;
    if (!done)
        return;
    if (done <= n)
        to->length = to->count = 0;    /* it begins in this block */
    else if (to != before)
        copy_trail(to, before);
    append_to_trail(to, e->codes + b->code + bytes_before(e, b, first), e->lengths + b->lengths + first, n - first);
}

static uint32_t hash_of(const struct stretch *s, const struct trail *t)
{
    uint64_t h = s->start * 0x9e3779b97f4a7c15ull + s->done, word = 0;
    for (uint32_t n = 0; n < t->length; n += sizeof word) {
        uint32_t left = t->length - n;
        word = 0;
        memcpy(&word, t->code + n, left < sizeof word ? left : sizeof word);
        h = (h ^ word) * 0xc2b2ae3d27d4eb4full;
        h ^= h >> 29;
    }
    return (uint32_t)(h >> 32);
}

/* ---- prices ---- */

/* The next instruction of a stretch, or the first of one. */
static struct cost price_next(struct engine *e, struct cost_run *r, const uint8_t *code, unsigned length)
{
    if (!r->done || r->done == STRETCH_MOST)
        cost_begin(r, e->costs, r->bits, r->at);
    struct cost c = cost_add(r, code, length);
    if (c.last)
        r->done = 0;
    return c;
}

static void note_unknown(struct engine *e, const uint8_t *code, unsigned length, uint16_t form)
{
    struct unknown_cost *u = e->unknown.form;
    for (uint32_t n = 0; n < e->unknown.count; n++, u++)
        if (u->form == form) {
            u->blocks++;
            return;
        }
    if (e->unknown.count == UNKNOWN_COSTS || length > sizeof u->code)
        return;
    *u = (struct unknown_cost){.length = length, .bits = (uint32_t)code_bits(e), .blocks = 1, .form = form};
    memcpy(u->code, code, length);
    e->unknown.count++;
}

uint32_t engine_unknown_costs(const struct engine *e, struct unknown_cost *to)
{
    memcpy(to, e->unknown.form, e->unknown.count * sizeof *to);
    return e->unknown.count;
}

/* Keep the code of `b`: all of an instruction that its translation breaks off in, because it faults, too. */
static const uint8_t *note_code(struct engine *e, struct block *b)
{
    uint32_t size = bytes_before(e, b, b->total);
    uint8_t *code = e->codes + e->code_count;
    b->code = e->code_count;
    e->code_count += size;
    size_t known = peek_code(e, b->real_pc, code, size);
    memset(code + known, 0, size - known);
    return code;
}

void price_block(struct engine *e, struct block *b)
{
    const uint8_t *code = note_code(e, b);
    struct cost_run r;
    cost_begin(&r, e->costs, code_bits(e), b->real_pc);
    b->flags |= BLOCK_PRICED;
    b->work = 0;
    for (uint32_t n = 0; n < b->total; n++) {
        unsigned length = length_at(e, b, n);
        struct cost c = price_next(e, &r, code, length);
        if (unlikely(c.unknown))
            note_unknown(e, code, length, c.unknown);
        e->units[b->lengths + n] = c.units;
        e->lengths[b->lengths + n] |= (c.last ? LAST_OF_STRETCH : 0) | (c.transfers ? TRANSFERS : 0);
        b->work += n < b->counted ? c.units : 0;
        b->rate = c.rate;
        b->address_size = c.address_size;
        code += length;
    }
    e->counters.priced++;
    if (r.done && r.done < STRETCH_MOST && !(b->flags & BLOCK_SENSITIVE)) {
        b->flags |= BLOCK_OPEN;
        b->pc = BLOCK_SLOW;
    }
}

static bool is_priced_so_far(const struct engine *e, const struct stretch *s)
{
    const struct cost_run *r = &e->pricing;
    return r->table == e->costs && r->bits == code_bits(e) && r->start == s->start && r->done == s->done && r->at == s->at &&
           e->priced.count == e->trail.count && e->priced.length == e->trail.length && !memcmp(e->priced.code, e->trail.code, e->trail.length);
}

/* Price the stretch again up to where it was left. */
static bool recall(struct engine *e, const struct stretch *s)
{
    struct cost_run *r = &e->pricing;
    if (is_priced_so_far(e, s))
        return true;
    cost_begin(r, e->costs, code_bits(e), s->start);
    copy_trail(&e->priced, &e->trail);
    const uint8_t *at = e->trail.code;
    for (uint32_t n = 0; s->done && n < e->trail.count; at += e->trail.lengths[n++])
        cost_add(r, at, e->trail.lengths[n]);
    return r->done == s->done && r->at == s->at;
}

/* Room for the units of `b`, which goes on with a stretch. */
static uint32_t make_room(struct engine *e, const struct block *b)
{
    uint32_t at = e->length_count;
    if (at + b->total > LENGTH_BYTES)
        return b->lengths;         /* cannot be: see blocks_nearly_full() */
    memcpy(e->lengths + at, e->lengths + b->lengths, b->total);
    e->length_count += b->total;
    return at;
}

/* Units of each instruction of `b`, which goes on with the stretch `s`. */
static void price_carried(struct engine *e, struct block *b, const struct stretch *s)
{
    const uint8_t *code = e->codes + b->code;
    b->carried_at = b->carried_done ? b->carried_at : make_room(e, b);
    b->carried_done = (uint8_t)s->done;
    b->carried_work = 0;
    if (!recall(e, s))
        cost_begin(&e->pricing, e->costs, code_bits(e), b->real_pc);
    for (uint32_t n = 0; n < b->total; n++) {
        unsigned length = length_at(e, b, n);
        struct cost c = price_next(e, &e->pricing, code, length);
        e->units[b->carried_at + n] = c.units;
        b->carried_work += c.units;
        code += length;
    }
    append_to_trail(&e->priced, e->codes + b->code, e->lengths + b->lengths, b->total);     /* of no use where another stretch began: nothing has its start then */
}

/* A block that was cut: what is left of it may be priced already. */
static bool is_priced(const struct engine *e, const struct block *b, const struct stretch *s)
{
    return s->left >= b->total && !memcmp(e->lengths + s->units_at, e->lengths + b->lengths, b->total);
}

static uint64_t sum_of_rest(const struct engine *e, const struct block *b, const struct stretch *s)
{
    uint64_t sum = 0;
    for (uint32_t n = 0; n < b->total; n++)
        sum += e->units[s->units_at + n];
    return sum;
}

static uint64_t price_of_carried(struct engine *e, struct block *b)
{
    struct stretch *s = &e->carry;
    if (is_priced(e, b, s))
        return sum_of_rest(e, b, s);
    uint32_t code = hash_of(s, &e->trail);
    if (b->carried_done != s->done || b->carried_code != code)
        price_carried(e, b, s);
    b->carried_code = code;
    s->units_at = b->carried_at;
    s->left = b->total;
    return b->carried_work;
}

uint64_t price_of(struct engine *e, struct block *b)
{
    bool carried = goes_on(&e->carry) && e->carry.at == b->real_pc;
    if (!carried)
        e->carry = (struct stretch){0};
    else if (e->carry.done)
        return price_of_carried(e, b);
    return b->work + (b->flags & BLOCK_REP ? e->units[b->lengths + b->total - 1] : 0);
}
