/* Dispatch of traps: handler, exception table, abandoned call, or the end. */
#include "trap.h"
#include "console.h"
#include "cpu.h"
#include "desc.h"
#include "report.h"
#include <stddef.h>

struct fixup {
    uint64_t from, to;
};

extern char trap_stubs[], try_landing[];
extern const struct fixup fixups_start[], fixups_end[];
void try_enter(uint64_t *saved_rsp, void (*function)(void *), void *argument);
void try_user(uint64_t *saved_rsp, const struct user_start *start);
void trap_dispatch(struct trap_frame *frame, uint64_t flags);

struct gate idt[256] __attribute__((aligned(16)));
volatile struct trap caught = { .vector = NO_TRAP };

static trap_handler handlers[256];
static uint64_t abandon_rsp;             /* 0: no try_call or enter_user is running */
static uint64_t entry_flags;

void *trap_stub(unsigned vector)
{
    return trap_stubs + 16 * vector;
}

void gate_set(unsigned vector, void *target, uint8_t type, uint8_t ist)
{
    uint64_t offset = (uint64_t)target;

    idt[vector] = (struct gate){
        .offset_low = (uint16_t)offset,
        .selector = KERNEL_CS,
        .ist = ist,
        .type = type,
        .offset_middle = (uint16_t)(offset >> 16),
        .offset_high = (uint32_t)(offset >> 32),
    };
}

/* Back to the usual gate; breakpoints and INT 0x80 may come from ring 3. */
void gate_reset(unsigned vector)
{
    bool from_user = vector == BP || vector == OF || vector == 0x80;
    uint8_t ist = vector == DF ? IST_DOUBLE_FAULT : vector == NMI ? IST_NMI : 0;

    gate_set(vector, trap_stub(vector), GATE_INTERRUPT | (from_user ? GATE_DPL3 : 0), ist);
}

void idt_load_limit(uint16_t limit)
{
    struct table_pointer pointer = { limit, (uint64_t)idt };

    asm volatile("lidt %0" : : "m"(pointer) : "memory");
}

void idt_load(void)
{
    idt_load_limit(sizeof idt - 1);
}

void trap_init(void)
{
    for (unsigned vector = 0; vector < 256; vector++)
        gate_reset(vector);
    idt_load();
}

trap_handler trap_handle(unsigned vector, trap_handler handler)
{
    trap_handler before = handlers[vector];

    handlers[vector] = handler;
    return before;
}

void trap_forget(void)
{
    caught = (struct trap){ .vector = NO_TRAP };
}

void trap_note(const struct trap_frame *frame)
{
    caught = (struct trap){
        .vector = (int)frame->vector,
        .error_code = frame->error_code,
        .rip = frame->rip, .cs = frame->cs, .rflags = frame->rflags,
        .rsp = frame->rsp, .ss = frame->ss, .cr2 = read_cr2(),
        .rax = frame->rax, .rcx = frame->rcx, .rdx = frame->rdx, .r11 = frame->r11,
        .handler_flags = entry_flags,
        .frame = (uint64_t)&frame->rip,
    };
}

static bool try_fixup(struct trap_frame *frame)
{
    for (const struct fixup *f = fixups_start; f < fixups_end; f++) {
        if (frame->rip != f->from && frame->rip != f->to)
            continue;
        trap_note(frame);
        caught.after = frame->rip == f->to;
        frame->rip = f->to;
        frame->rflags &= ~FLAG_TF;
        return true;
    }
    return false;
}

/* Leave the running try_call or enter_user from inside a handler. */
void try_abandon(struct trap_frame *frame)
{
    trap_note(frame);
    frame->rip = (uint64_t)try_landing;
    frame->cs = KERNEL_CS;
    frame->rflags = 2;
    frame->rsp = abandon_rsp;
    frame->ss = KERNEL_SS;
    abandon_rsp = 0;
}

static void give_up(const struct trap_frame *f)
{
    printf("rax %016lx rbx %016lx rcx %016lx rdx %016lx\n", f->rax, f->rbx, f->rcx, f->rdx);
    printf("rsi %016lx rdi %016lx rbp %016lx rsp %016lx\n", f->rsi, f->rdi, f->rbp, f->rsp);
    printf("cs %04lx ss %04lx rflags %08lx cr2 %016lx\n", f->cs, f->ss, f->rflags, read_cr2());
    report_abort("vector %lu error %lx at %04lx:%016lx", f->vector, f->error_code, f->cs, f->rip);
}

void trap_dispatch(struct trap_frame *frame, uint64_t flags)
{
    entry_flags = flags;
    if (handlers[frame->vector])
        handlers[frame->vector](frame);
    else if (!try_fixup(frame)) {
        if (!abandon_rsp)
            give_up(frame);
        try_abandon(frame);
    }
}

struct trap try_call(void (*function)(void *), void *argument)
{
    trap_forget();
    try_enter(&abandon_rsp, function, argument);
    abandon_rsp = 0;
    asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"(KERNEL_SS));
    return caught;
}

struct trap enter_user(const struct user_start *start)
{
    trap_forget();
    try_user(&abandon_rsp, start);
    abandon_rsp = 0;
    asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"(KERNEL_SS));
    return caught;
}
