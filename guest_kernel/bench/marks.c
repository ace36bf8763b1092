/* Marks on the debug port. */
#include "bench/marks.h"
#include "abi/ports.h"
#include "lib/boot_info.h"
#include "lib/io.h"
#include "lib/string.h"

static void put(const char *text)
{
    while (*text)
        outb((uint8_t)*text++, PORT_DEBUG_CONSOLE);
}

static void put_number(uint64_t value)
{
    char digits[21], *at = digits + 20;

    *at = 0;
    do
        *--at = (char)('0' + value % 10);
    while (value /= 10);
    put(at);
}

void mark_begin(const char *name, uint64_t count)
{
    put("@");
    put(name);
    put(" ");
    put_number(count);
    put("\n");
}

void mark_end(void)
{
    put("@\n");
}

void mark_figure(const char *name, uint64_t count, uint64_t figure)
{
    put("=");
    put(name);
    put(" ");
    put_number(count);
    put(" ");
    put_number(figure);
    put("\n");
}

uint64_t scaled(uint64_t count)
{
    const char *word = boot_info.cmdline + strlen(boot_info.cmdline);

    while (word > boot_info.cmdline && word[-1] >= '0' && word[-1] <= '9')
        word--;
    count = *word ? count * parse_number(word) / 100 : count;
    return count ? count : 1;
}
