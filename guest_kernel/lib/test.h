/* What a test provides: a title and test_main().  kernel_main() sets the machine up, calls it, and
 * reports; a demo that wants its own ending simply does not return. */
#ifndef LIB_TEST_H
#define LIB_TEST_H
#include "boot_info.h"
#include "console.h"
#include "cpu.h"
#include "desc.h"
#include "expect.h"
#include "io.h"
#include "paging.h"
#include "report.h"
#include "string.h"
#include "trap.h"

extern const char test_title[];
void test_main(void);

/* For a check that a faulty emulator does not survive: skipped when the command line has the word
 * "fragile". */
bool spared(const char *check);
#endif
