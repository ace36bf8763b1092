/* Finds Unicorn's CPU state and proves the layout that engine.h declares.
 *
 * Unicorn has no interface to the hidden parts of segment registers, to the translation flags or to
 * the exception in flight. They stand in QEMU's CPUX86State, whose address is found by planting
 * distinct values in the general registers and looking for them. Each offset that is used is then
 * proved by an experiment; an experiment that disagrees refuses the library.
 */
#define _GNU_SOURCE
#include "engine.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PROBE_RAM = 1 << 20, CODE = 0x1000, WINDOW = 1 << 17, UC_STRUCT_WINDOW = 1 << 14 };

struct layout layout = {
    .fpu = 600, .fpu_end = 5384, .efer = 592, .error_code = 5384, .is_software = 5388, .old_exception = 5496,
};

static struct { const char *name; int64_t value; } results[16];
static int result_count;

int probe_count(void) { return result_count; }
const char *probe_name(int index) { return index < result_count ? results[index].name : ""; }
int64_t probe_value(int index) { return index < result_count ? results[index].value : -1; }

static bool note(const char *name, int64_t value, bool agrees)
{
    if (result_count < (int)(sizeof results / sizeof *results)) {
        results[result_count].name = name;
        results[result_count++].value = value;
    }
    return agrees || binding_refuse("Unicorn's CPU state is not laid out as expected (%s): install unicorn==2.1.4", name);
}

/* A wild pointer must not crash the search. */
static bool read_safely(void *to, const void *from, size_t n)
{
    struct iovec local = {to, n}, remote = {(void *)(uintptr_t)from, n};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == (ssize_t)n;
}

static const int register_ids[16] = {
    UC_X86_REG_RAX, UC_X86_REG_RCX, UC_X86_REG_RDX, UC_X86_REG_RBX, UC_X86_REG_RSP, UC_X86_REG_RBP, UC_X86_REG_RSI, UC_X86_REG_RDI,
    UC_X86_REG_R8, UC_X86_REG_R9, UC_X86_REG_R10, UC_X86_REG_R11, UC_X86_REG_R12, UC_X86_REG_R13, UC_X86_REG_R14, UC_X86_REG_R15,
};

/* Several pointers lead to the state; the CPU object is the closest one below it. */
static bool search_state(uc_engine *uc, const uint64_t planted[16], void **cpu, void **env)
{
    char *window = malloc(WINDOW);
    uintptr_t best = 0;
    for (int i = 0; window && i < 512; i++) {
        uint64_t pointer;
        if (!read_safely(&pointer, (uint64_t *)(void *)uc + i, 8))
            break;
        if (pointer < 0x10000 || pointer >> 47 || pointer <= best)
            continue;
        size_t n = WINDOW;
        while (n >= 4096 && !read_safely(window, (void *)(uintptr_t)pointer, n))
            n /= 2;
        char *hit = n >= 4096 ? memmem(window, n, planted, 16 * sizeof *planted) : NULL;
        if (hit) {
            best = pointer;
            *cpu = (void *)(uintptr_t)pointer;
            *env = (char *)*cpu + (hit - window);
        }
    }
    free(window);
    return best != 0;
}

bool find_cpu_state(uc_engine *uc, void **cpu, void **env)
{
    if (layout.env_in_cpu) {       /* proved before: only confirm it */
        uint64_t planted = 0x5eed0badcafef00dull;
        lib.uc_reg_write(uc, UC_X86_REG_R15, &planted);
        for (int i = 0; i < 512; i++) {
            uint64_t pointer, seen = 0;
            if (!read_safely(&pointer, (uint64_t *)(void *)uc + i, 8) || pointer < 0x10000 || pointer >> 47)
                continue;
            char *candidate = (char *)(uintptr_t)pointer + layout.env_in_cpu;
            if (read_safely(&seen, candidate + 15 * 8, 8) && seen == planted) {
                *cpu = (void *)(uintptr_t)pointer;
                *env = candidate;
                return true;
            }
        }
        return false;
    }
    uint64_t planted[16];
    for (int i = 0; i < 16; i++) {
        planted[i] = 0x5eed000000000000ull | (uint64_t)(i * 0x01010101 + 0x1f3d5b79) << 8 | (unsigned)i;
        lib.uc_reg_write(uc, register_ids[i], &planted[i]);
    }
    return search_state(uc, planted, cpu, env);
}

