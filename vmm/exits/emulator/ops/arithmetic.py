"""Two-operand and one-operand arithmetic, shifts and rotates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vmm.exits.emulator import alu, shift
from vmm.exits.emulator.decode import Instruction
from vmm.exits.emulator.operands import reader, width_of
from vmm.exits.emulator.ops.modify import modify
from vmm.exits.emulator.outcome import Execute

if TYPE_CHECKING:
    from vmm.exits.emulator.alu import Operation
    from vmm.exits.emulator.machine import Machine

Builder = Callable[[Instruction], Execute | None]


def _binary(operation: Operation) -> Builder:
    def build(insn: Instruction) -> Execute | None:
        target, source = insn.operands
        size = width_of(target)
        value, bits = reader(source, size or 1), size * 8
        if not value:
            return None
        return modify(target, lambda m, old: operation(old, value(m), m.regs.rflags, bits))

    return build


def _compare(operation: Operation) -> Builder:
    def build(insn: Instruction) -> Execute | None:
        size = width_of(insn.operands[0]) or 1
        left, right = (reader(operand, size) for operand in insn.operands)
        if not left or not right:
            return None
        bits = size * 8

        def execute(m: Machine) -> None:
            m.regs.rflags = operation(left(m), right(m), m.regs.rflags, bits)[1]

        return execute

    return build


def _unary(operation: Operation) -> Builder:
    def build(insn: Instruction) -> Execute | None:
        bits = width_of(insn.operands[0]) * 8
        return modify(insn.operands[0], lambda m, old: operation(old, 0, m.regs.rflags, bits))

    return build


def _shift(operation: Operation) -> Builder:
    def build(insn: Instruction) -> Execute | None:
        count, bits = reader(insn.operands[1], 1), width_of(insn.operands[0]) * 8
        if not count:
            return None
        return modify(
            insn.operands[0], lambda m, old: operation(old, count(m), m.regs.rflags, bits)
        )

    return build


def _double_shift(operation: Callable[[int, int, int, int, int], tuple[int, int]]) -> Builder:
    def build(insn: Instruction) -> Execute | None:
        target, source, last = insn.operands
        size = width_of(target)
        fill, count = reader(source, size or 1), reader(last, 1)
        if not fill or not count:
            return None
        return modify(
            target,
            lambda m, old: operation(old, fill(m), count(m), m.regs.rflags, size * 8),
        )

    return build


TABLE: dict[str, Builder] = {
    "add": _binary(alu.add),
    "or": _binary(alu.or_),
    "adc": _binary(alu.adc),
    "sbb": _binary(alu.sbb),
    "and": _binary(alu.and_),
    "sub": _binary(alu.sub),
    "xor": _binary(alu.xor),
    "cmp": _compare(alu.sub),
    "test": _compare(alu.and_),
    "inc": _unary(alu.inc),
    "dec": _unary(alu.dec),
    "neg": _unary(alu.neg),
    "not": _unary(alu.not_),
    "shl": _shift(shift.shl),
    "sal": _shift(shift.shl),
    "shr": _shift(shift.shr),
    "sar": _shift(shift.sar),
    "rol": _shift(shift.rol),
    "ror": _shift(shift.ror),
    "rcl": _shift(shift.rcl),
    "rcr": _shift(shift.rcr),
    "shld": _double_shift(shift.shld),
    "shrd": _double_shift(shift.shrd),
}
