/* Text out through the first serial port, and a small printf. */
#ifndef LIB_CONSOLE_H
#define LIB_CONSOLE_H
#include <stdarg.h>

void console_init(void);
void console_putc(char c);
void console_puts(const char *text);
void console_flush(void);

/* Understands %s %c %d %u %x %p %%, with l or ll, a width and a leading zero. */
void printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
void vprintf(const char *format, va_list arguments);
#endif