/* ---- the experiments ---- */

struct probe { uc_engine *uc; uint8_t *ram; struct core *core; char *env; uint64_t refused, rip_in_load; char *unsync; uint32_t vector; bool stop_on_fill, fail_on_fill; };

static bool on_fill(uc_engine *uc, uint64_t page, uc_mem_type type, uc_tlb_entry *entry, void *data)
{
    (void)type;
    struct probe *p = data;
    if (p->stop_on_fill && page != CODE)
        lib.uc_emu_stop(uc);
    if (p->fail_on_fill && page != CODE)
        *(int *)(void *)((char *)uc + layout.invalid_address + 8) = UC_ERR_HANDLE;
    entry->paddr = page & (PROBE_RAM - 1);
    entry->perms = UC_PROT_ALL;
    return page != (p->refused & ~0xfffull);
}

static void on_trap(uc_engine *uc, uint32_t vector, void *data)
{
    struct probe *p = data;
    p->vector = vector;
    lib.uc_emu_stop(uc);
}

static uc_err run(struct probe *p, const char *code, size_t n)
{
    memcpy(p->ram + CODE, code, n);
    lib.uc_ctl(p->uc, UC_CTL_WRITE(UC_CTL_TB_REMOVE_CACHE, 2), (uint64_t)CODE, (uint64_t)CODE + 32);
    p->vector = ~0u;
    return lib.uc_emu_start(p->uc, CODE, ~0ull, 0, 0);
}

static int32_t word_at(struct probe *p, ptrdiff_t offset) { return *(int32_t *)(void *)(p->env + offset); }

static bool probe_registers(struct probe *p)
{
    uint64_t rip = 0x123456789a, cr3 = 0xabc000, cr2 = 0x77665544, fs = 0x1122334455, gs = 0x66778899aa;
    uc_x86_mmr gdtr = {.base = 0x5000, .limit = 0x1ff}, idtr = {.base = 0x6000, .limit = 0x2ff};
    lib.uc_reg_write(p->uc, UC_X86_REG_RIP, &rip);
    lib.uc_reg_write(p->uc, UC_X86_REG_CR2, &cr2);
    lib.uc_reg_write(p->uc, UC_X86_REG_CR3, &cr3);
    lib.uc_reg_write(p->uc, UC_X86_REG_FS_BASE, &fs);
    lib.uc_reg_write(p->uc, UC_X86_REG_GS_BASE, &gs);
    lib.uc_reg_write(p->uc, UC_X86_REG_GDTR, &gdtr);
    lib.uc_reg_write(p->uc, UC_X86_REG_IDTR, &idtr);
    struct core *c = p->core;
    return note("rip", offsetof(struct core, rip), c->rip == rip) &&
           note("segments", offsetof(struct core, segs), c->segs[FS].base == fs && c->segs[GS].base == gs) &&
           note("gdtr", offsetof(struct core, gdt), c->gdt.base == 0x5000 && c->gdt.limit == 0x1ff) &&
           note("idtr", offsetof(struct core, idt), c->idt.base == 0x6000 && c->idt.limit == 0x2ff) &&
           note("control registers", offsetof(struct core, cr), c->cr[2] == cr2 && c->cr[3] == cr3);
}

