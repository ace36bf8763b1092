/* Tour 2.1: an engine is a physical CPU; engine_enter() is its VM entry, run and VM exit. */
#define _GNU_SOURCE
#include "state.h"
#include "translator.h"
#include "trace.h"
#include "xen.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define NO_CODE_HOOK 0xfffffffffffffff0ull
enum { ATTEMPTS_MAX = 100000 };

static bool fail(struct engine *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct engine *e, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(e->message, sizeof e->message, format, arguments);
    va_end(arguments);
    return false;
}

const char *engine_message(const struct engine *e) { return e ? e->message : "out of memory"; }

static bool allocate(struct engine *e)
{
    uint64_t pages = e->ram_size >> 12;
    e->port_work.reads = e->port_work.writes = NO_PORT;
    e->pages = calloc(pages, sizeof *e->pages);
    e->dirty = calloc((pages + 63) / 64, sizeof *e->dirty);
    e->decoded = calloc(1, decoded_size());
    e->grants = 1;
    e->rep_pc = NO_REP;
    e->most_retired = ~0ull;
    e->failed_check = e->skipped_check = -1;
    e->apic_page = ~0ull;
    e->fills_before_growth = 2048;
    price_create(e);
    return e->pages && e->dirty && e->decoded && stops_create(e) && blocks_create(e);
}

static bool open_capstone(struct engine *e)
{
    static const cs_mode modes[3] = {CS_MODE_16, CS_MODE_32, CS_MODE_64};
    for (int i = 0; i < 3; i++)
        if (lib.cs_open(CS_ARCH_X86, modes[i], &e->capstone[i]) != CS_ERR_OK)
            return fail(e, "capstone cannot decode x86");
    lib.cs_option(e->capstone[2], CS_OPT_DETAIL, CS_OPT_ON);   /* so that the cell below has room for details */
    e->scan = lib.cs_malloc(e->capstone[2]);
    lib.cs_option(e->capstone[2], CS_OPT_DETAIL, CS_OPT_OFF);
    return e->scan != NULL;
}

static bool add_hooks(struct engine *e)
{
    uc_hook block, code, other;
    uc_err error = lib.uc_hook_add(e->uc, &block, UC_HOOK_BLOCK, (void *)on_block, &e->blocks[0], 1, 0);
    error |= lib.uc_hook_add(e->uc, &code, UC_HOOK_CODE, (void *)on_sensitive, e, NO_CODE_HOOK, NO_CODE_HOOK);
    error |= lib.uc_hook_add(e->uc, &other, UC_HOOK_EDGE_GENERATED, (void *)on_translated, e, 1, 0);
    error |= lib.uc_hook_add(e->uc, &other, UC_HOOK_INTR, (void *)on_interrupt, e, 1, 0);
    error |= lib.uc_hook_add(e->uc, &other, UC_HOOK_INSN_INVALID, (void *)on_invalid, e, 1, 0);
    if (error)
        return fail(e, "Unicorn refuses a hook: %s", lib.uc_strerror(error));
    return find_hook_fields(e, block, code) || fail(e, "Unicorn's hooks are not laid out as expected: install unicorn==2.1.4");
}

static bool open_unicorn(struct engine *e)
{
    void *env;
    uc_err error = lib.uc_open(UC_ARCH_X86, UC_MODE_64, &e->uc);
    if (error)
        return fail(e, "Unicorn cannot make an engine: %s", lib.uc_strerror(error));
    lib.uc_ctl(e->uc, UC_CTL_WRITE(UC_CTL_CPU_MODEL, 1), UC_CPU_X86_CASCADELAKE_SERVER);   /* the default has no ADX */
    lib.uc_ctl(e->uc, UC_CTL_WRITE(UC_CTL_TCG_BUFFER_SIZE, 1), (uint32_t)CODE_BUFFER_BYTES);
    error = lib.uc_mem_map_ptr(e->uc, 0, e->ram_size, UC_PROT_ALL, e->ram);
    if (error)
        return fail(e, "Unicorn cannot map %llu bytes of machine memory: %s", (unsigned long long)e->ram_size, lib.uc_strerror(error));
    lib.uc_ctl(e->uc, UC_CTL_WRITE(UC_CTL_TLB_TYPE, 1), UC_TLB_VIRTUAL);
    lib.uc_ctl(e->uc, UC_CTL_WRITE(UC_CTL_UC_USE_EXITS, 1), 1);   /* else every stop invalidates a block */
    if (!find_cpu_state(e->uc, &e->cpu, &env))
        return fail(e, "Unicorn's CPU state was not found");
    e->env = env;
    e->core = env;
    if (layout.no_exit_request)
        *((char *)e->uc + layout.no_exit_request) = 1;
    e->invalid_address = (uint64_t *)(void *)((char *)e->uc + layout.invalid_address);
    e->invalid_error = (int *)(void *)(e->invalid_address + 1);
    memcpy(e->fpu_reset, e->env + layout.fpu, (size_t)(layout.fpu_end - layout.fpu));
    if (!micro_open(e))
        return fail(e, "Unicorn's TLB is not laid out as expected: install unicorn==2.1.4");
    return add_hooks(e) && (mmu_create(e) || fail(e, "no memory for the modelled TLB"));
}

