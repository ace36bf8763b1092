"""The local APIC's register page: offsets, layouts, and bits kept at a stride of 16 bytes.

Intel SDM, "The Local APIC Block Diagram" (register address map) and "Local Vector Table".
"""

from enum import IntEnum


class Reg(IntEnum):
    """Offsets in the page; an x2APIC MSR is 0x800 + offset / 16."""

    ID = 0x020
    VERSION = 0x030
    TPR = 0x080
    APR = 0x090
    PPR = 0x0A0
    EOI = 0x0B0
    RRD = 0x0C0
    LDR = 0x0D0
    DFR = 0x0E0
    SVR = 0x0F0
    ISR = 0x100
    TMR = 0x180
    IRR = 0x200
    ESR = 0x280
    ICR = 0x300
    ICR_HIGH = 0x310
    LVT_TIMER = 0x320
    LVT_THERMAL = 0x330
    LVT_PERFORMANCE = 0x340
    LVT_LINT0 = 0x350
    LVT_LINT1 = 0x360
    LVT_ERROR = 0x370
    TIMER_INITIAL = 0x380
    TIMER_CURRENT = 0x390
    TIMER_DIVIDE = 0x3E0
    SELF_IPI = 0x3F0


MASKED = 1 << 16
SVR_ENABLED = 1 << 8
VERSION = 0x0005_0014
"""An integrated APIC with six LVT entries, without EOI-broadcast suppression."""
FLAT_MODEL = 0xFFFF_FFFF

LVT_BITS: dict[int, int] = {
    Reg.LVT_TIMER: 0x0007_00FF,
    Reg.LVT_THERMAL: 0x0001_07FF,
    Reg.LVT_PERFORMANCE: 0x0001_07FF,
    Reg.LVT_LINT0: 0x0001_A7FF,
    Reg.LVT_LINT1: 0x0001_A7FF,
    Reg.LVT_ERROR: 0x0001_00FF,
}
"""Writable bits of each local vector table entry."""

LVT_WITH_MODE = (Reg.LVT_THERMAL, Reg.LVT_PERFORMANCE, Reg.LVT_LINT0, Reg.LVT_LINT1)

DELIVERY_STATUS, REMOTE_IRR = 1 << 12, 1 << 14
READ_ONLY: dict[int, int] = {
    **dict.fromkeys(LVT_BITS, DELIVERY_STATUS),
    **dict.fromkeys((Reg.LVT_LINT0, Reg.LVT_LINT1), DELIVERY_STATUS | REMOTE_IRR),
}
"""Bits that a write leaves alone but may set: Linux does when it shuts a processor's APIC down."""

WRITABLE: dict[int, int] = {
    Reg.TPR: 0xFF,
    Reg.SVR: 0x03FF,
    Reg.ICR: 0x000C_CFFF,
    Reg.TIMER_INITIAL: 0xFFFF_FFFF,
    Reg.TIMER_DIVIDE: 0x0B,
    **LVT_BITS,
}
"""Writable bits; in x2APIC mode setting another one is a #GP."""

BITMAPS = tuple(
    bank + word for bank in (Reg.ISR, Reg.TMR, Reg.IRR) for word in range(0, 0x80, 0x10)
)
READABLE = frozenset({*map(int, Reg), *BITMAPS})
PLAIN = READABLE - {Reg.PPR, Reg.TIMER_CURRENT, Reg.SELF_IPI}
"""Registers that a read takes from the page and leaves alone."""

# Writes that move the timer's next expiry.
TIMED = frozenset({Reg.SVR, Reg.LVT_TIMER, Reg.TIMER_INITIAL, Reg.TIMER_DIVIDE})


class Esr(IntEnum):
    """Bits of the error status register that this model can raise."""

    SEND_ILLEGAL_VECTOR = 0x20
    RECEIVE_ILLEGAL_VECTOR = 0x40
    ILLEGAL_REGISTER = 0x80


class RegisterPage:
    """4 KiB of registers; `bytes` may be any writable buffer, such as a page of machine memory."""

    def __init__(self) -> None:
        """All zero."""
        self.bytes: bytearray | memoryview = bytearray(4096)

    def __getitem__(self, offset: int) -> int:
        """Return the 32-bit register at `offset`."""
        return int.from_bytes(self.bytes[offset : offset + 4], "little")

    def __setitem__(self, offset: int, value: int) -> None:
        """Set the 32-bit register at `offset`."""
        self.bytes[offset : offset + 4] = value.to_bytes(4, "little")

    def reset(self, identity: int, *, x2apic: bool) -> None:
        """The state after power-up or INIT, with the ID register given."""
        self.bytes[:] = bytes(4096)
        self[Reg.ID] = identity
        self[Reg.VERSION] = VERSION
        self[Reg.DFR] = 0 if x2apic else FLAT_MODEL
        self[Reg.SVR] = 0xFF
        if x2apic:
            self[Reg.LDR] = identity >> 4 << 16 | 1 << (identity & 15)
        for lvt in LVT_BITS:
            self[lvt] = MASKED

    def test_bit(self, bank: int, vector: int) -> bool:
        """Return the bit of `vector` in ISR, TMR or IRR."""
        return bool(self.bytes[_place(bank, vector)] >> (vector & 7) & 1)

    def set_bit(self, bank: int, vector: int, *, value: bool) -> None:
        """Set or clear the bit of `vector` in ISR, TMR or IRR."""
        place, bit = _place(bank, vector), 1 << (vector & 7)
        self.bytes[place] = self.bytes[place] & ~bit | (bit if value else 0)

    def contents(self) -> bytes:
        """Everything, as a snapshot keeps it."""
        return bytes(self.bytes)

    def fill(self, contents: bytes) -> None:
        """Take over what contents() returned."""
        self.bytes[:] = contents

    def request(self, vector: int) -> None:
        """Have an interrupt requested: set its bit of IRR."""
        self.set_bit(Reg.IRR, vector, value=True)

    def highest(self, bank: int) -> int:
        """Return the highest vector set in ISR or IRR, -1 if none.

        One integer of the whole bank: the twelve bytes between two registers are always zero, so
        bit 128 n + b is bit b of register n.
        """
        top = int.from_bytes(self.bytes[bank : bank + 0x80], "little").bit_length() - 1
        return (top >> 7) * 32 + (top & 31) if top >= 0 else -1


def _place(bank: int, vector: int) -> int:
    return bank + (vector >> 5) * 16 + (vector >> 3 & 3)
