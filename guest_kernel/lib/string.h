/* The few functions that a C compiler may call behind our back, and the ones that tests like. */
#ifndef LIB_STRING_H
#define LIB_STRING_H
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *to, const void *from, size_t length);
void *memmove(void *to, const void *from, size_t length);
void *memset(void *to, int value, size_t length);
int memcmp(const void *left, const void *right, size_t length);
size_t strlen(const char *text);
int strcmp(const char *left, const char *right);
const char *find_word(const char *line, const char *prefix);
uint64_t parse_number(const char *text);
#endif