static bool probe_flags(struct probe *p)
{
    uint64_t eflags = 0x246, efer = 0;
    lib.uc_reg_write(p->uc, UC_X86_REG_EFLAGS, &eflags);
    uint32_t expected = HF_LMA | HF_CS64 | HF_CS32 | HF_PE;
    uc_x86_msr msr = {.rid = 0xc0000080};
    lib.uc_reg_read(p->uc, UC_X86_REG_MSR, &msr);
    memcpy(&efer, p->env + layout.efer, 8);
    return note("eflags", offsetof(struct core, eflags), (p->core->eflags & 0x200) && p->core->cc_op == 1 && p->core->cc_src == 0x44) &&
           note("hflags", p->core->hflags, (p->core->hflags & expected) == expected && (p->core->hflags & HF_CPL) == 0) &&
           note("efer", layout.efer, efer == msr.value && (efer & 0x500) == 0x500);
}

/* CLI at CPL 1 must fault, and show where the exception in flight is kept; INT must show that it is software's. */
static bool probe_exceptions(struct probe *p)
{
    p->core->hflags |= 1;
    p->core->segs[SS].flags |= 1 << DESC_DPL_SHIFT;
    int32_t before = word_at(p, layout.old_exception);
    run(p, "\xfa", 1);
    bool fault = p->vector == 13 && before == -1 && word_at(p, layout.old_exception) == 13 && word_at(p, layout.is_software) == 0;
    if (!note("old_exception", layout.old_exception, fault))
        return false;
    memset(p->env + layout.old_exception, 0xff, 4);
    run(p, "\xcd\x33", 2);
    return note("exception_is_int", layout.is_software, p->vector == 0x33 && word_at(p, layout.is_software) == 1 && p->core->rip == CODE + 2);
}

/* After two refused loads, the one word of uc_struct that held the address both times. */
static bool probe_invalid_address(struct probe *p)
{
    static const uint64_t addresses[2] = {0x7654321, 0x89abcd7};
    static uint64_t seen[2][UC_STRUCT_WINDOW / 8];
    for (int k = 0; k < 2; k++) {
        p->refused = p->core->regs[RBX] = addresses[k];
        run(p, "\x48\x8b\x03", 3);      /* mov rax, [rbx] */
        for (size_t n = UC_STRUCT_WINDOW; n >= 2048 && !read_safely(seen[k], p->uc, n); )
            n /= 2;
    }
    for (int at = 0; at < UC_STRUCT_WINDOW / 8; at++)
        if (seen[0][at] == addresses[0] && seen[1][at] == addresses[1])
            return note("invalid_addr", layout.invalid_address = at * 8, true);
    return note("invalid_addr", -1, false);
}

/* The error that uc_emu_start() is to return stands behind the address. */
static bool probe_invalid_error(struct probe *p)
{
    p->refused = ~0ull;
    p->core->regs[RBX] = 0x50000;
    p->fail_on_fill = p->stop_on_fill = true;
    uc_err error = run(p, "\x48\x8b\x03", 3);
    p->fail_on_fill = p->stop_on_fill = false;
    return note("invalid_error", layout.invalid_address + 8, error == UC_ERR_HANDLE);
}

/* Does code that was asked to stop in a load go on to the INT behind it? */
static bool goes_on(struct probe *p, uint64_t page)
{
    p->core->regs[RBX] = page;
    run(p, "\x48\x8b\x03\xcd\x33", 5);     /* mov rax, [rbx]; int 0x33 */
    return p->vector == 0x33;
}

/* Unicorn looks for a request to stop after every load and store. Ours come between blocks, so a flag that it keeps for
 * ARM's IT blocks may leave that out. Without the flag nothing is lost but time. */
