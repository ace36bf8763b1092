"""The state that a test's code starts in: mode, ring, paging, tables, one handler a vector."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hwmodel.arch.vmcs import Field
from vmm.errors import UsageError
from vmm.memory.guest import GuestMemory
from vmm.testing import layout as at
from vmm.testing.paging import PageTables, Scheme
from vmm.vcpu import Vcpu

_PE, _MP, _ET, _NE, _WP, _PG = 1, 2, 1 << 4, 1 << 5, 1 << 16, 1 << 31
_CR4: Final = {
    Scheme.NONE: 0x600, Scheme.BITS32: 0x610, Scheme.PAE: 0x620, Scheme.LEVEL4: 0x620,
    Scheme.LEVEL5: 0x1620,
}  # fmt: skip
_LONG_EFER, _NXE = 1 << 8 | 1 << 10, 1 << 11
_IDENTITY_MB: Final = 1 << 20


class Mode(StrEnum):
    """The processor mode of the first instruction."""

    REAL16 = "real16"
    PROT16 = "prot16"
    PROT32 = "prot32"
    COMPAT32 = "compat32"
    LONG64 = "long64"

    @property
    def bits(self) -> int:
        """Return the size of the code segment."""
        return int(self.value[-2:])

    @property
    def is_long(self) -> bool:
        """Whether IA-32e mode is active."""
        return self in (Mode.LONG64, Mode.COMPAT32)


@dataclass(frozen=True, slots=True)
class Environment:
    """What a test asks of the state before its code. Raises UsageError for what cannot be."""

    mode: Mode = Mode.LONG64
    ring: int = 0
    paging: Scheme | None = None
    """None: 4-level in long mode, none elsewhere."""
    pages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse combinations that no processor has."""
        if self.ring not in (0, 3):
            raise UsageError(f"ring {self.ring} is not offered; use ring 0 or 3")
        if self.ring and self.mode is Mode.REAL16:
            raise UsageError("real mode has no ring 3; use mode='prot16' or ring=0")
        if self.mode.is_long != (self.scheme in (Scheme.LEVEL4, Scheme.LEVEL5)):
            raise UsageError(f"paging {self.scheme} does not go with {self.mode}; leave paging out")
        if self.mode is Mode.REAL16 and self.scheme is not Scheme.NONE:
            raise UsageError("real mode has no paging; leave paging out")
        if self.pages and self.scheme is Scheme.NONE:
            raise UsageError(f"pages need paging; {self.mode} has none unless paging= is given")

    @property
    def scheme(self) -> Scheme:
        """Return the kind of paging."""
        if self.paging is not None:
            return self.paging
        return Scheme.LEVEL4 if self.mode.is_long else Scheme.NONE

    def load(self, memory: GuestMemory, vcpu: Vcpu) -> None:
        """Put the tables into memory and the state into a vCPU that was reset."""
        _fill_memory(self, memory)
        _control_registers(self, vcpu)
        _segments(self, vcpu)
        regs = vcpu.regs
        is_real = self.mode is Mode.REAL16
        regs.rip = 0 if is_real or self.mode is Mode.PROT16 else at.CODE
        regs.rsp, regs.rflags = at.STACK, 2
        if self.mode is Mode.PROT16:
            regs.rsp = at.STACK - 0x10


def _fill_memory(env: Environment, memory: GuestMemory) -> None:
    stubs = b"".join(at.STUB.ljust(at.STUB_BYTES, b"\xf4") for _ in range(256))
    memory.write(at.STUBS, stubs)
    memory.write(at.CODE, b"\xf4" * 16)
    if env.mode is Mode.REAL16:
        vectors = (struct.pack("<HH", n * at.STUB_BYTES, at.STUBS >> 4) for n in range(256))
        memory.write(at.IVT, b"".join(vectors))
        return
    memory.write(at.IDT, b"".join(_gates(env)))
    memory.write(at.GDT, b"".join(_descriptors(env)))
    memory.write(at.TSS, _tss(env))
    if env.scheme is not Scheme.NONE:
        tables = PageTables(env.scheme, env.pages, user=env.ring == 3)
        memory.write(at.TABLES, bytes(tables.image))


def _gates(env: Environment) -> Iterator[bytes]:
    """An interrupt gate a vector; in long mode all on a stack of their own, so none is lost."""
    for vector in range(256):
        handler = at.STUBS + vector * at.STUB_BYTES
        dpl = 3 if vector in (3, 4, at.END) else 0
        if env.mode.is_long:
            yield struct.pack("<HHBBHII", handler, at.CODE64, 1, 0x8E | dpl << 5, 0, 0, 0)
        else:
            yield struct.pack("<HHBBH", handler, at.CODE32, 0, 0x8E | dpl << 5, 0)


def _descriptor(rights: int, base: int = 0, limit: int = 0xFFFFF) -> bytes:
    """Rights in the form of a VMCS: type and S, DPL, P in bits 7:0, then AVL, L, D, G in 15:12."""
    low = limit & 0xFFFF | (base & 0xFFFFFF) << 16
    high = rights & 0xFF | (limit >> 16 & 15) << 8 | rights & 0xF000 | (base >> 24) << 16
    return (low | high << 40).to_bytes(8, "little")


