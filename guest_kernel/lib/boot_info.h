/* What the loader told us, whichever loader it was. */
#ifndef LIB_BOOT_INFO_H
#define LIB_BOOT_INFO_H
#include <stdint.h>

enum { MODULES_MAX = 4, RANGES_MAX = 16, CMDLINE_MAX = 512 };

struct memory_range {
    uint64_t base, length;
    uint32_t type;                       /* 1 is usable RAM */
};

struct boot_module {
    uint64_t start, end;
    const char *words;
};

struct boot_info {
    const char *protocol;
    char cmdline[CMDLINE_MAX];
    uint64_t memory_kib;                 /* the RAM above 1 MiB, plus that MiB; 0: not told */
    int modules, ranges;
    struct boot_module module[MODULES_MAX];
    struct memory_range range[RANGES_MAX];
};

extern struct boot_info boot_info;

void boot_info_read(void);
#endif
