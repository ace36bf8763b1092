"""SSE moves and logic: the forms that drivers and C libraries use on device memory."""

from __future__ import annotations

from collections.abc import Callable

from vmm.exits.emulator.decode import Instruction
from vmm.exits.emulator.machine import GuestFault, Machine
from vmm.exits.emulator.operands import (
    MASK,
    Address,
    Memory,
    Operand,
    Register,
    Xmm,
    address_of,
    getter,
    setter,
)
from vmm.exits.emulator.outcome import Execute

Builder = Callable[[Instruction], Execute | None]
GENERAL_PROTECTION = 13
LOW, ALL = MASK[64], MASK[128]


def _aligned(memory: Memory) -> Address:
    address = address_of(memory)

    def checked(m: Machine) -> int:
        linear = address(m)
        if linear & 15:
            raise GuestFault(GENERAL_PROTECTION, 0)
        return linear

    return checked


def _source(operand: Operand, *, aligned: bool = True) -> Callable[[Machine], int] | None:
    """Compile the read of a 128-bit operand."""
    if isinstance(operand, Xmm):
        number = operand.number
        return lambda m: m.xmm(number)
    if not isinstance(operand, Memory):
        return None
    address = _aligned(operand) if aligned else address_of(operand)
    return lambda m: m.read(address(m), 16)


def _full(*, aligned: bool) -> Builder:
    """MOVAPS, MOVUPS and all whose meaning is "16 bytes"."""

    def build(insn: Instruction) -> Execute | None:
        target, source = insn.operands
        value = _source(source, aligned=aligned)
        if value and isinstance(target, Xmm):
            return lambda m: m.set_xmm(target.number, value(m))
        if not value or not isinstance(target, Memory):
            return None
        address = _aligned(target) if aligned else address_of(target)
        return lambda m: m.write(address(m), 16, value(m))

    return build


def _store_part(target: Memory, source: Xmm, size: int, shift: int = 0) -> Execute:
    address, mask = address_of(target), MASK[size * 8]
    return lambda m: m.write(address(m), size, m.xmm(source.number) >> shift & mask)


def _scalar(size: int) -> Builder:
    """MOVSS, MOVSD: a load clears the rest, a register move keeps it."""
    mask = MASK[size * 8]

    def build(insn: Instruction) -> Execute | None:
        match insn.operands:
            case (Xmm(number), Memory() as source):
                address = address_of(source)
                return lambda m: m.set_xmm(number, m.read(address(m), size))
            case (Memory() as target, Xmm() as kept):
                return _store_part(target, kept, size)
            case (Xmm(number), Xmm(other)):
                return lambda m: m.set_xmm(number, m.xmm(number) & ~mask | m.xmm(other) & mask)
            case _:
                return None

    return build


def _move(size: int) -> Builder:
    """MOVD, MOVQ: between the low part of an XMM register and register or memory."""
    mask = MASK[size * 8]

    def build(insn: Instruction) -> Execute | None:
        match insn.operands:
            case (Xmm(number), Memory() as source):
                address = address_of(source)
                return lambda m: m.set_xmm(number, m.read(address(m), size))
            case (Xmm(number), Register() as register):
                get = getter(register)
                return lambda m: m.set_xmm(number, get(m.regs))
            case (Xmm(number), Xmm(other)):
                return lambda m: m.set_xmm(number, m.xmm(other) & mask)
            case (Memory() as target, Xmm() as kept):
                return _store_part(target, kept, size)
            case (Register() as register, Xmm(other)):
                put = setter(register)
                return lambda m: put(m.regs, m.xmm(other) & mask)
            case _:
                return None

    return build


def _half(shift: int) -> Builder:
    """MOVLPS, MOVHPS: one 64-bit half against memory, the other kept."""
    kept = ALL & ~(LOW << shift)

    def build(insn: Instruction) -> Execute | None:
        match insn.operands:
            case (Xmm(number), Memory() as source):
                address = address_of(source)
                return lambda m: m.set_xmm(
                    number, m.xmm(number) & kept | m.read(address(m), 8) << shift
                )
            case (Memory() as target, Xmm() as register):
                return _store_part(target, register, 8, shift)
            case _:
                return None

    return build


def _logic(operation: Callable[[int, int], int]) -> Builder:
    def build(insn: Instruction) -> Execute | None:
        target, source = insn.operands
        value = _source(source)
        if not value or not isinstance(target, Xmm):
            return None
        number = target.number
        return lambda m: m.set_xmm(number, operation(m.xmm(number), value(m)))

    return build


_ALIGNED = ["movaps", "movapd", "movdqa", "movntps", "movntpd", "movntdq", "movntdqa"]
_UNALIGNED = ["movups", "movupd", "movdqu", "lddqu"]
_LOGIC: dict[str, Callable[[int, int], int]] = {
    "and": lambda a, b: a & b,
    "andn": lambda a, b: ~a & ALL & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}

TABLE: dict[str, Builder] = {
    **{name: _full(aligned=True) for name in _ALIGNED},
    **{name: _full(aligned=False) for name in _UNALIGNED},
    "movss": _scalar(4),
    "movsd": _scalar(8),
    "movd": _move(4),
    "movq": _move(8),
    "movlps": _half(0),
    "movlpd": _half(0),
    "movhps": _half(64),
    "movhpd": _half(64),
    **{f"p{name}": _logic(op) for name, op in _LOGIC.items()},
    **{f"{name}ps": _logic(op) for name, op in _LOGIC.items()},
    **{f"{name}pd": _logic(op) for name, op in _LOGIC.items()},
}
