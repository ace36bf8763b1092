/* The 32-bit IDT and the calls into older modes. */
#include "legacy.h"
#include "cpu.h"
#include "desc.h"

extern char legacy_stubs[], real_mode_call[];
uint64_t idt32[256] __attribute__((aligned(16)));
struct legacy_trap legacy_trap;
uint32_t legacy_resume;
uint32_t real_target;

/* A gate of 32-bit or 16-bit mode; `type` is the access byte: 0x8e interrupt, 0x8f trap, 0x8c
 * call. */
uint64_t gate32(uint32_t offset, uint16_t selector, unsigned type)
{
    return (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)type << 40
           | (uint64_t)(offset >> 16) << 48;
}

void legacy_init(void)
{
    for (uint32_t vector = 0; vector < 256; vector++)
        idt32[vector] = gate32((uint32_t)(uint64_t)legacy_stubs + 16 * vector, KERNEL_CS32, 0x8e);
}

/* Run 16-bit code at 0:low_address in real mode; it ends with a near RET. */
void real_call(uint32_t low_address)
{
    struct legacy_call call = {
        .code = (uint32_t)(uint64_t)real_mode_call,
        .cr0 = CR0_PE,
    };

    real_target = low_address;
    legacy_call(&call);
}