_RIGHTS: Final = {
    at.CODE64: 0xA09B, at.DATA0: 0xC093, at.CODE32: 0xC09B, at.USER_CODE32: 0xC0FB,
    at.USER_DATA: 0xC0F3, at.USER_CODE64: 0xA0FB, at.CODE16: 0x009B, at.DATA16: 0x0093,
    at.USER_CODE16: 0x00FB, at.USER_DATA16: 0x00F3,
}  # fmt: skip
_SMALL: Final = (at.CODE16, at.DATA16, at.USER_CODE16, at.USER_DATA16)


def _base(selector: int, mode: Mode) -> int:
    if selector in (at.CODE16, at.USER_CODE16):
        return at.CODE
    return at.DATA * (selector in (at.DATA16, at.USER_DATA16)) if mode is not Mode.REAL16 else 0


def _limit(selector: int) -> int:
    return 0xFFFF if selector in _SMALL else 0xFFFFF


def _descriptors(env: Environment) -> Iterator[bytes]:
    yield bytes(8)
    for selector in range(8, at.TSS_SELECTOR, 8):
        yield _descriptor(_RIGHTS[selector], _base(selector, env.mode), _limit(selector))
    yield _descriptor(0x8B, at.TSS, 0x67) + bytes(8)


def _tss(env: Environment) -> bytes:
    """The stack of faults: IST1 in long mode, ring 0's in both."""
    tss = bytearray(0x68)
    if env.mode.is_long:
        tss[4:12] = at.FAULT_STACK.to_bytes(8, "little")
        tss[36:44] = at.FAULT_STACK.to_bytes(8, "little")
    else:
        tss[4:10] = struct.pack("<IH", at.FAULT_STACK, at.DATA0)
    tss[0x66:0x68] = (0x68).to_bytes(2, "little")  # no I/O bitmap
    return bytes(tss)


def _control_registers(env: Environment, vcpu: Vcpu) -> None:
    regs = vcpu.regs
    if env.mode is Mode.REAL16:
        vcpu.set_cr0(_ET | _NE | _MP)
        vcpu.set_cr4(0x600)
        return
    paged = env.scheme is not Scheme.NONE
    vcpu.set_cr0(_PE | _MP | _ET | _NE | (_WP | _PG if paged else 0))
    vcpu.set_cr4(_CR4[env.scheme])
    regs.cr3 = at.TABLES if paged else 0
    regs.efer = (_LONG_EFER if env.mode.is_long else 0) | (
        _NXE if env.scheme not in (Scheme.NONE, Scheme.BITS32) else 0
    )
    vmcs = vcpu.vmcs
    vmcs[Field.GUEST_GDTR_BASE], vmcs[Field.GUEST_GDTR_LIMIT] = at.GDT, at.GDT_LIMIT
    limit = 256 * (16 if env.mode.is_long else 8) - 1
    vmcs[Field.GUEST_IDTR_BASE], vmcs[Field.GUEST_IDTR_LIMIT] = at.IDT, limit
    if env.scheme is Scheme.PAE:
        for n in range(4):
            entry = vcpu.memory.read(at.TABLES + 8 * n, 8)
            vmcs[Field[f"GUEST_PDPTR{n}"]] = int.from_bytes(entry, "little")


_CODE_OF: Final = {
    (Mode.LONG64, 0): at.CODE64, (Mode.LONG64, 3): at.USER_CODE64,
    (Mode.COMPAT32, 0): at.CODE32, (Mode.COMPAT32, 3): at.USER_CODE32,
    (Mode.PROT32, 0): at.CODE32, (Mode.PROT32, 3): at.USER_CODE32,
    (Mode.PROT16, 0): at.CODE16, (Mode.PROT16, 3): at.USER_CODE16,
}  # fmt: skip


def _segments(env: Environment, vcpu: Vcpu) -> None:
    if env.mode is Mode.REAL16:
        for name in ("ES", "SS", "DS", "FS", "GS"):
            base = 0 if name == "SS" else at.DATA
            _segment(vcpu, name, base >> 4, base, 0xFFFF, 0x93)
        _segment(vcpu, "CS", at.CODE >> 4, at.CODE, 0xFFFF, 0x9B)
        vcpu.vmcs[Field.GUEST_IDTR_BASE], vcpu.vmcs[Field.GUEST_IDTR_LIMIT] = at.IVT, 0x3FF
        return
    small = env.mode is Mode.PROT16
    data = at.USER_DATA if env.ring else at.DATA0
    if small:
        data = at.USER_DATA16 if env.ring else at.DATA16
    for name in ("ES", "SS", "DS", "FS", "GS"):
        _load(vcpu, env, name, data)
    _load(vcpu, env, "CS", _CODE_OF[env.mode, env.ring])
    _segment(vcpu, "TR", at.TSS_SELECTOR, at.TSS, 0x67, 0x8B)


def _load(vcpu: Vcpu, env: Environment, name: str, selector: int) -> None:
    limit = 0xFFFF if selector in _SMALL else 0xFFFF_FFFF
    _segment(vcpu, name, selector | env.ring, _base(selector, env.mode), limit, _RIGHTS[selector])


def _segment(vcpu: Vcpu, name: str, selector: int, base: int, limit: int, rights: int) -> None:
    vcpu.vmcs[Field[f"GUEST_{name}_SELECTOR"]] = selector
    vcpu.vmcs[Field[f"GUEST_{name}_BASE"]] = base
    vcpu.vmcs[Field[f"GUEST_{name}_LIMIT"]] = limit
    vcpu.vmcs[Field[f"GUEST_{name}_AR_BYTES"]] = rights
