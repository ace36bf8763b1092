/* Ring 3 for tests: small pieces of assembly, mapped where only they are, called one at a time.
 *
 *   USER(add, "lea (%rdi,%rdi), %rax; " USER_RETURN)
 *   struct trap t = user_call(add, 21, 0);         t.vector == 0x80, t.rax == 42
 *
 * A piece ends by INT 0x80, or by the fault it is about; t says which, with the user's
 * registers. */
#ifndef LIB_USER_H
#define LIB_USER_H
#include "trap.h"

#define USER_TEXT 0x50000000ul
#define USER_DATA 0x50100000ul           /* one page, readable and writable */
#define USER_STACK_TOP 0x50201000ul
#define USER_RETURN ".byte 0xcd, 0x80\n\t"
#define RETURNED 0x80

#define USER(name, code)                                                         \
    extern char name[];                                                          \
    asm(".pushsection .user, \"ax\"\n" #name ":\n\t" code "\n\t.popsection\n")

void user_init(void);
uint64_t user_address(const char *code);
struct trap user_call(const char *code, uint64_t argument, uint64_t flags);
struct trap user_call32(const char *code, uint64_t argument, uint64_t flags);
#endif
