"""The local APIC by MSR: IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC registers.

A refused access (None, False) is a #GP that the caller injects. Intel SDM, "Extended XAPIC
(x2APIC)", "x2APIC Register Address Space" and "x2APIC State Transitions".
"""

from enum import IntEnum
from typing import Protocol

from vmm.devices.lapic_registers import READ_ONLY, READABLE, WRITABLE, Reg
from vmm.devices.lapic_timer import ApicTimer

APIC_BASE_MSR, TSC_DEADLINE_MSR, X2APIC_FIRST, X2APIC_LAST = 0x1B, 0x6E0, 0x800, 0x8FF
DEFAULT_BASE = 0xFEE0_0000
BSP, EXTENDED, ENABLED = 1 << 8, 1 << 10, 1 << 11

_NOT_IN_X2APIC = {Reg.DFR, Reg.ICR_HIGH, Reg.APR, Reg.RRD}
_WRITE_ONLY = {Reg.EOI, Reg.SELF_IPI}
_READABLE = READABLE - {int(reg) for reg in _NOT_IN_X2APIC | _WRITE_ONLY}
PASSED_READS = {
    X2APIC_FIRST + offset // 16 for offset in _READABLE - {Reg.ICR, Reg.PPR, Reg.TIMER_CURRENT}
}
"""What a processor may read of the virtual-APIC page: nothing that is computed or split."""
PASSED_WRITES = {X2APIC_FIRST + offset // 16 for offset in (Reg.TPR, Reg.EOI, Reg.SELF_IPI)}
"""What it may write there, as it then does what that causes."""
_WRITABLE = WRITABLE | {Reg.EOI: 0, Reg.ESR: 0, Reg.SELF_IPI: 0xFF}


class Mode(IntEnum):
    """What EN and EXTD of IA32_APIC_BASE say."""

    DISABLED = 0
    INVALID = EXTENDED
    XAPIC = ENABLED
    X2APIC = ENABLED | EXTENDED


_TRANSITIONS = {
    (Mode.DISABLED, Mode.XAPIC),
    (Mode.XAPIC, Mode.X2APIC),
    (Mode.XAPIC, Mode.DISABLED),
    (Mode.X2APIC, Mode.DISABLED),
}


class Registers(Protocol):
    """What this path asks of a local APIC."""

    base: int
    timer: ApicTimer

    @property
    def base_reserved(self) -> int:
        """Bits of IA32_APIC_BASE that must be zero."""

    def change_base(self, value: int) -> None:
        """Take a valid IA32_APIC_BASE."""

    def read_register(self, offset: int) -> int:
        """Return a 32-bit register."""

    def write_register(self, offset: int, value: int) -> None:
        """Write a 32-bit register, with its effects."""

    def run_timer(self) -> None:
        """Deliver an expiry that is due."""


def mode_of(base: int) -> Mode:
    """Return the mode that a value of IA32_APIC_BASE chooses."""
    return Mode(base & (ENABLED | EXTENDED))


def read(apic: Registers, index: int) -> int | None:
    """RDMSR; None is a #GP."""
    if index == APIC_BASE_MSR:
        return apic.base
    if index == TSC_DEADLINE_MSR:
        apic.run_timer()
        return apic.timer.deadline
    offset = (index - X2APIC_FIRST) * 16
    if mode_of(apic.base) is not Mode.X2APIC or offset not in _READABLE:
        return None
    value = apic.read_register(offset)
    return value | apic.read_register(Reg.ICR_HIGH) << 32 if offset == Reg.ICR else value


def write(apic: Registers, index: int, value: int) -> bool:
    """WRMSR; False is a #GP."""
    if index == APIC_BASE_MSR:
        return _write_base(apic, value)
    if index == TSC_DEADLINE_MSR:
        apic.run_timer()
        apic.timer.set_deadline(value)
        apic.run_timer()
        return True
    offset = (index - X2APIC_FIRST) * 16
    if mode_of(apic.base) is not Mode.X2APIC or offset not in _WRITABLE:
        return False
    low = value & 0xFFFF_FFFF if offset == Reg.ICR else value
    if low & ~(_WRITABLE[Reg(offset)] | READ_ONLY.get(Reg(offset), 0)):
        return False
    if offset == Reg.ICR:
        apic.write_register(Reg.ICR_HIGH, value >> 32)
    apic.write_register(offset, low)
    return True


def _write_base(apic: Registers, value: int) -> bool:
    old, new = mode_of(apic.base), mode_of(value)
    if value & apic.base_reserved or (old is not new and (old, new) not in _TRANSITIONS):
        return False
    apic.change_base(value)
    return True
