/* I/O privilege, which opens nothing. */
#include "xen/pv.h"

const char test_title[] = "physdev_op";

static uint8_t bitmap[32];                    /* of 256 ports; a bit that is clear lets in */
static struct { uint64_t bitmap; uint32_t ports; } ports;

static void try_the_bitmap(void)
{
    uint32_t level = 0;

    CALL2(PHYSDEV_OP, 6, &level);
    for (unsigned k = 0; k < sizeof bitmap; k++)
        bitmap[k] = 0xff;
    bitmap[0x70 / 8] = 0xfe;
    ports.bitmap = (uint64_t)bitmap;
    ports.ports = 256;
    equal(CALL2(PHYSDEV_OP, 7, &ports), 0, "a bitmap is taken");
    TRYING("in $0x70, %%al", "i"(0));
    equal(trap_vector, 0, "a port that it lets in reads");
    TRYING("in $0x70, %%eax", "i"(0));
    equal(trap_vector, 13, "four at once are #GP if one is shut");
    TRYING("in $0x71, %%al", "i"(0));
    equal(trap_vector, 13, "the next is shut");
    TRYING("mov $0x170, %%edx; in %%dx, %%al", "i"(0));
    equal(trap_vector, 13, "so is one behind its end");
    ports.bitmap = HOLE;
    equal(CALL2(PHYSDEV_OP, 7, &ports), INVAL, "a bitmap in the hole is EINVAL");
    ports.ports = 65537;
    equal(CALL2(PHYSDEV_OP, 7, &ports), INVAL, "so is one of 65537 ports");
    ports.ports = 0;
    equal(CALL2(PHYSDEV_OP, 7, &ports), 0, "none is taken");
    TRYING("in $0x70, %%al", "i"(0));
    equal(trap_vector, 13, "and shuts all");
}

void test_main(void)
{
    uint32_t level = 4;

    take_traps();
    TRYING("in $0x70, %%al", "i"(0));
    equal(trap_vector, 13, "a port is #GP");
    equal(CALL2(PHYSDEV_OP, 6, &level), INVAL, "IOPL 4 is EINVAL");
    level = 1;
    equal(CALL2(PHYSDEV_OP, 6, &level), 0, "IOPL 1 is taken");
    TRYING("in $0x70, %%al", "i"(0));
    equal(trap_vector, 0, "then a port reads");
    try_the_bitmap();
    equal(CALL2(PHYSDEV_OP, 6, BAD), FAULT, "a pointer to nothing is EFAULT");
    equal(CALL2(PHYSDEV_OP, 13, scratch), PERM, "a physical interrupt is EPERM");
    equal(CALL2(PHYSDEV_OP, 99, 0), NOSYS, "another command is ENOSYS");
}