static bool probe_exit_check(struct probe *p)
{
    enum { FROM_INVALID_ADDRESS = 618 };
    char *flag = (char *)p->uc + layout.invalid_address + FROM_INVALID_ADDRESS;
    p->refused = ~0ull;
    p->stop_on_fill = true;
    bool found = *flag == 0 && !goes_on(p, 0x20000);
    if (found) {
        *flag = 1;
        found = goes_on(p, 0x30000);
        *flag = 0;
        found = found && !goes_on(p, 0x40000);
    }
    layout.no_exit_request = found ? layout.invalid_address + FROM_INVALID_ADDRESS : 0;
    return note("no_exit_request", layout.no_exit_request, true);
}

static void on_load(uc_engine *uc, uc_mem_type type, uint64_t hpa, int size, int64_t value, void *data)
{
    (void)uc, (void)type, (void)hpa, (void)size, (void)value;
    struct probe *p = data;
    p->rip_in_load = p->core->rip;
    if (p->unsync)
        *p->unsync = 1;
}

/* RIP as the second of two loads in a block shows it; the first one may ask not to set it. */
static uint64_t rip_in_second_load(struct probe *p, char *unsync)
{
    p->unsync = unsync;
    p->core->regs[RBX] = 0x20000;
    run(p, "\x48\x8b\x03\x48\x8b\x03\xcd\x33", 8);     /* mov rax, [rbx]; mov rax, [rbx]; int 0x33 */
    return p->rip_in_load;
}

/* Before a hook on loads or stores is called Unicorn finds out RIP, by a search of all translations. A flag that it keeps for
 * software that sets RIP leaves that out until the run's end. Without it nothing is lost but time. */
static bool probe_unsynced(struct probe *p)
{
    enum { FROM_INVALID_ADDRESS = 624 + 64 * sizeof(sigjmp_buf) + 58 };
    uc_hook hook;
    char *flag = (char *)p->uc + layout.invalid_address + FROM_INVALID_ADDRESS;
    p->refused = ~0ull;
    lib.uc_hook_add(p->uc, &hook, UC_HOOK_MEM_READ, (void *)on_load, p, 1, 0);
    bool found = *flag == 0 && rip_in_second_load(p, NULL) == CODE + 3 && *flag == 0 && rip_in_second_load(p, flag) == CODE;
    layout.unsynced = found ? layout.invalid_address + FROM_INVALID_ADDRESS : 0;
    return note("unsynced", layout.unsynced, true);
}

static bool run_probes(struct probe *p)
{
    void *cpu, *env;
    uc_hook hook;
    lib.uc_mem_map_ptr(p->uc, 0, PROBE_RAM, UC_PROT_ALL, p->ram);
    lib.uc_ctl(p->uc, UC_CTL_WRITE(UC_CTL_TLB_TYPE, 1), UC_TLB_VIRTUAL);
    lib.uc_hook_add(p->uc, &hook, UC_HOOK_TLB_FILL, (void *)on_fill, p, 1, 0);
    lib.uc_hook_add(p->uc, &hook, UC_HOOK_INTR, (void *)on_trap, p, 1, 0);
    lib.uc_ctl(p->uc, UC_CTL_WRITE(UC_CTL_UC_USE_EXITS, 1), 1);
    if (!find_cpu_state(p->uc, &cpu, &env))
        return note("cpu state", -1, false);
    layout.env_in_cpu = (char *)env - (char *)cpu;
    p->core = env;
    p->env = env;
    return note("cpu state", layout.env_in_cpu, true) && probe_registers(p) && probe_flags(p) && probe_exceptions(p) &&
           probe_invalid_address(p) && probe_invalid_error(p) && probe_exit_check(p) && probe_unsynced(p);
}

bool probe_core_layout(void)
{
    struct probe p = {.refused = ~0ull};
    p.ram = mmap(NULL, PROBE_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p.ram == MAP_FAILED || lib.uc_open(UC_ARCH_X86, UC_MODE_64, &p.uc) != UC_ERR_OK)
        return binding_refuse("Unicorn cannot make an x86-64 engine");
    bool ok = run_probes(&p);
    lib.uc_close(p.uc);
    munmap(p.ram, PROBE_RAM);
    return ok;
}
