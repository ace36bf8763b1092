"""The segments of a new task: descriptors and the checks of "Exception Conditions Checked During a
Task Switch".
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hwmodel.arch.vmcs import Field
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.task_state import SELECTORS, read_linear, write_linear

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

TS, NP, SS_FAULT = 10, 11, 12
ES, CS, SS, DS, FS, GS, LDTR, TR = range(8)
LOAD_ORDER: Final = (CS, SS, ES, DS, FS, GS)
_ALL: Final = (*SELECTORS, Field.GUEST_LDTR_SELECTOR, Field.GUEST_TR_SELECTOR)
_BASES: Final = (
    Field.GUEST_ES_BASE, Field.GUEST_CS_BASE, Field.GUEST_SS_BASE, Field.GUEST_DS_BASE,
    Field.GUEST_FS_BASE, Field.GUEST_GS_BASE, Field.GUEST_LDTR_BASE, Field.GUEST_TR_BASE,
)  # fmt: skip
_LIMITS: Final = (
    Field.GUEST_ES_LIMIT, Field.GUEST_CS_LIMIT, Field.GUEST_SS_LIMIT, Field.GUEST_DS_LIMIT,
    Field.GUEST_FS_LIMIT, Field.GUEST_GS_LIMIT, Field.GUEST_LDTR_LIMIT, Field.GUEST_TR_LIMIT,
)  # fmt: skip
_RIGHTS: Final = (
    Field.GUEST_ES_AR_BYTES, Field.GUEST_CS_AR_BYTES, Field.GUEST_SS_AR_BYTES,
    Field.GUEST_DS_AR_BYTES, Field.GUEST_FS_AR_BYTES, Field.GUEST_GS_AR_BYTES,
    Field.GUEST_LDTR_AR_BYTES, Field.GUEST_TR_AR_BYTES,
)  # fmt: skip
_UNUSABLE: Final = 1 << 16
_V8086: Final = 0xF3
_ACCESSED, _WRITABLE, _CONFORMING, _CODE, _S, _P = 1, 2, 4, 8, 0x10, 0x80
_TI: Final = 4
_LDT: Final = 2


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Eight bytes of a descriptor table, found at `linear`. `rights` as the VMCS has them."""

    selector: int
    linear: int
    base: int
    limit: int
    rights: int

    @property
    def dpl(self) -> int:
        """Descriptor privilege level."""
        return self.rights >> 5 & 3

    @property
    def is_code(self) -> bool:
        """Whether it is a code segment."""
        return self.rights & (_S | _CODE) == _S | _CODE

    @property
    def is_conforming(self) -> bool:
        """Whether it is a conforming code segment."""
        return self.is_code and bool(self.rights & _CONFORMING)

    @property
    def is_present(self) -> bool:
        """The P bit."""
        return bool(self.rights & _P)


def read_descriptor(vcpu: "Vcpu", selector: int) -> Descriptor:
    """Find what `selector` names; #TS with the selector when it lies beyond its table."""
    in_ldt = selector & _TI
    base = vcpu.vmcs[Field.GUEST_LDTR_BASE if in_ldt else Field.GUEST_GDTR_BASE]
    limit = vcpu.vmcs[Field.GUEST_LDTR_LIMIT if in_ldt else Field.GUEST_GDTR_LIMIT]
    no_table = in_ldt and vcpu.vmcs[Field.GUEST_LDTR_AR_BYTES] & _UNUSABLE
    if no_table or (selector | 7) > limit:
        raise GuestFault(TS, selector & 0xFFFC)
    linear = base + (selector & 0xFFF8)
    value = int.from_bytes(read_linear(vcpu, linear, 8), "little")
    limit = value & 0xFFFF | value >> 32 & 0xF0000
    if value >> 55 & 1:
        limit = limit << 12 | 0xFFF
    where = value >> 16 & 0xFF_FFFF | value >> 32 & 0xFF00_0000
    return Descriptor(selector, linear, where, limit, value >> 40 & 0xF0FF)


def set_type_bit(vcpu: "Vcpu", descriptor: Descriptor, bit: int, *, on: bool) -> None:
    """Set or clear a bit of the type field in memory: busy, accessed."""
    old = read_linear(vcpu, descriptor.linear + 5, 1)[0]
    new = old | bit if on else old & ~bit
    if new != old:
        write_linear(vcpu, descriptor.linear + 5, bytes([new]))


def set_segment(vcpu: "Vcpu", segment: int, descriptor: Descriptor, rights: int) -> None:
    """Load the visible and the hidden part of a segment register."""
    vcpu.vmcs[_ALL[segment]] = descriptor.selector
    vcpu.vmcs[_BASES[segment]] = descriptor.base
    vcpu.vmcs[_LIMITS[segment]] = descriptor.limit
    vcpu.vmcs[_RIGHTS[segment]] = rights


def set_selectors(vcpu: "Vcpu", selectors: list[int], ldt: int, cpl: int) -> None:
    """Load all visible parts; nothing is usable yet, as handlers of faults from here on see it."""
    for segment, selector in enumerate([*selectors, ldt]):
        unusable = _UNUSABLE | (cpl << 5 if segment == SS else 0)
        set_segment(vcpu, segment, Descriptor(selector, 0, 0, 0, 0), unusable)


def load_v8086(vcpu: "Vcpu", selectors: list[int]) -> None:
    """Load all six as V8086 mode has them."""
    for segment, selector in enumerate(selectors):
        set_segment(vcpu, segment, Descriptor(selector, 0, selector << 4, 0xFFFF, 0), _V8086)


def load_ldt(vcpu: "Vcpu", selector: int) -> None:
    """Load LDTR; #TS with the selector for anything but a present LDT in the GDT."""
    if not selector & 0xFFFC:
        return
    if selector & _TI:
        raise GuestFault(TS, selector & 0xFFFC)
    found = read_descriptor(vcpu, selector)
    if found.rights & (_S | 0xF) != _LDT or not found.is_present:
        raise GuestFault(TS, selector & 0xFFFC)
    set_segment(vcpu, LDTR, found, found.rights)


def load_segment(vcpu: "Vcpu", segment: int, selector: int, cpl: int) -> None:
    """Load ES to GS of a task at `cpl` with the checks that a task switch makes."""
    error = selector & 0xFFFC
    if not error:
        if segment in (CS, SS):
            raise GuestFault(TS, 0)
        return
    found = read_descriptor(vcpu, selector)
    if not _may_load(found, segment, selector & 3, cpl):
        raise GuestFault(TS, error)
    if not found.is_present:
        raise GuestFault(SS_FAULT if segment == SS else NP, error)
    set_type_bit(vcpu, found, _ACCESSED, on=True)
    set_segment(vcpu, segment, found, found.rights | _ACCESSED)


def _may_load(found: Descriptor, segment: int, rpl: int, cpl: int) -> bool:
    if segment == CS:
        fits = found.dpl <= rpl if found.is_conforming else found.dpl == rpl
        return found.is_code and fits
    if segment == SS:
        writable = found.rights & (_S | _CODE | _WRITABLE) == _S | _WRITABLE
        return writable and rpl == found.dpl == cpl
    readable = found.rights & _S and (not found.is_code or found.rights & _WRITABLE)
    return bool(readable) and (found.is_conforming or found.dpl >= max(rpl, cpl))
