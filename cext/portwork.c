/* The exits of a polled serial port, without software: half of a kernel's console is reading the line status, and the other
 * half a character. They count and cost as any other; while exits are traced software sees them all. */
#include "state.h"

static bool carries_out_in(struct port_work *w, struct vcpu *v, uint64_t qualification)
{
    if (qualification != w->reads)
        return false;
    v->gpr[RAX] = (v->gpr[RAX] & ~0xffull) | w->value;
    return true;
}

/* A line's end is software's: what it says then is a line. */
static bool carries_out_out(struct port_work *w, const struct vcpu *v, uint64_t qualification)
{
    uint8_t value = (uint8_t)v->gpr[RAX];
    if (qualification != w->writes || value == '\n' || w->said == SAID_BYTES)
        return false;
    w->text[w->said++] = value;
    return true;
}

uint64_t engine_skip_and_enter(struct engine *e, struct vcpu *v, uint64_t until, struct exit_record *record)
{
    struct port_work *w = &e->port_work;
    for (;;) {
        vcpu_skip_exit(v);
        uint64_t code = engine_enter(e, v, until, record), q = record->qualification;
        bool work = code == EXIT_IO_INSTRUCTION && record->cycles < until && !e->tracer;
        if (!work || !(carries_out_in(w, v, q) || carries_out_out(w, v, q)))
            return w->said ? code | CODE_SAID : code;
    }
}

struct port_work *engine_port_work(struct engine *e) { return &e->port_work; }
