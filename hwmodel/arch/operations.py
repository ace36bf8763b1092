"""What a guest of the trap technique asks for, where no exit reason of VT-x says it.

Every one of these is an exception or a software interrupt to the hardware; the name is by the
instruction (manual, volume 2). An instruction that has a basic exit reason goes by that; these
numbers are above all of them.
"""

from enum import IntEnum


class Operation(IntEnum):
    """The instruction; the numbers are those of `OPERATION_*` in cext/native.cdef.h."""

    CLI = 0x80
    STI = 0x81
    PUSHF = 0x82
    POPF = 0x83
    IRET = 0x84
    LGDT = 0x85
    LIDT = 0x86
    LLDT = 0x87
    LTR = 0x88
    SGDT = 0x89
    SIDT = 0x8A
    SLDT = 0x8B
    STR = 0x8C
    SMSW = 0x8D
    SWAPGS = 0x8E
    SYSCALL = 0x8F
    SYSRET = 0x90
    SYSENTER = 0x91
    SYSEXIT = 0x92
    CLAC = 0x93
    STAC = 0x94
    INT = 0x95
