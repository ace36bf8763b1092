"""Descriptor tables and system segments: LGDT, LIDT, LLDT, LTR, and SGDT, SIDT, SLDT, STR, SMSW."""

from typing import TYPE_CHECKING, Final

from hwmodel.arch.vmcs import Field
from hwmodel.vmx.exit import Exit
from vmm.exits.emulator.machine import GuestFault
from vmm.exits.trapped.operand import (
    GP,
    is_address,
    load,
    load_system,
    operand_size,
    put_word,
    store,
    store_system,
    word,
)
from vmm.outcome import Outcome

if TYPE_CHECKING:
    from vmm.vcpu import Vcpu

_NP: Final = 11
_UNUSABLE: Final = 1 << 16
_LMA: Final = 1 << 10
_LDT, _TSS16, _TSS32, _BUSY = 2, 1, 9, 2
_S, _P = 0x10, 0x80
_RIGHTS: Final = 0xF0FF
_Table = tuple[Field, Field]
_GDTR: Final = Field.GUEST_GDTR_BASE, Field.GUEST_GDTR_LIMIT
_IDTR: Final = Field.GUEST_IDTR_BASE, Field.GUEST_IDTR_LIMIT
_LDTR: Final = (
    Field.GUEST_LDTR_SELECTOR, Field.GUEST_LDTR_BASE, Field.GUEST_LDTR_LIMIT,
    Field.GUEST_LDTR_AR_BYTES,
)  # fmt: skip
_TR: Final = (
    Field.GUEST_TR_SELECTOR, Field.GUEST_TR_BASE, Field.GUEST_TR_LIMIT, Field.GUEST_TR_AR_BYTES,
)  # fmt: skip


def _load_table(vcpu: "Vcpu", vmexit: Exit, table: _Table) -> Outcome:
    wide = vcpu.code_bits() == 64
    image = load(vcpu, vmexit, vmexit.guest_linear, 10 if wide else 6)
    base = image >> 16
    if wide and not is_address(vcpu, base):
        raise GuestFault(GP, 0)
    if not wide and operand_size(vmexit) == 2:
        base &= 0xFF_FFFF
    vcpu.vmcs[table[0]], vcpu.vmcs[table[1]] = base, image & 0xFFFF
    return Outcome.SKIP


def _store_table(vcpu: "Vcpu", vmexit: Exit, table: _Table) -> Outcome:
    size = 10 if vcpu.code_bits() == 64 else 6
    image = vcpu.vmcs[table[0]] << 16 | vcpu.vmcs[table[1]] & 0xFFFF
    store(vcpu, vmexit, vmexit.guest_linear, size, image & (1 << 8 * size) - 1)
    return Outcome.SKIP


def handle_lgdt(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Take the guest's descriptor table."""
    return _load_table(vcpu, vmexit, _GDTR)


def handle_lidt(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Take the guest's interrupt table: the hypervisor delivers through it."""
    return _load_table(vcpu, vmexit, _IDTR)


def handle_sgdt(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Show the guest's own."""
    return _store_table(vcpu, vmexit, _GDTR)


def handle_sidt(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Show the guest's own."""
    return _store_table(vcpu, vmexit, _IDTR)


def handle_sldt(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Show the guest's selector."""
    put_word(vcpu, vmexit, vcpu.vmcs[Field.GUEST_LDTR_SELECTOR])
    return Outcome.SKIP


def handle_str(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Show the guest's selector."""
    put_word(vcpu, vmexit, vcpu.vmcs[Field.GUEST_TR_SELECTOR])
    return Outcome.SKIP


def handle_smsw(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Show CR0 as the guest believes it to be."""
    put_word(vcpu, vmexit, vcpu.guest_cr0())
    return Outcome.SKIP


def handle_lldt(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Load LDTR; a null selector makes it unusable."""
    selector = word(vcpu, vmexit)
    if selector & 0xFFFC:
        _load(vcpu, _LDTR, selector, _describe(vcpu, selector, (_LDT,)))
    else:
        _load(vcpu, _LDTR, selector, (0, 0, _UNUSABLE))
    return Outcome.SKIP


def handle_ltr(vcpu: "Vcpu", vmexit: Exit) -> Outcome:
    """Load TR and mark the TSS busy."""
    selector = word(vcpu, vmexit)
    if not selector & 0xFFFC:
        raise GuestFault(GP, 0)
    kinds = (_TSS32,) if vcpu.regs.efer & _LMA else (_TSS16, _TSS32)
    base, limit, rights = _describe(vcpu, selector, kinds)
    rights |= _BUSY
    store_system(vcpu, _place(vcpu, selector) + 5, 1, rights & 0xFF)
    _load(vcpu, _TR, selector, (base, limit, rights))
    return Outcome.SKIP


def _load(
    vcpu: "Vcpu", fields: tuple[Field, Field, Field, Field], selector: int,
    parts: tuple[int, int, int],
) -> None:  # fmt: skip
    for field, value in zip(fields, (selector, *parts), strict=True):
        vcpu.vmcs[field] = value


def _place(vcpu: "Vcpu", selector: int) -> int:
    return vcpu.vmcs[Field.GUEST_GDTR_BASE] + (selector & 0xFFF8) & vcpu.natural_mask()


def _describe(vcpu: "Vcpu", selector: int, kinds: tuple[int, ...]) -> tuple[int, int, int]:
    """Return base, limit and rights of a system segment in the GDT, of one of `kinds`."""
    error, limit = selector & 0xFFFC, vcpu.vmcs[Field.GUEST_GDTR_LIMIT]
    if selector & 4 or (selector | 7) > limit:
        raise GuestFault(GP, error)
    at = _place(vcpu, selector)
    value = load_system(vcpu, at, 8)
    rights = value >> 40 & _RIGHTS
    if rights & _S or rights & 0xF not in kinds:
        raise GuestFault(GP, error)
    if not rights & _P:
        raise GuestFault(_NP, error)
    base = value >> 16 & 0xFF_FFFF | value >> 32 & 0xFF00_0000
    if vcpu.regs.efer & _LMA:
        base |= _upper_half(vcpu, selector) << 32
        if not is_address(vcpu, base):
            raise GuestFault(GP, error)
    size = value & 0xFFFF | value >> 32 & 0xF0000
    if rights & 0x8000:
        size = size << 12 | 0xFFF
    return base, size, rights


def _upper_half(vcpu: "Vcpu", selector: int) -> int:
    """Bits 63 to 32 of the base, behind the descriptor (manual: "LDT and TSS Descriptors in 64-Bit
    Mode").
    """
    if (selector | 7) + 8 > vcpu.vmcs[Field.GUEST_GDTR_LIMIT]:
        raise GuestFault(GP, selector & 0xFFFC)
    value = load_system(vcpu, _place(vcpu, selector) + 8, 8)
    if value >> 40 & 0x1F:  # it must not look like a descriptor of its own
        raise GuestFault(GP, selector & 0xFFFC)
    return value & 0xFFFF_FFFF
