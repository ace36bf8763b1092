/* MMIO
 *
 * Every operand form that a device register may meet.  The test device at 0xff000000 is 64 KiB that
 * keep what is written to them, yet every access is an exit that the hypervisor must complete: so a
 * form run on it must end exactly as the same form run on RAM, in registers, flags, memory, and
 * faults.  Then the same across a page border, with RAM on one side and the device on the other.
 *
 * Command line: mmio=ADDRESS for a device elsewhere, mmio=ram to try the forms on RAM alone. */
#include "lib/forms.h"
#include "lib/test.h"

const char test_title[] = "MMIO, every operand form";

FORM("mov (%rdi), %al", NOTHING, 0)
FORM("mov (%rdi), %dh", NOTHING, 0)
FORM("mov (%rdi), %ax", NOTHING, 0)
FORM("mov (%rdi), %eax", NOTHING, 0)
FORM("mov (%rdi), %rax", NOTHING, 0)
FORM("mov %al, (%rdi)", NOTHING, 0)
FORM("mov %bh, (%rdi)", NOTHING, 0)
FORM("mov %ax, (%rdi)", NOTHING, 0)
FORM("mov %eax, (%rdi)", NOTHING, 0)
FORM("mov %rax, (%rdi)", NOTHING, 0)
FORM("mov %rax, 1(%rdi)", NOTHING, 0)
FORM("movb $0x5a, (%rdi)", NOTHING, 0)
FORM("movw $0x5aa5, (%rdi)", NOTHING, 0)
FORM("movl $0x5aa55aa5, (%rdi)", NOTHING, 0)
FORM("movq $-5, (%rdi)", NOTHING, 0)
FORM("mov %ss, (%rdi)", NOTHING, 0)
FORM("movzbl (%rdi), %eax", NOTHING, 0)
FORM("movzwl (%rdi), %eax", NOTHING, 0)
FORM("movzbw (%rdi), %ax", NOTHING, 0)
FORM("movzwq (%rdi), %rax", NOTHING, 0)
FORM("movsbl (%rdi), %eax", NOTHING, 0)
FORM("movsbq (%rdi), %rax", NOTHING, 0)
FORM("movswq 2(%rdi), %rax", NOTHING, 0)
FORM("movslq 4(%rdi), %rax", NOTHING, 0)
FORM("movnti %rax, (%rdi)", NOTHING, 0)
FORM("movbe (%rdi), %rax", NOTHING, 1)
FORM("movbe (%rdi), %ax", NOTHING, 1)
FORM("movbe %eax, (%rdi)", NOTHING, 1)

FORM("mov %rdi, %rbx; stosb; stosw; stosl; stosq", NOTHING, 0)
FORM("mov $5, %ecx; rep stosl", NOTHING, 0)
FORM("mov $3, %ecx; std; rep stosw; cld", NOTHING, 0)
FORM("xor %ecx, %ecx; rep stosb", NOTHING, 0)
FORM("xchg %rsi, %rdi; lodsb; lodsw", NOTHING, 0)
FORM("xchg %rsi, %rdi; lodsl; lodsq", NOTHING, 0)
FORM("mov $7, %ecx; rep movsb", NOTHING, 0)
FORM("mov $3, %ecx; rep movsq", NOTHING, 0)
FORM("xchg %rsi, %rdi; mov $5, %ecx; rep movsl", NOTHING, 0)
FORM("lea 3(%rdi), %rsi; mov $9, %ecx; rep movsb", NOTHING, 0)
FORM("lea -1(%rdi), %rsi; mov $9, %ecx; rep movsb", NOTHING, 0)
FORM("mov $9, %ecx; std; rep movsb; cld", NOTHING, 0)
FORM("movsw", NOTHING, 0)
FORM("cmpsb", ARITHMETIC, 0)
FORM("mov $20, %ecx; repe cmpsb", ARITHMETIC, 0)
FORM("xchg %rsi, %rdi; mov $4, %ecx; repne cmpsl", ARITHMETIC, 0)
FORM("mov $20, %ecx; mov $0x19, %al; repne scasb", ARITHMETIC, 0)
FORM("scasq", ARITHMETIC, 0)
FORM("mov $0x3ff, %edx; mov $5, %ecx; rep insb", NOTHING, 0)

