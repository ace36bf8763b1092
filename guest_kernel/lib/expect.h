/* Checks in one line each.  The name of the check is all that PASS and FAIL print; what was found
 * instead follows a FAIL on a line of its own. */
#ifndef LIB_EXPECT_H
#define LIB_EXPECT_H
#include "trap.h"

bool expect_trap(struct trap trap, int vector, uint64_t error_code, const char *name);
bool expect_none(struct trap trap, const char *name);
bool expect_equal(uint64_t got, uint64_t wanted, const char *name);
#endif
