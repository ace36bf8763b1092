"""What a PC's firmware writes into CMOS about the memory (the AT's map and QEMU's additions)."""

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PCI_HOLE = 3 * GIB
"""RAM beyond this much continues at 4 GiB; below is what 0x34 and 0x30 tell of."""
EQUIPMENT = 0x06
"""A mathematics processor and a PS/2 mouse port; no diskette drive."""


def describe_memory(cmos: bytearray, memory: int) -> None:
    """Write the sizes of `memory` bytes of RAM: base, extended, above 16 MiB, above 4 GiB."""
    below = min(memory, PCI_HOLE)
    cmos[0x14] = EQUIPMENT
    _put(cmos, (0x15, 0x16), min(below // KIB, 640))
    extended = max(below - MIB, 0) // KIB
    _put(cmos, (0x17, 0x18), min(extended, 0xFFFF))
    _put(cmos, (0x30, 0x31), min(extended, 0xFFFF))
    _put(cmos, (0x34, 0x35), min(max(below - 16 * MIB, 0) // (64 * KIB), 0xFFFF))
    _put(cmos, (0x5B, 0x5C, 0x5D), min((memory - below) // (64 * KIB), 0xFFFFFF))


def _put(cmos: bytearray, places: tuple[int, ...], value: int) -> None:
    for i, place in enumerate(places):
        cmos[place] = value >> 8 * i & 0xFF
