"""Operands as values, and the closures that fetch and store them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmm.exits.emulator.machine import GeneralRegisters, Machine

ES, CS, SS, DS, FS, GS = range(6)
MASK = {bits: (1 << bits) - 1 for bits in (8, 16, 32, 64, 128)}


@dataclass(frozen=True, slots=True)
class Register:
    """A general register; `size` in bytes; `high` for AH CH DH BH."""

    number: int
    size: int
    high: bool = False


@dataclass(frozen=True, slots=True)
class Xmm:
    """A 128-bit register."""

    number: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment register, 0..5."""

    number: int


@dataclass(frozen=True, slots=True)
class Immediate:
    """A constant, sign-extended as the instruction encodes it."""

    value: int


@dataclass(frozen=True, slots=True)
class Memory:
    """segment:[base + index * scale + displacement], truncated to `address_bits`.

    `relative` adds the next instruction's RIP (the displacement already holds the length);
    `flat` says that the segment base counts as zero; `linear_bits` is 32 outside 64-bit mode.
    """

    segment: int
    base: int | None
    index: int | None
    scale: int
    displacement: int
    size: int
    address_bits: int
    linear_bits: int
    flat: bool
    relative: bool = False


Operand = Register | Xmm | Segment | Immediate | Memory
Address = Callable[[Machine], int]
Reader = Callable[[Machine], int]
Getter = Callable[[GeneralRegisters], int]
Setter = Callable[[GeneralRegisters, int], None]


def signed(value: int, bits: int) -> int:
    """Read an unsigned `bits`-wide value as two's complement."""
    return value - (1 << bits) if value >> (bits - 1) else value


def offset_of(memory: Memory) -> Address:
    """Compile the effective address: the offset within the segment."""
    base, index, scale = memory.base, memory.index, memory.scale
    displacement, mask = memory.displacement, MASK[memory.address_bits]
    if memory.relative:
        return lambda m: (m.regs.rip + displacement) & mask
    if base is None and index is None:
        fixed = displacement & mask
        return lambda _: fixed
    if index is None:
        number = base or 0
        return lambda m: (m.regs[number] + displacement) & mask
    if base is None:
        return lambda m: (m.regs[index] * scale + displacement) & mask
    return lambda m: (m.regs[base] + m.regs[index] * scale + displacement) & mask


def linear_of(memory: Memory, offset: Address) -> Address:
    """Compile the step from offset to linear address."""
    if memory.flat:
        return offset
    segment, mask = memory.segment, MASK[memory.linear_bits]
    return lambda m: (m.segment_base(segment) + offset(m)) & mask


def address_of(memory: Memory) -> Address:
    """Compile the linear address of a memory operand."""
    return linear_of(memory, offset_of(memory))


def getter(register: Register) -> Getter:
    """Compile the read of a general register."""
    number = register.number
    if register.size == 8:
        return lambda regs: regs[number]
    if register.high:
        return lambda regs: regs[number] >> 8 & 0xFF
    mask = MASK[register.size * 8]
    return lambda regs: regs[number] & mask


def setter(register: Register) -> Setter:
    """Compile the write of a value that fits; 32-bit writes clear the upper half."""
    number = register.number
    if register.size >= 4:
        return lambda regs, value: regs.__setitem__(number, value)
    shift = 8 if register.high else 0
    keep = MASK[64] & ~(MASK[register.size * 8] << shift)

    def merge(regs: GeneralRegisters, value: int) -> None:
        regs[number] = regs[number] & keep | value << shift

    return merge


def reader(operand: Operand, size: int) -> Reader | None:
    """Compile the read of a general operand as a `size`-byte value; None if it is no such."""
    if size not in (1, 2, 4, 8):
        return None
    mask = MASK[size * 8]
    match operand:
        case Register():
            get = getter(operand)
            return lambda m: get(m.regs)
        case Immediate(value):
            fixed = value & mask
            return lambda _: fixed
        case Memory():
            address = address_of(operand)
            return lambda m: m.read(address(m), size)
        case _:
            return None


def width_of(operand: Operand) -> int:
    """Return the size in bytes of a register or memory operand, 0 for the others."""
    return operand.size if isinstance(operand, Register | Memory) else 0
