"""Where everything lies in the memory of a test guest (guest-physical and, unless a test maps it
elsewhere, linear).

    0x00000  real-mode vectors           0x08000  end of the stack of faults, 0x0c000 of the program
    0x01000  IDT, 256 gates              0x10000  code, 64 KiB
    0x02000  GDT                         0x20000  data, 64 KiB
    0x03000  TSS                         0x40000  page tables, 256 KiB
    0x04000  one stub a vector           0x80000  free up to the end of RAM (a PC's hole at 0xa0000)

A stub is HLT: where a run ends tells the vector. Stubs are 16 bytes apart; the vector END is how
code outside ring 0, which may not halt, ends well.
"""

from typing import Final

IVT: Final = 0x0
IDT: Final = 0x1000
GDT: Final = 0x2000
TSS: Final = 0x3000
STUBS: Final = 0x4000
FAULT_STACK: Final = 0x8000
STACK: Final = 0xC000
CODE: Final = 0x10000
DATA: Final = 0x20000
TABLES: Final = 0x40000
TABLES_END: Final = 0x80000

STUB_BYTES: Final = 16
STUB: Final = bytes.fromhex("f4ebfd")  # hlt; jmp to it
END: Final = 0xFF

CODE64: Final = 0x08
DATA0: Final = 0x10
CODE32: Final = 0x18
USER_CODE32: Final = 0x20  # the order in which SYSRET wants the three
USER_DATA: Final = 0x28
USER_CODE64: Final = 0x30
CODE16: Final = 0x38
DATA16: Final = 0x40
USER_CODE16: Final = 0x48
USER_DATA16: Final = 0x50
TSS_SELECTOR: Final = 0x58
GDT_LIMIT: Final = 0x67
