/* Multiboot 1 header: found by the loader in the first 8 KiB of the file.  The entry is
 * boot32.S. */
#define MAGIC 0x1badb002
#define FLAGS 3                          /* page-aligned modules, memory information */
        .section .multiboot, "a"
        .balign 4
        .long MAGIC, FLAGS, -(MAGIC + FLAGS)
