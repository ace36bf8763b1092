/* Several hypercalls in one. */
#include "xen/pv.h"

const char test_title[] = "multicall";

static struct { uint64_t call; int64_t result; uint64_t argument[6]; } batch[4];

/* A list that begins with an iret to right behind the SYSCALL. */
static long return_within(void *list)
{
    long result = MULTICALL;
    batch[0].call = IRET;
    batch[0].result = batch[1].result = 0;
    asm volatile("mov %%rsp, %%rbx\n\t"
                 "push $0xe02b\n\tpush %%rbx\n\tpushf\n\tpush $0xe030\n\tpush $1f\n\t"
                 "push $0\n\tpush $0\n\tpush $0\n\tpush $77\n\t"
                 "syscall\n\tmov $-1, %%rax\n1:"
                 : "+a"(result) : "D"(list), "S"(2) : "rbx", "rcx", "r11", "memory");
    return result;
}

void test_main(void)
{
    batch[0].call = batch[1].call = XEN_VERSION;
    batch[1].argument[0] = 7;
    batch[2].call = 99;
    batch[3].call = VM_ASSIST;
    equal(CALL2(MULTICALL, batch, 4), 0, "four are made");
    equal(batch[0].result >> 16, 4, "the first has its result");
    equal(batch[1].result, PAGE, "so has the second");
    equal(batch[2].result, NOSYS, "an unknown one has ENOSYS");
    equal(batch[3].result, 0, "and the one behind it was made");
    equal(return_within(batch), 77, "an iret within ends the list with its RAX");
    equal(batch[0].result, 77, "which is its entry's result");
    equal(batch[1].result, 0, "and nothing behind it was made");
    equal(CALL2(MULTICALL, BAD, 1), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL2(MULTICALL, BAD, 0), 0, "none is no error");
}
