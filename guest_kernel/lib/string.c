/* Memory and text, byte by byte: short rather than fast. */
#include "string.h"
#include <stdbool.h>

void *memcpy(void *to, const void *from, size_t length)
{
    void *start = to;

    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
    return start;
}

void *memmove(void *to, const void *from, size_t length)
{
    char *target = to;
    const char *source = from;

    if (target <= source || target >= source + length)
        return memcpy(to, from, length);
    while (length--)
        target[length] = source[length];
    return to;
}

void *memset(void *to, int value, size_t length)
{
    void *start = to;

    asm volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(value) : "memory");
    return start;
}

int memcmp(const void *left, const void *right, size_t length)
{
    const unsigned char *a = left, *b = right;

    for (; length; length--, a++, b++)
        if (*a != *b)
            return *a - *b;
    return 0;
}

size_t strlen(const char *text)
{
    size_t length = 0;

    while (text[length])
        length++;
    return length;
}

int strcmp(const char *left, const char *right)
{
    while (*left && *left == *right) {
        left++;
        right++;
    }
    return (unsigned char)*left - (unsigned char)*right;
}

static bool starts_with(const char *text, const char *prefix)
{
    while (*prefix)
        if (*text++ != *prefix++)
            return false;
    return true;
}

/* What follows `prefix` in the word of `line` that starts with it: "seed=" finds "7" in "a
 * seed=7". */
const char *find_word(const char *line, const char *prefix)
{
    for (const char *at = line; *at; at++)
        if ((at == line || at[-1] == ' ') && starts_with(at, prefix))
            return at + strlen(prefix);
    return NULL;
}

static int digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return 99;
}

/* Decimal, or hexadecimal after 0x; stops at the first character that is no digit. */
uint64_t parse_number(const char *text)
{
    int base = 10;
    uint64_t value = 0;

    if (starts_with(text, "0x")) {
        base = 16;
        text += 2;
    }
    for (; digit_of(*text) < base; text++)
        value = value * base + digit_of(*text);
    return value;
}
