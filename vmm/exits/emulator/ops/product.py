"""MUL, IMUL, DIV and IDIV, with #DE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.exits.emulator.alu import CF, OF
from vmm.exits.emulator.machine import GeneralRegisters, GuestFault, Machine
from vmm.exits.emulator.operands import (
    MASK,
    Register,
    getter,
    reader,
    setter,
    signed,
    width_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.exits.emulator.decode import Instruction
    from vmm.exits.emulator.outcome import Execute

RAX, RDX = 0, 2
DIVIDE_ERROR = 0


def _halves(size: int) -> tuple[Register, Register]:
    """Return the (high, low) registers of a double-width value: AH:AL, DX:AX and so on."""
    high = Register(RAX, 1, high=True) if size == 1 else Register(RDX, size)
    return high, Register(RAX, size)


def _overflow(regs: GeneralRegisters, *, lost: bool) -> None:
    # SF, ZF, AF, PF are undefined after a product; they stay.
    regs.rflags = regs.rflags & ~(CF | OF) | (CF | OF if lost else 0)


def _widening(*, sign: bool) -> Callable[[Instruction], Execute | None]:
    """MUL, and IMUL with one operand."""

    def build(insn: Instruction) -> Execute | None:
        size = width_of(insn.operands[0])
        bits, read = size * 8, reader(insn.operands[0], size or 1)
        if not read or not size:
            return None
        high, low = _halves(size)
        get, put_low, put_high = getter(low), setter(low), setter(high)

        def execute(m: Machine) -> None:
            a, b = get(m.regs), read(m)
            product = signed(a, bits) * signed(b, bits) if sign else a * b
            short = product & MASK[bits]
            put_low(m.regs, short)
            put_high(m.regs, product >> bits & MASK[bits])
            _overflow(m.regs, lost=product != (signed(short, bits) if sign else short))

        return execute

    return build


def imul(insn: Instruction) -> Execute | None:
    """IMUL in all its forms: one, two or three operands."""
    if len(insn.operands) == 1:
        return _widening(sign=True)(insn)
    target, left, right = insn.operands[0], insn.operands[-2], insn.operands[-1]
    if not isinstance(target, Register):
        return None
    bits, put = target.size * 8, setter(target)
    get_left, get_right = reader(left, target.size), reader(right, target.size)
    if not get_left or not get_right:
        return None

    def execute(m: Machine) -> None:
        product = signed(get_left(m), bits) * signed(get_right(m), bits)
        short = product & MASK[bits]
        put(m.regs, short)
        _overflow(m.regs, lost=product != signed(short, bits))

    return execute


def divide(dividend: int, divisor: int, bits: int, *, sign: bool) -> tuple[int, int]:
    """Return (quotient, remainder) of a 2 x bits dividend; raises #DE as `GuestFault`."""
    if sign:
        dividend, divisor = signed(dividend, 2 * bits), signed(divisor, bits)
    if not divisor:
        raise GuestFault(DIVIDE_ERROR)
    quotient = abs(dividend) // abs(divisor)
    if (dividend < 0) != (divisor < 0):
        quotient = -quotient  # x86 truncates towards zero, Python floors
    low, high = (-1 << (bits - 1), 1 << (bits - 1)) if sign else (0, 1 << bits)
    if not low <= quotient < high:
        raise GuestFault(DIVIDE_ERROR)
    return quotient & MASK[bits], dividend - quotient * divisor & MASK[bits]


def _dividing(*, sign: bool) -> Callable[[Instruction], Execute | None]:
    def build(insn: Instruction) -> Execute | None:
        size = width_of(insn.operands[0])
        bits, read = size * 8, reader(insn.operands[0], size or 1)
        if not read or not size:
            return None
        high, low = _halves(size)
        get_high, get_low = getter(high), getter(low)
        put_high, put_low = setter(high), setter(low)

        def execute(m: Machine) -> None:
            dividend = get_high(m.regs) << bits | get_low(m.regs)
            quotient, remainder = divide(dividend, read(m), bits, sign=sign)
            put_low(m.regs, quotient)
            put_high(m.regs, remainder)

        return execute

    return build


TABLE: dict[str, Callable[[Instruction], Execute | None]] = {
    "mul": _widening(sign=False),
    "imul": imul,
    "div": _dividing(sign=False),
    "idiv": _dividing(sign=True),
}