/* Below 4 GiB if there is room: translated code then names it in five bytes (inline.c). */
static struct engine *map_engine(void)
{
    enum { ACCESS = PROT_READ | PROT_WRITE, KIND = MAP_PRIVATE | MAP_ANONYMOUS };
    void *at = mmap(NULL, sizeof(struct engine), ACCESS, KIND | MAP_32BIT, -1, 0);
    if (at == MAP_FAILED)
        at = mmap(NULL, sizeof(struct engine), ACCESS, KIND, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

struct engine *engine_create(uint8_t *ram, uint64_t size)
{
    struct engine *e = map_engine();
    if (!e)
        return NULL;
    e->ram = ram;
    e->ram_size = size;
    if (allocate(e) && open_capstone(e))
        open_unicorn(e);
    return e;                      /* engine_message() is not empty when it cannot be used */
}

void engine_destroy(struct engine *e)
{
    if (!e)
        return;
    if (e->uc)
        lib.uc_close(e->uc);
    if (e->scan)
        lib.cs_free(e->scan, 1);
    for (int i = 0; i < 3; i++)
        if (e->capstone[i])
            lib.cs_close(&e->capstone[i]);
    trace_free(e);
    xen_destroy(e);
    blocks_destroy(e);
    stops_destroy(e);
    free(e->pages);
    peers_leave(e);
    if (!e->dirty_is_lent)
        free(e->dirty);
    mmu_destroy(e);
    price_destroy(e);
    free(e->decoded);
    munmap(e, sizeof *e);
}

uint64_t *engine_dirty_log(struct engine *e) { return e->dirty; }
void engine_harvest_dirty(struct engine *e)
{
    micro_flush(e);
    peers_flush(e);
}

void engine_host_wrote(struct engine *e, uint64_t hpa, uint64_t size) { host_wrote(e, hpa, size); }
/* Software that drops translations has the other processors drop theirs, as by an interrupt to each. */
void engine_flush_tlb(struct engine *e)
{
    mmu_wipe(e);
    for (struct engine *q = e->peer; q && q != e; q = q->peer)
        mmu_wipe(q);
}

uint64_t engine_instructions(const struct engine *e) { return e->retired; }
int engine_set_costs(struct engine *e, const char *table)
{
    e->costs = table ? cost_table(table) : NULL;
    return table && !e->costs ? -1 : 0;
}

void engine_limit_instructions(struct engine *e, uint64_t most) { e->most_retired = most; }
uint64_t engine_cycles(const struct engine *e) { return cycles_now(e); }
const struct engine_counters *engine_counters(const struct engine *e) { return &e->counters; }

const uint64_t *engine_exits_by_reason(const struct engine *e) { return e->by_reason; }
const struct exit_record *engine_history(const struct engine *e) { return e->history; }

void engine_interrupt(struct engine *e)
{
    e->interrupted = 1;
    e->limit = 0;
}

void engine_sync(struct engine *e, struct vcpu *v)
{
    size_t n = (size_t)(layout.fpu_end - layout.fpu);
    if (!v || e->loaded != v)
        return;
    memcpy(v->fpu, e->env + layout.fpu, n);
    v->fpu_bytes = n;
}

/* A vcpu whose memory goes away must not be written to later. */
void engine_forget_vcpu(struct engine *e, struct vcpu *v)
{
    if (e->loaded == v)
        e->loaded = NULL;
    if (e->checked == v)
        e->checked = NULL;
}

void forget_translations(struct engine *e)
{
    lib.uc_ctl(e->uc, UC_CTL_WRITE(UC_CTL_TB_FLUSH, 0));
    blocks_forget(e);
    e->counters.drops++;
}

/* Unicorn came back: because an exit is ready, a fill was refused, or it has nothing more to say. */
static void run_once(struct engine *e)
{
    e->refusal.valid = false;
    flags_into_unicorn(e);
    aborts_belong_to(e);
    uc_err error = lib.uc_emu_start(e->uc, e->core->rip, ~0ull, 0, 0);
    aborts_belong_to(NULL);
    flags_out_of_unicorn(e);
    if (e->exit_ready || is_halted(e))
        return;
    if (error != UC_ERR_OK) {
        fail(e, "Unicorn stopped: %s", lib.uc_strerror(error));
        fill_exit(e, STOP_INTERNAL, error, 0);
    } else if (e->interrupted) {
        fill_exit(e, STOP_INTERRUPTED, 0, 0);
    }
}

/* A guest can be left and entered again any number of times, but each time something must have changed (in a REP that is
 * stepped, its count). If that is not so the mistake is ours; it must not become a hang. */
void check_progress(struct engine *e)
{
    if (e->attempts++ < ATTEMPTS_MAX || e->exit_ready)
        return;
    uint64_t now = (cycles_now(e) + e->retired) * 0x9e3779b97f4a7c15ull + e->core->regs[RCX] + e->core->rip;
    if (e->progress == now) {
        fail(e, "no progress at RIP %#llx", (unsigned long long)e->core->rip);
        fill_exit(e, STOP_INTERNAL, 0, 0);
    }
    e->progress = now;
    e->attempts = 0;
}

static void run(struct engine *e)
{
    while (!e->exit_ready) {
        if (blocks_nearly_full(e))
            forget_translations(e);
        if (is_due(e))                 /* also a guest that faults on the first fetch of each handler */
            fill_exit(e, STOP_DEADLINE, 0, 0);
        else if (unlikely(!target_left(e)))
            fill_exit(e, STOP_TARGET, 0, 0);
        else if (unlikely(is_halted(e)))
            wait_halted(e);
        else
            run_once(e);
        check_progress(e);
    }
}

static bool is_stop(const struct engine *e)
{
    return e->exit.reason == STOP_DEADLINE || e->exit.reason == STOP_INTERRUPTED || (e->exit.reason >= STOP_TARGET && e->exit.reason <= STOP_WATCHPOINT);
}

static void leave_guest(struct engine *e)
{
    if (e->exit.reason == STOP_INTERRUPTED)
        e->interrupted = 0;
    save_guest(e);
    stop_timer(e);
    if (!is_stop(e) && !is_xen(e)) {
        save_by_control(e);
        exchange_exit_msrs(e, true);
    }
    entry_was_good(e);
}

/* The guest's state and MSRs are loaded, an event is injected, the guest runs, its state is saved. */
static void enter_guest(struct engine *e)
{
    uint64_t failed = 0;
    if (!is_xen(e))                /* no VMCS control has a say there */
        load_by_control(e);
    if (!load_guest(e, e->vcpu))   /* no check is missing, so this cannot be but where make mutate leaves one out */
        fill_exit(e, 1u << 31 | EXIT_INVALID_STATE, 0, 0);
    else if (!e->vcpu->paused && !load_entry_msrs(e, &failed))
        fill_exit(e, 1u << 31 | EXIT_MSR_LOAD_FAIL, failed, 0);
    if (e->exit_ready) {
        e->exit.rip = *field(e, VMCS_GUEST_RIP);
        e->checked = NULL;
        exchange_exit_msrs(e, false);
        return;
    }
    e->vcpu->launched = 1;
    start_timer(e);
    apicv_at_entry(e);
    inject_at_entry(e);
    update_limit(e);
    run(e);
    leave_guest(e);
}

uint64_t engine_enter(struct engine *e, struct vcpu *v, uint64_t until, struct exit_record *record)
{
    e->vcpu = v;
    e->exit_ready = false;
    e->block = NULL;
    book_completed(e, v);
    ledger_settle(e);
    charge_entry(e);
    e->until = meter_at(e, until);
    take_stretch(e, v);
    e->counters.entries++;
    e->attempts = 0;
    e->progress = ~0ull;
    bool without_vpid = !v->xen && !exiting2(e, SECONDARY_ENABLE_VPID);
    if (unlikely(e->tracer))
        trace_enter(e);
    if (v->xen || entry_is_allowed(e)) {
        if (without_vpid)
            vpid_off(e);
        enter_guest(e);
        if (without_vpid)
            vpid_off(e);
    }
    if (!is_stop(e))
        detail_book(e);
    if (e->exit.reason != STOP_VM_FAIL)
        publish_exit(e);
    if (unlikely(e->tracer))
        trace_exit(e);
    v->paused = is_stop(e);
    leave_stretch(e, v);
    v->pause_seen &= v->paused;
    *record = e->exit;
    return unlikely(stops_at_exit(e)) ? STOP_EXIT : exit_code(record);
}