FORM("xchg %al, (%rdi)", NOTHING, 0)
FORM("xchg %rax, (%rdi)", NOTHING, 0)
FORM("add %al, (%rdi)", ARITHMETIC, 0)
FORM("add %rax, (%rdi)", ARITHMETIC, 0)
FORM("add (%rdi), %eax", ARITHMETIC, 0)
FORM("addl $-3, (%rdi)", ARITHMETIC, 0)
FORM("lock addl $7, (%rdi)", ARITHMETIC, 0)
FORM("stc; adc %eax, (%rdi)", ARITHMETIC, 0)
FORM("stc; adc (%rdi), %rax", ARITHMETIC, 0)
FORM("sub %ax, (%rdi)", ARITHMETIC, 0)
FORM("sub (%rdi), %rax", ARITHMETIC, 0)
FORM("stc; sbb %rax, (%rdi)", ARITHMETIC, 0)
FORM("stc; sbb (%rdi), %al", ARITHMETIC, 0)
FORM("and %eax, (%rdi)", LOGIC, 0)
FORM("and (%rdi), %rax", LOGIC, 0)
FORM("or %rax, (%rdi)", LOGIC, 0)
FORM("lock orb $0x80, (%rdi)", LOGIC, 0)
FORM("or (%rdi), %ax", LOGIC, 0)
FORM("xor %al, (%rdi)", LOGIC, 0)
FORM("xor (%rdi), %eax", LOGIC, 0)
FORM("incb (%rdi)", ARITHMETIC, 0)
FORM("stc; incq (%rdi)", ARITHMETIC, 0)
FORM("lock decl (%rdi)", ARITHMETIC, 0)
FORM("decw (%rdi)", ARITHMETIC, 0)
FORM("negl (%rdi)", ARITHMETIC, 0)
FORM("negq (%rdi)", ARITHMETIC, 0)
FORM("stc; notl (%rdi)", ARITHMETIC, 0)
FORM("notb (%rdi)", ARITHMETIC, 0)
FORM("cmp %rax, (%rdi)", ARITHMETIC, 0)
FORM("cmp (%rdi), %al", ARITHMETIC, 0)
FORM("cmpl $0x12345678, (%rdi)", ARITHMETIC, 0)
FORM("test %eax, (%rdi)", LOGIC, 0)
FORM("testb $0x81, (%rdi)", LOGIC, 0)

FORM("cmpxchg %ecx, (%rdi)", ARITHMETIC, 0)
FORM("mov (%rdi), %rax; lock cmpxchg %rcx, (%rdi)", ARITHMETIC, 0)
FORM("lock cmpxchg %cl, (%rdi)", ARITHMETIC, 0)
FORM("cmpxchg8b (%rdi)", ZERO, 0)
FORM("mov (%rdi), %eax; mov 4(%rdi), %edx; lock cmpxchg8b (%rdi)", ZERO, 0)
FORM("mov (%rdi), %rax; mov 8(%rdi), %rdx; lock cmpxchg16b (%rdi)", ZERO, 4)
FORM("xadd %eax, (%rdi)", ARITHMETIC, 0)
FORM("lock xadd %rax, (%rdi)", ARITHMETIC, 0)
FORM("btl $5, (%rdi)", CARRY, 0)
FORM("mov $70, %eax; bt %rax, (%rdi)", CARRY, 0)
FORM("mov $-3, %rax; bts %rax, (%rdi)", CARRY, 0)
FORM("lock btsl $9, (%rdi)", CARRY, 0)
FORM("btrq $33, (%rdi)", CARRY, 0)
FORM("mov $17, %eax; btc %eax, (%rdi)", CARRY, 0)
FORM("shll (%rdi)", LOGIC, 0)
FORM("shlq $5, (%rdi)", SHIFT, 0)
FORM("shrw (%rdi)", LOGIC, 0)
FORM("mov $3, %ecx; sarb %cl, (%rdi)", SHIFT, 0)
FORM("roll $7, (%rdi)", CARRY, 0)
FORM("stc; rcrq (%rdi)", CARRY, 0)
FORM("shld $9, %rax, (%rdi)", SHIFT, 0)
FORM("mov $4, %ecx; shrd %cl, %eax, (%rdi)", SHIFT, 0)
FORM("sete (%rdi); setne 1(%rdi)", NOTHING, 0)
FORM("cmp %eax, %eax; cmove (%rdi), %ecx; cmovne 8(%rdi), %rdx", ARITHMETIC, 0)
FORM("mull (%rdi)", MULTIPLY, 0)
FORM("imul (%rdi), %rax", MULTIPLY, 0)
FORM("imul $-7, (%rdi), %eax", MULTIPLY, 0)
FORM("xor %edx, %edx; divl (%rdi)", NOTHING, 0)
FORM("movb $0, (%rdi); mov $5, %eax; divb (%rdi)", NOTHING, 0)
FORM("bsf (%rdi), %rax; bsr (%rdi), %ecx", ZERO, 0)
FORM("popcnt (%rdi), %rax", ARITHMETIC, 3)
FORM("crc32q (%rdi), %rax", NOTHING, 3)
FORM("andn (%rdi), %rax, %rcx", CARRY, 2)
FORM("tzcnt (%rdi), %eax", CARRY, 2)

