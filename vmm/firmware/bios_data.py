"""What a PC's firmware leaves in low memory: the interrupt vectors and the BIOS data area.

Xen finds room for its real-mode code by the data area, old kernels the end of low memory (IBM,
"Personal System/2 and Personal Computer BIOS Interface Technical Reference", "BIOS Data Area").
There is no BIOS: each vector leads to an IRET, at the address where the PC's had its own.
"""

import struct
from typing import Final

BIOS_DATA: Final = 0x400
DUMMY_IRET: Final = 0xF_FF53  # F000:FF53, "dummy interrupt handler" of the PC's BIOS
_IRET: Final = b"\xcf"
_COM1: Final = 0x3F8
_EBDA: Final = 0x9FC00  # the end of low memory, `vmm.boot.memmap`
_EQUIPMENT: Final = 1 << 9 | 1 << 1  # one serial port, a coprocessor


def bios_data() -> tuple[int, bytes]:
    """Return (address, bytes): serial ports, EBDA segment, equipment, KiB of low memory."""
    words = struct.pack("<4H", _COM1, 0, 0, 0)
    words += struct.pack("<3H", 0, 0, 0)  # parallel ports
    words += struct.pack("<HHBH", _EBDA >> 4, _EQUIPMENT, 0, _EBDA >> 10)
    return BIOS_DATA, words


def interrupt_vectors() -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    """Return (address, bytes) of the 256 real-mode vectors and of the handler that all have."""
    vector = struct.pack("<HH", DUMMY_IRET & 0xFFFF, 0xF000)
    return (0, vector * 256), (DUMMY_IRET, _IRET)
