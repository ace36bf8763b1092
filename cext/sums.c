/* What exits and accesses cost, added up as perf kvm stat does it: for `ring1 stat`. */
#include "trace.h"

enum { SUM_EXITS, SUM_MMIO, SUM_PORTS };

/* The place of one event, found or made; NULL when there are too many different ones. */
static struct exit_sum *find_sum(struct tracer *t, uint32_t event, uint64_t key, uint32_t writes, uint32_t vcpu)
{
    uint64_t hash = (key * 8 + event * 2 + writes + ((uint64_t)vcpu << 56)) * 0x9e3779b97f4a7c15ull >> 40;
    for (uint32_t tries = 0; tries < 64; tries++) {
        struct exit_sum *s = &t->sums[(hash + tries) % SUMS];
        if (!s->taken)
            *s = (struct exit_sum){.key = key, .event = event, .writes = writes, .vcpu = vcpu, .taken = 1, .least = ~0ull};
        if (s->key == key && s->event == event && s->writes == writes && s->vcpu == vcpu)
            return s;
    }
    t->counters.sums_lost++;
    return NULL;
}

static void add_sum(struct exit_sum *s, uint64_t cycles)
{
    if (!s)
        return;
    s->count++;
    s->cycles += cycles;
    s->least = cycles < s->least ? cycles : s->least;
    s->most = cycles > s->most ? cycles : s->most;
    double delta = (double)cycles - s->mean;       /* Welford */
    s->mean += delta / (double)s->count;
    s->squares += delta * ((double)cycles - s->mean);
}

void sum_enter(struct tracer *t, uint32_t vcpu, uint64_t now)
{
    struct since_exit *s = &t->since[vcpu];
    if (!s->out)
        return;
    add_sum(find_sum(t, SUM_EXITS, s->reason, 0, vcpu), now - s->at);
    add_sum(s->access, now - s->accessed);
    s->out = false;
    s->access = NULL;
}

void sum_exit(struct tracer *t, uint32_t vcpu, uint64_t now, uint64_t reason)
{
    t->since[vcpu] = (struct since_exit){.out = true, .reading = true, .at = now, .reason = reason};
}

/* A port's time is from the access to the entry, that of a read of memory from the exit to the access, of a write from
 * the access to the entry: what perf kvm stat makes of kvm_pio and kvm_mmio. */
void sum_access(struct tracer *t, uint32_t vcpu, uint64_t now, uint32_t note, uint64_t key)
{
    struct since_exit *s = &t->since[vcpu];
    if (!s->out)
        return;
    if (note == NOTE_MMIO_READ) {
        if (s->reading)
            add_sum(find_sum(t, SUM_MMIO, key, 0, vcpu), now - s->at);
        s->reading = false;
        return;
    }
    s->access = find_sum(t, note == NOTE_MMIO_WRITE ? SUM_MMIO : SUM_PORTS, key, note != NOTE_PORT_IN, vcpu);
    s->accessed = now;
}