FORM("pushq (%rdi); pop %rax", NOTHING, 0)
FORM("push %rax; popq (%rdi)", NOTHING, 0)
FORM("pushw (%rdi); pop %cx", NOTHING, 0)
FORM("lea 1f(%rip), %rax; mov %rax, (%rdi); call *(%rdi); jmp 2f; 1: inc %ecx; ret; 2:", NOTHING, 0)
FORM("lea 1f(%rip), %rbx; mov %rbx, (%rdi); jmp *(%rdi); ud2; 1: xor %ebx, %ebx", NOTHING, 0)
FORM("mov %rsp, %rbx; lea 16(%rdi), %rsp; push %rcx; push %rax; pop %rdx; mov %rbx, %rsp; xor %ebx, %ebx",
     NOTHING, 0)
FORM("mov $4, %eax; mov %rdi, %rbx; xlatb; xor %ebx, %ebx", NOTHING, 0)
FORM("sgdt (%rdi)", NOTHING, 0)
FORM("smsw (%rdi)", NOTHING, 0)
FORM("prefetcht0 (%rdi)", NOTHING, 0)

FORM("movdqa (%rdi), %xmm0", NOTHING, 0)
FORM("movdqa %xmm0, (%rdi)", NOTHING, 0)
FORM("movdqu 3(%rdi), %xmm1", NOTHING, 0)
FORM("movups %xmm1, 5(%rdi)", NOTHING, 0)
FORM("movaps %xmm0, 4(%rdi)", NOTHING, 0)
FORM("movupd (%rdi), %xmm0", NOTHING, 0)
FORM("movntdq %xmm1, (%rdi)", NOTHING, 0)
FORM("movd (%rdi), %xmm0", NOTHING, 0)
FORM("movd %xmm0, (%rdi)", NOTHING, 0)
FORM("movq (%rdi), %xmm0", NOTHING, 0)
FORM("movq %xmm1, (%rdi)", NOTHING, 0)
FORM("movss (%rdi), %xmm0; movss %xmm0, 8(%rdi)", NOTHING, 0)
FORM("movsd (%rdi), %xmm1; movsd %xmm1, 8(%rdi)", NOTHING, 0)
FORM("movhps (%rdi), %xmm0; movlps %xmm0, 8(%rdi)", NOTHING, 0)
FORM("paddd (%rdi), %xmm0; pxor 16(%rdi), %xmm1", NOTHING, 0)
FORM("fninit; fildll (%rdi); fistpll 8(%rdi)", NOTHING, 0)
FORM("fninit; fld1; fstps (%rdi); fnstcw 8(%rdi)", NOTHING, 0)

enum { WINDOW = 96, INSIDE = 512, CROSSING = 4096 - 5 };
#define VIEW TEST_AREA
#define DEVICE_DEFAULT 0xff000000ul

/* What one run of a form left behind. */
struct outcome {
    int vector;
    struct form_state state;
    uint8_t memory[WINDOW], other[WINDOW];
};

static uint8_t ordinary[WINDOW] __attribute__((aligned(64)));
static uint64_t device, ram;
static const void *running;
static struct form_state *running_state;

static void pattern(volatile uint8_t *to, unsigned start)
{
    for (unsigned i = 0; i < WINDOW; i++)
        to[i] = (uint8_t)(start + i * 37);
}

