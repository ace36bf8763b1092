"""Results and flags of integer operations.

Every operation has the shape (destination, source, rflags, bits) -> (result, new rflags), with
unsigned values that fit. Flags the manual leaves undefined are cleared or left alone.
"""

from __future__ import annotations

from collections.abc import Callable

Operation = Callable[[int, int, int, int], tuple[int, int]]

CF, PF, AF, ZF, SF, DF, OF, RF = 1, 4, 0x10, 0x40, 0x80, 0x400, 0x800, 0x10000
STATUS = CF | PF | AF | ZF | SF | OF
_PARITY = tuple(0 if byte.bit_count() & 1 else PF for byte in range(256))


def result_flags(value: int, bits: int) -> int:
    """SF, ZF and PF of a result."""
    sign = SF if value >> (bits - 1) else 0
    return _PARITY[value & 0xFF] | sign | (0 if value else ZF)


def _add(a: int, b: int, carry: int, rflags: int, bits: int) -> tuple[int, int]:
    total = a + b + carry
    value = total & ((1 << bits) - 1)
    flags = total >> bits | (a ^ b ^ value) & AF | result_flags(value, bits)
    if (a ^ value) & (b ^ value) & 1 << (bits - 1):
        flags |= OF
    return value, rflags & ~STATUS | flags


def _subtract(a: int, b: int, borrow: int, rflags: int, bits: int) -> tuple[int, int]:
    total = a - b - borrow
    value = total & ((1 << bits) - 1)
    flags = (a ^ b ^ value) & AF | result_flags(value, bits) | (CF if total < 0 else 0)
    if (a ^ b) & (a ^ value) & 1 << (bits - 1):
        flags |= OF
    return value, rflags & ~STATUS | flags


def add(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """ADD."""
    return _add(a, b, 0, rflags, bits)


def adc(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """ADC."""
    return _add(a, b, rflags & CF, rflags, bits)


def sub(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """SUB and CMP."""
    return _subtract(a, b, 0, rflags, bits)


def sbb(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """SBB."""
    return _subtract(a, b, rflags & CF, rflags, bits)


def _logic(value: int, rflags: int, bits: int) -> tuple[int, int]:
    return value, rflags & ~STATUS | result_flags(value, bits)


def and_(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """AND and TEST."""
    return _logic(a & b, rflags, bits)


def or_(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """OR."""
    return _logic(a | b, rflags, bits)


def xor(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """XOR."""
    return _logic(a ^ b, rflags, bits)


def inc(a: int, _: int, rflags: int, bits: int) -> tuple[int, int]:
    """INC: CF stays."""
    value, flags = _add(a, 1, 0, rflags, bits)
    return value, flags & ~CF | rflags & CF


def dec(a: int, _: int, rflags: int, bits: int) -> tuple[int, int]:
    """DEC: CF stays."""
    value, flags = _subtract(a, 1, 0, rflags, bits)
    return value, flags & ~CF | rflags & CF


def neg(a: int, _: int, rflags: int, bits: int) -> tuple[int, int]:
    """NEG."""
    return _subtract(0, a, 0, rflags, bits)


def not_(a: int, _: int, rflags: int, bits: int) -> tuple[int, int]:
    """NOT: no flags."""
    return a ^ ((1 << bits) - 1), rflags


def _bit(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    mask = 1 << (b & (bits - 1))
    return mask, rflags & ~CF | (CF if a & mask else 0)


def bt(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """BT: the bit to CF."""
    return a, _bit(a, b, rflags, bits)[1]


def bts(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """BTS."""
    mask, flags = _bit(a, b, rflags, bits)
    return a | mask, flags


def btr(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """BTR."""
    mask, flags = _bit(a, b, rflags, bits)
    return a & ~mask, flags


def btc(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """BTC."""
    mask, flags = _bit(a, b, rflags, bits)
    return a ^ mask, flags


def condition(code: int, rflags: int) -> bool:
    """Evaluate condition code 0..15 (Intel SDM, *EFLAGS Condition Codes*)."""
    kind = code >> 1
    less = bool(rflags & SF) != bool(rflags & OF)
    true = (
        rflags & OF,
        rflags & CF,
        rflags & ZF,
        rflags & (CF | ZF),
        rflags & SF,
        rflags & PF,
        less,
        less or rflags & ZF,
    )[kind]
    return bool(true) != bool(code & 1)
