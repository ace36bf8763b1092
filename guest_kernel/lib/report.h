/* What a test says: one line per check, a summary, and an exit status.
 *
 *   PASS   the check held                          FAIL   it did not
 *   SKIP   the machine does not offer this         ABORT  the test itself cannot go on
 *
 * The status goes to port 0xf4 (0 passed, 1 failed, 77 nothing but skips, 127 aborted), so that a
 * machine with a debug-exit device ends with status * 2 + 1. */
#ifndef LIB_REPORT_H
#define LIB_REPORT_H
#include <stdbool.h>

void report(bool passed, const char *format, ...) __attribute__((format(printf, 2, 3)));
void report_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
void report_abort(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void report_summary(void) __attribute__((noreturn));

/* End the machine without a summary: status to port 0xf4, and if nothing listens there, as
 * below. */
void exit_with(int status) __attribute__((noreturn));

/* Power off: "Shutdown" to port 0x8900, then the ACPI port of a PC, then sleep for good. */
void power_off(void) __attribute__((noreturn));
#endif
