/* A PV test guest: hypercalls, checks, and what the domain builder left.  Numbers are those of Xen's
 * public headers. */
#ifndef XEN_PV_H
#define XEN_PV_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum call {
    SET_TRAP_TABLE = 0, MMU_UPDATE = 1, SET_GDT = 2, STACK_SWITCH = 3, SET_CALLBACKS = 4,
    FPU_TASKSWITCH = 5, PLATFORM_OP = 7, SET_DEBUGREG = 8, GET_DEBUGREG = 9, UPDATE_DESCRIPTOR = 10,
    MEMORY_OP = 12, MULTICALL = 13, UPDATE_VA_MAPPING = 14, SET_TIMER_OP = 15, XEN_VERSION = 17,
    CONSOLE_IO = 18, GRANT_TABLE_OP = 20, VM_ASSIST = 21, UPDATE_VA_MAPPING_OTHERDOMAIN = 22,
    IRET = 23, VCPU_OP = 24, SET_SEGMENT_BASE = 25, MMUEXT_OP = 26, XSM_OP = 27, NMI_OP = 28,
    SCHED_OP = 29, CALLBACK_OP = 30, EVENT_CHANNEL_OP = 32, PHYSDEV_OP = 33, HVM_OP = 34,
    SYSCTL = 35, DOMCTL = 36, KEXEC_OP = 37,
};

enum {
    PERM = -1, NOENT = -2, SRCH = -3, NOMEM = -12, FAULT = -14, BUSY = -16, EXIST = -17, INVAL = -22,
    NOSYS = -38, TIME = -62,
};

enum { SELF = 0x7ff0, PAGE = 4096 };
#define BAD 0x12345000ul                 /* nothing is mapped there */
#define HOLE 0xffff800000001000ul        /* the hypervisor's */
#define KERNEL_CS 0xe033

/* start_info, public/xen.h */
struct start_info {
    char magic[32];
    uint64_t nr_pages, shared_info;
    uint32_t flags, pad;
    uint64_t store_mfn;
    uint32_t store_port, pad1;
    uint64_t console_mfn;
    uint32_t console_port, pad2;
    uint64_t pt_base, nr_pt_frames, mfn_list;
};

struct trap_info { uint8_t vector, flags; uint16_t cs; uint32_t pad; uint64_t address; };

extern const char test_title[];
void test_main(void);

extern struct start_info *start_info;
extern uint8_t *shared_info, *vcpu_info;
extern volatile uint32_t upcalls, trap_vector;
extern volatile uint64_t trap_error, trap_rip, trap_resume;
extern uint8_t scratch[16][PAGE];        /* pages to do with as one likes */
void trap_1(void), trap_3(void), trap_6(void), trap_7(void), trap_13(void), trap_14(void);
void xen_upcall(void);
uint64_t resume_with(uint64_t flags);

long call5(enum call number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e);
#define CALL1(n, a) call5(n, (uint64_t)(a), 0, 0, 0, 0)
#define CALL2(n, a, b) call5(n, (uint64_t)(a), (uint64_t)(b), 0, 0, 0)
#define CALL3(n, a, b, c) call5(n, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), 0, 0)
#define CALL4(n, a, b, c, d) \
    call5(n, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), 0)

void check(bool held, const char *name);
void equal(int64_t got, int64_t wanted, const char *name);
void figure(const char *name, uint64_t count, uint64_t value);   /* =NAME COUNT VALUE */

uint64_t mfn_of(const void *page);
uint64_t *entry_of(const void *page);    /* its L1 entry, by the tables' own mapping */
uint64_t entry_address(const void *page); /* the same, as a machine address */
long map(const void *page, uint64_t entry); /* update_va_mapping, with the translation dropped */
void take_traps(void);
void take_upcalls(void);

/* Run one instruction; trap_vector is what it raised, 0: nothing. */
#define TRYING(instruction, ...) do { \
    trap_vector = 0; \
    asm volatile("movq $1f, trap_resume(%%rip)\n\t" instruction "\n1:" : : __VA_ARGS__ : "memory", \
                 "rax", "rcx", "rdx", "cc"); \
} while (0)
#endif
