"""Bit tests (with bit strings), bit scans and counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vmm.exits.emulator import alu
from vmm.exits.emulator.alu import CF, STATUS, ZF, Operation
from vmm.exits.emulator.decode import Instruction
from vmm.exits.emulator.operands import (
    MASK,
    Address,
    Memory,
    Register,
    getter,
    linear_of,
    offset_of,
    reader,
    setter,
    signed,
    width_of,
)
from vmm.exits.emulator.ops.modify import modify
from vmm.exits.emulator.outcome import Execute

if TYPE_CHECKING:
    from vmm.exits.emulator.machine import Machine

Builder = Callable[[Instruction], Execute | None]


def _bit_test(operation: Operation, *, writes: bool) -> Builder:
    def build(insn: Instruction) -> Execute | None:
        target, source = insn.operands
        if isinstance(target, Memory) and isinstance(source, Register):
            return _in_string(target, source, operation, writes=writes)
        size = width_of(target) or 1
        index, read = reader(source, size), reader(target, size)
        if not index or not read:
            return None
        if writes:
            return modify(target, lambda m, old: operation(old, index(m), m.regs.rflags, size * 8))
        return _probe(read, index, operation, size * 8)

    return build


def _probe(read: Address, index: Address, operation: Operation, bits: int) -> Execute:
    def execute(m: Machine) -> None:
        m.regs.rflags = operation(read(m), index(m), m.regs.rflags, bits)[1]

    return execute


def _in_string(target: Memory, source: Register, operation: Operation, *, writes: bool) -> Execute:
    """A register's bit number is signed and reaches beyond the operand (*BT*)."""
    size, bits = target.size, target.size * 8
    offset, index, mask = offset_of(target), getter(source), MASK[target.address_bits]

    def moved(m: Machine) -> int:
        return (offset(m) + (signed(index(m.regs), bits) // bits) * size) & mask

    address = linear_of(target, moved)

    def execute(m: Machine) -> None:
        linear = address(m)
        if writes:
            m.check_write(linear, size)
        value, flags = operation(m.read(linear, size), index(m.regs), m.regs.rflags, bits)
        if writes:
            m.write(linear, size, value)
        m.regs.rflags = flags

    return execute


def _scan(result: Callable[[int, int], int]) -> Builder:
    """BSF and BSR: a zero source sets ZF and leaves the destination alone."""

    def build(insn: Instruction) -> Execute | None:
        target, source = insn.operands
        size = width_of(target)
        read = reader(source, size or 1)
        if not read or not isinstance(target, Register):
            return None
        put = setter(target)

        def execute(m: Machine) -> None:
            value = read(m)
            if value:
                put(m.regs, result(value, size * 8))
            m.regs.rflags = m.regs.rflags & ~ZF | (0 if value else ZF)

        return execute

    return build


def _count(result: Callable[[int, int], int], *, carry: bool) -> Builder:
    """TZCNT, LZCNT (CF = source zero, ZF = result zero); POPCNT (ZF = source zero)."""

    def build(insn: Instruction) -> Execute | None:
        target, source = insn.operands
        size = width_of(target)
        read = reader(source, size or 1)
        if not read or not isinstance(target, Register):
            return None
        put = setter(target)

        def execute(m: Machine) -> None:
            value = read(m)
            number = result(value, size * 8)
            put(m.regs, number)
            flags = (0 if number else ZF) | (CF if carry and not value else 0)
            m.regs.rflags = m.regs.rflags & ~STATUS | flags

        return execute

    return build


def _trailing(value: int, bits: int) -> int:
    return (value & -value).bit_length() - 1 if value else bits


_CASTAGNOLI = 0x82F6_3B78  # the polynomial 0x11EDC6F41 of *CRC32*, bits reversed


def _crc32(insn: Instruction) -> Execute | None:
    """Accumulate a CRC-32C over the source, low byte first; flags stay, the upper half is zero."""
    target, source = insn.operands
    if not isinstance(target, Register):
        return None
    size = width_of(source) or target.size
    read, get, put = reader(source, size), getter(target), setter(target)
    if not read:
        return None

    def execute(m: Machine) -> None:
        remainder = get(m.regs) & MASK[32] ^ read(m)
        for _ in range(size * 8):
            remainder = remainder >> 1 ^ (_CASTAGNOLI if remainder & 1 else 0)
        put(m.regs, remainder)

    return execute


TABLE: dict[str, Builder] = {
    "crc32": _crc32,
    "bt": _bit_test(alu.bt, writes=False),
    "bts": _bit_test(alu.bts, writes=True),
    "btr": _bit_test(alu.btr, writes=True),
    "btc": _bit_test(alu.btc, writes=True),
    "bsf": _scan(_trailing),
    "bsr": _scan(lambda value, _: value.bit_length() - 1),
    "tzcnt": _count(_trailing, carry=True),
    "lzcnt": _count(lambda value, bits: bits - value.bit_length(), carry=True),
    "popcnt": _count(lambda value, _: value.bit_count(), carry=False),
}