static void start_state(struct form_state *state, uint64_t subject)
{
    *state = (struct form_state){
        .rax = 0x8899aabbccddeeff, .rcx = 0x123456789abcdef0, .rdx = 0x0fedcba987654321,
        .rbx = 0x1122334455667788, .rsi = (uint64_t)ordinary + 32, .rdi = subject, .rflags = 2,
    };
    for (unsigned i = 0; i < 32; i++)
        state->xmm[i / 16][i % 16] = (uint8_t)(i * 11 + 1);
}

static void run_form(void *unused)
{
    (void)unused;
    form_run(running, running_state);
}

static struct outcome run_on(const struct form *form, uint64_t first, uint64_t second,
                             uint64_t offset)
{
    struct outcome outcome = { .vector = NO_TRAP };
    volatile uint8_t *window = (volatile uint8_t *)(VIEW + offset - 32);

    map_page(VIEW, first, PTE_P | PTE_W);
    map_page(VIEW + PAGE_BYTES, second, PTE_P | PTE_W);
    pattern(window, 0x91);
    pattern(ordinary, 0x91 + 5 * 37);
    start_state(&outcome.state, VIEW + offset);
    running = form->code;
    running_state = &outcome.state;
    outcome.vector = try_call(run_form, NULL).vector;
    asm volatile("cld");
    outcome.state.rflags &= form->flags;
    for (unsigned i = 0; i < WINDOW; i++)
        outcome.memory[i] = window[i];
    memcpy(outcome.other, ordinary, WINDOW);
    return outcome;
}

static bool offered(uint64_t need)
{
    uint32_t ecx = cpuid(1, 0).ecx;

    switch (need) {
    case NEED_MOVBE: return ecx & 1u << 22;
    case NEED_BMI: return cpuid(7, 0).ebx & 1u << 3;
    case NEED_SSE42: return ecx & 1u << 20;
    case NEED_CX16: return ecx & 1u << 13;
    default: return true;
    }
}

static bool same_outcome(const struct outcome *a, const struct outcome *b)
{
    return a->vector == b->vector && !memcmp(&a->state, &b->state, sizeof a->state)
           && !memcmp(a->memory, b->memory, WINDOW) && !memcmp(a->other, b->other, WINDOW);
}

static void print_outcome(const char *word, const struct outcome *o)
{
    const struct form_state *s = &o->state;

    printf("  %s vector %d flags %lx rax %lx rcx %lx rdx %lx rbx %lx rsi %lx rdi %lx\n    memory",
           word, o->vector, s->rflags, s->rax, s->rcx, s->rdx, s->rbx, s->rsi, s->rdi);
    for (unsigned i = 24; i < 72; i++)
        printf(" %02x", o->memory[i]);
    printf("\n");
}

static void compare(const struct form *form, uint64_t first, uint64_t second, uint64_t offset,
                    const char *where)
{
    struct outcome wanted, got;

    if (!offered(form->need)) {
        report_skip("%s: %s", where, form->text);
        return;
    }
    wanted = run_on(form, ram, ram + PAGE_BYTES, offset);
    got = run_on(form, first, second, offset);
    report(same_outcome(&wanted, &got), "%s: %s", where, form->text);
    if (!same_outcome(&wanted, &got)) {
        print_outcome("RAM:   ", &wanted);
        print_outcome("device:", &got);
    }
}

static void compare_all(uint64_t first, uint64_t second, uint64_t offset, const char *where)
{
    for (const struct form *form = forms_start; form < forms_end; form++)
        compare(form, first, second, offset, where);
}

static uint64_t find_device(void)
{
    const char *word = find_word(boot_info.cmdline, "mmio=");

    if (!word)
        return DEVICE_DEFAULT;
    if (word[0] == 'r') {
        alloc_page();
        return (uint64_t)alloc_page() - PAGE_BYTES;
    }
    return parse_number(word);
}

static bool keeps_bytes(volatile uint32_t *at)
{
    at[0] = 0x12345678;
    at[1] = 0x9abcdef0;
    return at[0] == 0x12345678 && at[1] == 0x9abcdef0;
}

void test_main(void)
{
    paging_init();
    ram = (uint64_t)alloc_page();
    alloc_page();
    device = find_device();
    if (!keeps_bytes((volatile uint32_t *)device)) {
        report_skip("no test device at 0x%lx", device);
        return;
    }
    compare_all(device, device + PAGE_BYTES, INSIDE, "device");
    compare_all(ram, device, CROSSING, "RAM then device");
    compare_all(device, ram + PAGE_BYTES, CROSSING, "device then RAM");
}
