/* Verdicts, their count, and the ways to end the machine. */
#include "report.h"
#include "console.h"
#include "io.h"

enum { EXIT_PORT = 0xf4, SHUTDOWN_PORT = 0x8900, ACPI_CONTROL = 0x604, ACPI_SOFT_OFF = 0x2000 };
enum { STATUS_PASSED = 0, STATUS_FAILED = 1, STATUS_SKIPPED = 77, STATUS_ABORTED = 127 };

static int checks, failures, skips;

static void say(const char *verdict, const char *format, va_list arguments)
{
    console_puts(verdict);
    vprintf(format, arguments);
    console_putc('\n');
}

void report(bool passed, const char *format, ...)
{
    va_list arguments;

    checks++;
    failures += !passed;
    va_start(arguments, format);
    say(passed ? "PASS: " : "FAIL: ", format, arguments);
    va_end(arguments);
}

void report_skip(const char *format, ...)
{
    va_list arguments;

    checks++;
    skips++;
    va_start(arguments, format);
    say("SKIP: ", format, arguments);
    va_end(arguments);
}

void report_abort(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say("ABORT: ", format, arguments);
    va_end(arguments);
    exit_with(STATUS_ABORTED);
}

void report_summary(void)
{
    printf("SUMMARY: %d tests", checks);
    if (failures)
        printf(", %d unexpected failures", failures);
    if (skips)
        printf(", %d skipped", skips);
    console_putc('\n');
    if (failures)
        exit_with(STATUS_FAILED);
    exit_with(checks && checks == skips ? STATUS_SKIPPED : STATUS_PASSED);
}

void exit_with(int status)
{
    console_flush();
    outl((uint32_t)status, EXIT_PORT);
    power_off();
}

void power_off(void)
{
    console_flush();
    for (const char *word = "Shutdown"; *word; word++)
        outb((uint8_t)*word, SHUTDOWN_PORT);
    outw(ACPI_SOFT_OFF, ACPI_CONTROL);
    for (;;)
        asm volatile("cli; hlt");
}
