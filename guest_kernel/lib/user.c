/* Mapping and entering the ring-3 pieces. */
#include "user.h"
#include "desc.h"
#include "paging.h"

extern char user_start[], user_end[];

void user_init(void)
{
    uint64_t length = (uint64_t)(user_end - user_start);

    for (uint64_t offset = 0; offset < length; offset += PAGE_BYTES)
        map_page(USER_TEXT + offset, (uint64_t)user_start + offset, PTE_P | PTE_U);
    map_page(USER_DATA, (uint64_t)alloc_page(), PTE_P | PTE_W | PTE_U);
    map_page(USER_STACK_TOP - PAGE_BYTES, (uint64_t)alloc_page(), PTE_P | PTE_W | PTE_U);
}

uint64_t user_address(const char *code)
{
    return USER_TEXT + (uint64_t)(code - user_start);
}

static struct trap call(const char *code, uint16_t cs, uint64_t argument, uint64_t flags)
{
    struct user_start start = {
        .rip = user_address(code),
        .cs = cs,
        .rflags = 2 | flags,
        .rsp = USER_STACK_TOP,
        .ss = USER_SS,
        .argument = argument,
    };

    return enter_user(&start);
}

struct trap user_call(const char *code, uint64_t argument, uint64_t flags)
{
    return call(code, USER_CS64, argument, flags);
}

struct trap user_call32(const char *code, uint64_t argument, uint64_t flags)
{
    return call(code, USER_CS32, argument, flags);
}
