"""gdb's agent expressions: conditions that are decided here, without asking gdb at each hit.

gdb manual, appendix "The GDB Agent Expression Mechanism", section "Bytecode Descriptions": a stack
of 64-bit words; operands in the code are big-endian. Tracing, floats and variables have no meaning
in a condition, and gdb does not use them there.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Final, Protocol

STEPS_MAX: Final = 10_000
_DEPTH_MAX: Final = 128
_BITS: Final = 64
_MASK: Final = (1 << _BITS) - 1


class Op(IntEnum):
    """What is understood."""

    ADD = 0x02
    SUB = 0x03
    MUL = 0x04
    DIV_SIGNED = 0x05
    DIV_UNSIGNED = 0x06
    REM_SIGNED = 0x07
    REM_UNSIGNED = 0x08
    LSH = 0x09
    RSH_SIGNED = 0x0A
    RSH_UNSIGNED = 0x0B
    LOG_NOT = 0x0E
    BIT_AND = 0x0F
    BIT_OR = 0x10
    BIT_XOR = 0x11
    BIT_NOT = 0x12
    EQUAL = 0x13
    LESS_SIGNED = 0x14
    LESS_UNSIGNED = 0x15
    EXT = 0x16
    REF8 = 0x17
    REF16 = 0x18
    REF32 = 0x19
    REF64 = 0x1A
    IF_GOTO = 0x20
    GOTO = 0x21
    CONST8 = 0x22
    CONST16 = 0x23
    CONST32 = 0x24
    CONST64 = 0x25
    REG = 0x26
    END = 0x27
    DUP = 0x28
    POP = 0x29
    ZERO_EXT = 0x2A
    SWAP = 0x2B
    PICK = 0x32
    ROT = 0x33


class BytecodeError(Exception):
    """The expression cannot be evaluated; the breakpoint then stops, and gdb looks itself."""


class Surroundings(Protocol):
    """What an expression is about."""

    def register(self, number: int) -> int:
        """Return a register by gdb's number; raise KeyError if there is none."""

    def memory(self, address: int, size: int) -> bytes | None:
        """Return bytes, None where there are none."""


def _signed(value: int) -> int:
    return value - (1 << _BITS) if value >> _BITS - 1 else value


def _quotient(a: int, b: int) -> int:
    """As C divides: towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _shift(value: int, count: int, left: bool) -> int:
    if count >= _BITS:
        return 0 if left or value >= 0 else -1
    return value << count if left else value >> count


_BINARY: Final[dict[Op, Callable[[int, int], int]]] = {
    Op.ADD: lambda a, b: a + b,
    Op.SUB: lambda a, b: a - b,
    Op.MUL: lambda a, b: a * b,
    Op.DIV_SIGNED: lambda a, b: _quotient(_signed(a), _signed(b)),
    Op.DIV_UNSIGNED: lambda a, b: a // b,
    Op.REM_SIGNED: lambda a, b: _signed(a) - _signed(b) * _quotient(_signed(a), _signed(b)),
    Op.REM_UNSIGNED: lambda a, b: a % b,
    Op.LSH: lambda a, b: _shift(a, b, left=True),
    Op.RSH_SIGNED: lambda a, b: _shift(_signed(a), b, left=False),
    Op.RSH_UNSIGNED: lambda a, b: _shift(a, b, left=False),
    Op.BIT_AND: lambda a, b: a & b,
    Op.BIT_OR: lambda a, b: a | b,
    Op.BIT_XOR: lambda a, b: a ^ b,
    Op.EQUAL: lambda a, b: a == b,
    Op.LESS_SIGNED: lambda a, b: _signed(a) < _signed(b),
    Op.LESS_UNSIGNED: lambda a, b: a < b,
}
_UNARY: Final[dict[Op, Callable[[int], int]]] = {
    Op.LOG_NOT: lambda a: not a,
    Op.BIT_NOT: lambda a: ~a,
}
_REFERENCES: Final = {Op.REF8: 1, Op.REF16: 2, Op.REF32: 4, Op.REF64: 8}
_CONSTANTS: Final = {Op.CONST8: 1, Op.CONST16: 2, Op.CONST32: 4, Op.CONST64: 8}


def evaluate(code: bytes, about: Surroundings) -> int:
    """Return the value of an expression. Raises BytecodeError if it has none."""
    machine = _Machine(code, about)
    try:
        for _ in range(STEPS_MAX):
            if machine.step():
                return machine.stack[-1]
    except (IndexError, KeyError, ValueError, ZeroDivisionError) as error:
        raise BytecodeError(f"{type(error).__name__}: {error}") from None
    raise BytecodeError("the expression does not come to an end")


class _Machine:
    """One evaluation."""

    def __init__(self, code: bytes, about: Surroundings) -> None:
        self._code: Final = code
        self._about: Final = about
        self._at = 0
        self.stack: Final[list[int]] = []

    def _operand(self, size: int) -> int:
        data = self._code[self._at : self._at + size]
        if len(data) < size:
            raise IndexError("an operand is cut off")
        self._at += size
        return int.from_bytes(data, "big")

    def _push(self, value: int) -> None:
        if len(self.stack) >= _DEPTH_MAX:
            raise IndexError("the stack is too deep")
        self.stack.append(value & _MASK)

    def step(self) -> bool:
        """Carry out one operation; True at the end."""
        op = Op(self._operand(1))
        if op is Op.END:
            return True
        if op in _BINARY:
            b, a = self.stack.pop(), self.stack.pop()
            self._push(int(_BINARY[op](a, b)))
        elif op in _UNARY:
            self._push(int(_UNARY[op](self.stack.pop())))
        elif op in _REFERENCES:
            self._push(self._reference(self.stack.pop(), _REFERENCES[op]))
        elif op in _CONSTANTS:
            self._push(self._operand(_CONSTANTS[op]))
        else:
            self._move(op)
        return False

    def _reference(self, address: int, size: int) -> int:
        data = self._about.memory(address, size)
        if data is None:
            raise ValueError(f"no memory at {address:#x}")
        return int.from_bytes(data, "little")

    def _move(self, op: Op) -> None:
        """What rearranges the stack, and the rest."""
        stack = self.stack
        match op:
            case Op.REG:
                self._push(self._about.register(self._operand(2)))
            case Op.GOTO:
                self._at = self._operand(2)
            case Op.IF_GOTO:
                target = self._operand(2)
                self._at = target if stack.pop() else self._at
            case Op.DUP:
                self._push(stack[-1])
            case Op.POP:
                stack.pop()
            case Op.SWAP:
                stack[-1], stack[-2] = stack[-2], stack[-1]
            case Op.ROT:
                stack[-3], stack[-2], stack[-1] = stack[-1], stack[-3], stack[-2]
            case Op.PICK:
                self._push(stack[-1 - self._operand(1)])
            case Op.EXT | Op.ZERO_EXT:
                self._extend(op, self._operand(1))
            case _:
                raise ValueError(op)

    def _extend(self, op: Op, bits: int) -> None:
        if not 0 < bits <= _BITS:
            raise ValueError(f"{bits} bits")
        value = self.stack.pop() & (1 << bits) - 1
        negative = op is Op.EXT and value >> bits - 1
        self._push(value - (1 << bits) if negative else value)
