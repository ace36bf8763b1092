/* Multiboot 2 header: found by the loader in the first 32 KiB of the file, eight-byte aligned.
 * Without an entry tag the loader uses the ELF entry and enters as multiboot 1 does: boot32.S. */
#define MAGIC 0xe85250d6
#define I386 0
        .section .multiboot, "a"
        .balign 8
header: .long MAGIC, I386, header_end - header
        .long -(MAGIC + I386 + (header_end - header))
        .short 0, 0                      /* the end tag */
        .long 8
header_end:
