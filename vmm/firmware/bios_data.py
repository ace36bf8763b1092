"""The BIOS data area: what a PC's firmware leaves at 0x400 about the machine.

Xen finds room for its real-mode code by it, old kernels the end of low memory (IBM, "Personal
System/2 and Personal Computer BIOS Interface Technical Reference", "BIOS Data Area").
"""

import struct
from typing import Final

BIOS_DATA: Final = 0x400
_COM1: Final = 0x3F8
_EBDA: Final = 0x9FC00  # the end of low memory, `vmm.boot.memmap`
_EQUIPMENT: Final = 1 << 9 | 1 << 1  # one serial port, a coprocessor


def bios_data() -> tuple[int, bytes]:
    """Return (address, bytes): serial ports, EBDA segment, equipment, KiB of low memory."""
    words = struct.pack("<4H", _COM1, 0, 0, 0)
    words += struct.pack("<3H", 0, 0, 0)  # parallel ports
    words += struct.pack("<HHBH", _EBDA >> 4, _EQUIPMENT, 0, _EBDA >> 10)
    return BIOS_DATA, words
