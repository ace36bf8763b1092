/* Read multiboot 1 and multiboot 2 information into one form.  The command line is copied, since a
 * loader may put it anywhere in free memory. */
#include "boot_info.h"
#include <stddef.h>

enum {
    MULTIBOOT1 = 0x2badb002,
    MULTIBOOT2 = 0x36d76289,
    MB1_HAS_MEMORY = 1 << 0,
    MB1_HAS_CMDLINE = 1 << 2,
    MB1_HAS_MODULES = 1 << 3,
    MB1_HAS_MAP = 1 << 6,
    TAG_END = 0,
    TAG_CMDLINE = 1,
    TAG_MODULE = 3,
    TAG_BASIC_MEMORY = 4,
    TAG_MAP = 6,
};

struct mb1_info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
    uint32_t syms[4], mmap_length, mmap_addr;
};

struct mb1_module {
    uint32_t start, end, words, reserved;
};

struct mb1_range {
    uint32_t size;                       /* of what follows this word */
    uint64_t base, length;
    uint32_t type;
} __attribute__((packed));

struct mb2_tag {
    uint32_t type, size;
};

struct mb2_module {
    struct mb2_tag tag;
    uint32_t start, end;
    char words[];
};

struct mb2_memory {
    struct mb2_tag tag;
    uint32_t lower, upper;
};

struct mb2_range {
    uint64_t base, length;
    uint32_t type, reserved;
};

struct mb2_map {
    struct mb2_tag tag;
    uint32_t entry_size, entry_version;
    char entries[];
};

extern uint32_t boot_magic, boot_information;
struct boot_info boot_info = { .protocol = "none" };

static const void *at(uint32_t physical)
{
    return (const void *)(uintptr_t)physical;
}

static void copy_cmdline(const char *words)
{
    int i = 0;

    for (; words[i] && i < CMDLINE_MAX - 1; i++)
        boot_info.cmdline[i] = words[i];
    boot_info.cmdline[i] = 0;
}

static void add_module(uint64_t start, uint64_t end, const char *words)
{
    if (boot_info.modules < MODULES_MAX)
        boot_info.module[boot_info.modules++] = (struct boot_module){ start, end, words };
}

static void add_range(uint64_t base, uint64_t length, uint32_t type)
{
    if (boot_info.ranges < RANGES_MAX)
        boot_info.range[boot_info.ranges++] = (struct memory_range){ base, length, type };
}

static void read_mb1_map(const struct mb1_info *info)
{
    uint32_t offset = 0;

    while (offset < info->mmap_length) {
        const struct mb1_range *range = at(info->mmap_addr + offset);

        add_range(range->base, range->length, range->type);
        offset += range->size + sizeof range->size;
    }
}

static void read_mb1(const struct mb1_info *info)
{
    boot_info.protocol = "multiboot 1";
    if (info->flags & MB1_HAS_MEMORY)
        boot_info.memory_kib = info->mem_upper + 1024ull;
    if (info->flags & MB1_HAS_CMDLINE)
        copy_cmdline(at(info->cmdline));
    if (info->flags & MB1_HAS_MODULES) {
        const struct mb1_module *module = at(info->mods_addr);

        for (uint32_t i = 0; i < info->mods_count; i++)
            add_module(module[i].start, module[i].end, at(module[i].words));
    }
    if (info->flags & MB1_HAS_MAP)
        read_mb1_map(info);
}

static void read_mb2_map(const struct mb2_map *map)
{
    for (uint32_t o = sizeof *map; o < map->tag.size; o += map->entry_size) {
        const struct mb2_range *range = (const void *)((const char *)map + o);

        add_range(range->base, range->length, range->type);
    }
}

static void read_mb2_tag(const struct mb2_tag *tag)
{
    const struct mb2_module *module = (const void *)tag;

    switch (tag->type) {
    case TAG_CMDLINE: copy_cmdline((const char *)(tag + 1)); break;
    case TAG_MODULE: add_module(module->start, module->end, module->words); break;
    case TAG_BASIC_MEMORY:
        boot_info.memory_kib = ((const struct mb2_memory *)tag)->upper + 1024ull;
        break;
    case TAG_MAP: read_mb2_map((const void *)tag); break;
    default: break;
    }
}

static void read_mb2(const char *information)
{
    const struct mb2_tag *tag = (const void *)(information + 8);

    boot_info.protocol = "multiboot 2";
    while (tag->type != TAG_END) {
        read_mb2_tag(tag);
        tag = (const void *)((const char *)tag + ((tag->size + 7) & ~7u));
    }
}

void boot_info_read(void)
{
    if (boot_magic == MULTIBOOT1)
        read_mb1(at(boot_information));
    else if (boot_magic == MULTIBOOT2)
        read_mb2(at(boot_information));
}
