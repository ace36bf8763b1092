/* Runs one instruction at a time on the host processor and reports all it changed.
 *
 * stdin: records of `struct record`; stdout: the same records after execution. A signal handler
 * enters the instruction (sigreturn loads every register, CS and SS included, so 32-bit and 16-bit
 * code run too) and another one leaves it: the code page is filled with INT3.
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { CODE = 0x1F000000, DATA = 0x20000000, WRITABLE = 0x2000, SIZE = 0x3000 };
enum { CS16 = 0x07, DS16 = 0x0F, ES16 = 0x17, CS32 = 0x23, FLAT = 0x2B };

struct record {
	uint32_t bits, vector, error, ran;
	uint64_t address, regs[16], rip, rflags;
	uint8_t code[32], xmm[256], memory[SIZE];
};

static struct record record;
static ucontext_t home;
static const int order[16] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
	REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

static void select_code(greg_t *regs)
{
	uint64_t word = regs[REG_CSGSFS];
	if (record.bits == 64)
		return;
	word &= 0x0000FFFFFFFF0000ull;
	word |= record.bits == 32 ? CS32 : CS16;
	word |= (uint64_t)(record.bits == 32 ? FLAT : DS16) << 48;
	regs[REG_CSGSFS] = word;
}

static void enter(int number, siginfo_t *info, void *context)
{
	ucontext_t *user = context;
	greg_t *regs = user->uc_mcontext.gregs;
	(void)number, (void)info;
	home = *user;
	for (int i = 0; i < 16; i++)
		regs[order[i]] = record.regs[i];
	regs[REG_RIP] = record.rip;
	regs[REG_EFL] = record.rflags;
	select_code(regs);
	memcpy(user->uc_mcontext.fpregs->_xmm, record.xmm, sizeof record.xmm);
	/* XSTATE_BV: x87 and SSE are not in their initial state. */
	*(uint64_t *)((char *)user->uc_mcontext.fpregs + 512) |= 3;
}

static void leave(int number, siginfo_t *info, void *context)
{
	ucontext_t *user = context;
	greg_t *regs = user->uc_mcontext.gregs;
	(void)number, (void)info;
	for (int i = 0; i < 16; i++)
		record.regs[i] = regs[order[i]];
	record.rip = regs[REG_RIP];
	record.rflags = regs[REG_EFL];
	record.vector = regs[REG_TRAPNO];
	record.error = regs[REG_ERR];
	record.address = regs[REG_CR2];
	record.ran = 1;
	memcpy(record.xmm, user->uc_mcontext.fpregs->_xmm, sizeof record.xmm);
	memcpy(regs, home.uc_mcontext.gregs, sizeof home.uc_mcontext.gregs);
}

static void map(uintptr_t address, size_t size, int protection)
{
	void *want = (void *)address;
	if (mmap(want, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0)
	    != want)
		_exit(2);
}

static void segment(int entry, unsigned base, unsigned contents)
{
	struct user_desc descriptor = {
		.entry_number = entry, .base_addr = base, .limit = 0xFFFF,
		.contents = contents, .useable = 1,
	};
	if (syscall(SYS_modify_ldt, 1, &descriptor, sizeof descriptor))
		_exit(3);
}

static void prepare(void)
{
	static char stack[65536];
	stack_t alternate = { .ss_sp = stack, .ss_size = sizeof stack };
	struct sigaction action = { .sa_flags = SA_SIGINFO | SA_ONSTACK };
	static const int ends[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE };
	map(CODE, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC);
	map(DATA, SIZE, PROT_READ | PROT_WRITE);
	sigaltstack(&alternate, NULL);
	action.sa_sigaction = enter;
	sigaction(SIGUSR1, &action, NULL);
	action.sa_sigaction = leave;
	for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
		sigaction(ends[i], &action, NULL);
	syscall(SYS_arch_prctl, ARCH_SET_GS, DATA);
	segment(0, CODE, 2);
	segment(1, DATA, 0);
	segment(2, DATA + 0x100, 0);
}

static void run(void)
{
	int data = record.bits == 16 ? DS16 : FLAT, extra = record.bits == 16 ? ES16 : FLAT;
	uintptr_t start = CODE + (record.bits == 16 ? record.rip : record.rip - CODE);
	mprotect((void *)DATA, SIZE, PROT_READ | PROT_WRITE);
	memcpy((void *)DATA, record.memory, SIZE);
	mprotect((void *)(DATA + WRITABLE), SIZE - WRITABLE, PROT_READ);
	memset((void *)CODE, 0xCC, 0x1000);
	memcpy((void *)start, record.code, sizeof record.code);
	__asm__ volatile("mov %0, %%ds; mov %1, %%es" : : "r"(data), "r"(extra));
	raise(SIGUSR1);
	memcpy(record.memory, (void *)DATA, SIZE);
}

int main(void)
{
	prepare();
	while (fread(&record, sizeof record, 1, stdin) == 1) {
		run();
		fwrite(&record, sizeof record, 1, stdout);
	}
	return 0;
}
