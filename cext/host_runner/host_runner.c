/* Runs batches of instruction sequences on the host processor, in user mode: host_runner FD
 *
 * FD is a batch in shared memory (guest_kernel/oracle/record.h). Commands come on stdin, first record and count, 32 bits
 * each; the answer on stdout is how many were run. IRETQ enters a sequence with every register, so 32-bit code runs too;
 * a signal handler leaves it. What a sequence does to this process cannot be known: the parent keeps watch, and the
 * `ran` word of each record says how far we came. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "record.h"

enum { ALIAS = 0x30000000, CS64 = 0x33, CS32 = 0x23, FLAT = 0x2b };
enum { BAD_USE = 2, NO_MEMORY = 3 };

struct seq_record *current;              /* for the assembly below */
uint64_t home;
void sequence_run(struct seq_record *record);
extern const char sequence_back[];

__asm__(".text\n"
        ".globl sequence_run, sequence_back\n"
        "sequence_run:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "mov %rsp, home(%rip)\n"
        "mov %rdi, current(%rip)\n"
        "fxrstor 192(%rdi)\n"
        "mov $0x2b, %eax; mov %eax, %ds; mov %eax, %es; push %rax\n"
        "pushq 64(%rdi); pushq 160(%rdi)\n"
        "mov $0x33, %eax; mov $0x23, %ecx; cmpl $32, (%rdi); cmove %ecx, %eax; push %rax\n"
        "pushq 24(%rdi)\n"
        "mov 32(%rdi), %rax; mov 40(%rdi), %rcx; mov 48(%rdi), %rdx; mov 56(%rdi), %rbx\n"
        "mov 72(%rdi), %rbp; mov 80(%rdi), %rsi\n"
        "mov 96(%rdi), %r8; mov 104(%rdi), %r9; mov 112(%rdi), %r10; mov 120(%rdi), %r11\n"
        "mov 128(%rdi), %r12; mov 136(%rdi), %r13; mov 144(%rdi), %r14; mov 152(%rdi), %r15\n"
        "mov 88(%rdi), %rdi\n"
        "iretq\n"
        "sequence_back:\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n");

static const int order[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

static void leave(int number, siginfo_t *info, void *context)
{
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    struct seq_record *r = current;
    (void)number, (void)info;
    if (!r)
        _exit(BAD_USE);                  /* a fault of our own */
    for (int i = 0; i < 16; i++)
        r->gpr[i] = (uint64_t)regs[order[i]];
    r->rip = (uint64_t)regs[REG_RIP];
    r->rflags = (uint64_t)regs[REG_EFL];
    r->vector = (uint32_t)regs[REG_TRAPNO];
    r->error = (uint32_t)regs[REG_ERR];
    r->address = (uint64_t)regs[REG_CR2];
    memcpy(r->fx, ((ucontext_t *)context)->uc_mcontext.fpregs, 416);
    r->ran = SEQ_DONE;
    current = NULL;
    regs[REG_RIP] = (greg_t)sequence_back;
    regs[REG_RSP] = (greg_t)home;
    regs[REG_EFL] = 0x202;
    regs[REG_CSGSFS] = (regs[REG_CSGSFS] & 0xffffffff0000) | CS64 | (greg_t)FLAT << 48;
}

static void *map(uintptr_t at, size_t bytes, int protection, int fd, off_t offset)
{
    int fixed = at ? MAP_FIXED_NOREPLACE : 0;
    void *got = mmap((void *)at, bytes, protection, MAP_SHARED | MAP_POPULATE | fixed, fd, offset);
    if (got == MAP_FAILED || (at && got != (void *)at))
        _exit(NO_MEMORY);
    return got;
}

static void map_data(void)
{
    static const int protection[SEQ_PAGES] = { PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE, PROT_READ | PROT_WRITE };
    int fd = memfd_create("data", 0);
    if (fd < 0 || ftruncate(fd, SEQ_PAGES * 4096))
        _exit(NO_MEMORY);
    map(ALIAS, SEQ_PAGES * 4096, PROT_READ | PROT_WRITE, fd, 0);
    for (int i = 0; i < SEQ_PAGES; i++)
        if (protection[i] != PROT_NONE)
            map(SEQ_DATA + i * 4096ul, 4096, protection[i], fd, i * 4096);
}

static void catch_signals(void)
{
    static const int ends[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE };
    static char stack[65536];
    stack_t alternate = { .ss_sp = stack, .ss_size = sizeof stack };
    struct sigaction action = { .sa_flags = SA_SIGINFO | SA_ONSTACK, .sa_sigaction = leave };
    sigaltstack(&alternate, NULL);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        sigaction(ends[i], &action, NULL);
}

static void run(struct seq_record *r)
{
    for (int i = 0; i < SEQ_WINDOWS; i++)
        memcpy((char *)ALIAS + seq_window_at[i], r->window[i], SEQ_WINDOW_BYTES);
    r->ran = SEQ_STARTED;
    sequence_run(r);
    for (int i = 0; i < SEQ_WINDOWS; i++)
        memcpy(r->window[i], (char *)ALIAS + seq_window_at[i], SEQ_WINDOW_BYTES);
    seq_normalize(r);
}

int main(int count, char **words)
{
    struct stat status;
    uint32_t command[2];
    int fd = count == 2 ? atoi(words[1]) : -1;
    if (fstat(fd, &status))
        return BAD_USE;
    char *batch = map(0, (size_t)status.st_size, PROT_READ | PROT_WRITE, fd, 0);
    struct seq_record *records = (void *)(batch + SEQ_RECORDS_OFFSET);
    uint64_t room = ((uint64_t)status.st_size - SEQ_RECORDS_OFFSET) / sizeof *records;
    map(SEQ_CODE, SEQ_CODE_BYTES, PROT_READ | PROT_EXEC, fd, SEQ_CODE_OFFSET);
    map_data();
    catch_signals();
    syscall(SYS_arch_prctl, ARCH_SET_GS, SEQ_DATA);
    while (fread(command, sizeof command, 1, stdin) == 1 && command[0] + (uint64_t)command[1] <= room) {
        for (uint32_t i = 0; i < command[1]; i++)
            run(&records[command[0] + i]);
        fwrite(&command[1], 4, 1, stdout);
        fflush(stdout);
    }
    return 0;
}
