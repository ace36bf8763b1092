/* The console: a 16550 at 0x3f8, polled, and the printf that everything is reported with. */
#include "console.h"
#include "io.h"
#include <stdbool.h>
#include <stdint.h>

enum {
    COM1 = 0x3f8,
    DATA = COM1,
    INTERRUPT_ENABLE = COM1 + 1,
    FIFO_CONTROL = COM1 + 2,
    LINE_CONTROL = COM1 + 3,
    MODEM_CONTROL = COM1 + 4,
    LINE_STATUS = COM1 + 5,
    TRANSMITTER_EMPTY = 0x20,
    TRANSMITTER_IDLE = 0x40,
    DIVISOR_LATCH = 0x80,
    EIGHT_BITS = 0x03,
};

void console_init(void)
{
    outb(0, INTERRUPT_ENABLE);
    outb(DIVISOR_LATCH, LINE_CONTROL);
    outb(1, DATA);                       /* divisor 1: 115200 baud */
    outb(0, INTERRUPT_ENABLE);
    outb(EIGHT_BITS, LINE_CONTROL);
    outb(0x07, FIFO_CONTROL);
    outb(0x03, MODEM_CONTROL);
}

void console_putc(char c)
{
    while (!(inb(LINE_STATUS) & TRANSMITTER_EMPTY))
        ;
    outb((uint8_t)c, DATA);
}

/* Wait until the last character has left, before the machine is switched off. */
void console_flush(void)
{
    while (!(inb(LINE_STATUS) & TRANSMITTER_IDLE))
        ;
}

void console_puts(const char *text)
{
    while (*text)
        console_putc(*text++);
}

/* How one conversion wants its number: from the letters between % and the final one. */
struct layout {
    int width;
    char pad;
    int longs;
};

static void put_padded(const char *digits, int length, struct layout layout)
{
    for (int i = length; i < layout.width; i++)
        console_putc(layout.pad);
    for (int i = length - 1; i >= 0; i--)
        console_putc(digits[i]);
}

static void put_number(uint64_t value, unsigned base, bool negative, struct layout layout)
{
    char reversed[24];
    int length = 0;

    do {
        reversed[length++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value);
    if (negative)
        reversed[length++] = '-';
    put_padded(reversed, length, layout);
}

static const char *parse_layout(const char *format, struct layout *layout)
{
    *layout = (struct layout){ .width = 0, .pad = ' ', .longs = 0 };
    if (*format == '0')
        layout->pad = '0';
    for (; *format >= '0' && *format <= '9'; format++)
        layout->width = layout->width * 10 + *format - '0';
    for (; *format == 'l'; format++)
        layout->longs++;
    return format;
}

static void put_integer(char kind, struct layout layout, uint64_t value)
{
    int64_t as_signed = layout.longs ? (int64_t)value : (int32_t)value;

    if (!layout.longs)
        value = (uint32_t)value;
    if (kind == 'd' && as_signed < 0)
        put_number(-(uint64_t)as_signed, 10, true, layout);
    else
        put_number(value, kind == 'x' ? 16 : 10, false, layout);
}

void vprintf(const char *format, va_list arguments)
{
    struct layout layout;

    for (; *format; format++) {
        if (*format != '%') {
            console_putc(*format);
            continue;
        }
        format = parse_layout(format + 1, &layout);
        switch (*format) {
        case 's': console_puts(va_arg(arguments, const char *)); break;
        case 'c': console_putc((char)va_arg(arguments, int)); break;
        case 'p': layout.longs = 2;
            console_puts("0x");
            put_integer('x', layout, va_arg(arguments, uint64_t));
            break;
        case 'd': case 'u': case 'x':
            put_integer(*format, layout, layout.longs ? va_arg(arguments, uint64_t)
                                                      : va_arg(arguments, unsigned));
            break;
        default: console_putc(*format); break;
        }
    }
}

void printf(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
}
