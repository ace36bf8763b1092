"""Shifts and rotates, in the shape of `alu.Operation` (the source is the count)."""

from __future__ import annotations

from vmm.exits.emulator.alu import CF, OF, STATUS, result_flags
from vmm.exits.emulator.operands import signed


def effective_count(count: int, bits: int) -> int:
    """Mask a count to 5 bits, 6 for 64-bit operands."""
    return count & (63 if bits == 64 else 31)


def _shifted(value: int, carry: int, overflow: int, rflags: int, bits: int) -> tuple[int, int]:
    flags = result_flags(value, bits) | (CF if carry else 0) | (OF if overflow else 0)
    return value, rflags & ~STATUS | flags


def _rotated(value: int, carry: int, overflow: int, rflags: int) -> tuple[int, int]:
    flags = (CF if carry else 0) | (OF if overflow else 0)
    return value, rflags & ~(CF | OF) | flags


def shl(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """SHL (and its twin SAL)."""
    count = effective_count(b, bits)
    if not count:
        return a, rflags
    wide = a << count
    value = wide & ((1 << bits) - 1)
    carry = wide >> bits & 1
    return _shifted(value, carry, carry ^ value >> (bits - 1), rflags, bits)


def shr(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """SHR."""
    count = effective_count(b, bits)
    if not count:
        return a, rflags
    return _shifted(a >> count, a >> (count - 1) & 1, a >> (bits - 1), rflags, bits)


def sar(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """SAR."""
    count = effective_count(b, bits)
    if not count:
        return a, rflags
    number = signed(a, bits)
    value = number >> count & ((1 << bits) - 1)
    return _shifted(value, number >> (count - 1) & 1, 0, rflags, bits)


def rol(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """ROL."""
    if not effective_count(b, bits):
        return a, rflags
    count = effective_count(b, bits) % bits
    value = (a << count | a >> (bits - count)) & ((1 << bits) - 1)
    return _rotated(value, value & 1, value & 1 ^ value >> (bits - 1), rflags)


def ror(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """ROR."""
    if not effective_count(b, bits):
        return a, rflags
    count = effective_count(b, bits) % bits
    value = (a >> count | a << (bits - count)) & ((1 << bits) - 1)
    top = value >> (bits - 1)
    return _rotated(value, top, top ^ value >> (bits - 2) & 1, rflags)


def rcl(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """RCL: a rotate through CF, one bit wider than the operand."""
    count = effective_count(b, bits) % (bits + 1)
    if not count:
        return a, rflags
    wide = (rflags & CF) << bits | a
    wide = wide << count | wide >> (bits + 1 - count)
    value, carry = wide & ((1 << bits) - 1), wide >> bits & 1
    return _rotated(value, carry, carry ^ value >> (bits - 1), rflags)


def rcr(a: int, b: int, rflags: int, bits: int) -> tuple[int, int]:
    """RCR."""
    count = effective_count(b, bits) % (bits + 1)
    if not count:
        return a, rflags
    wide = (rflags & CF) << bits | a
    wide = wide >> count | wide << (bits + 1 - count)
    value, carry = wide & ((1 << bits) - 1), wide >> bits & 1
    overflow = value >> (bits - 1) ^ value >> (bits - 2) & 1
    return _rotated(value, carry, overflow, rflags)


def shld(a: int, fill: int, count: int, rflags: int, bits: int) -> tuple[int, int]:
    """SHLD: shift left, filling from the top of `fill`."""
    count = effective_count(count, bits)
    if not count:
        return a, rflags
    # A count above 16 of a 16-bit operand is undefined: what comes in is the pattern again.
    wide = ((a << bits | fill) << bits | a) << count
    value, carry = wide >> 2 * bits & ((1 << bits) - 1), wide >> 3 * bits & 1
    return _shifted(value, carry, (a ^ value) >> (bits - 1), rflags, bits)


def shrd(a: int, fill: int, count: int, rflags: int, bits: int) -> tuple[int, int]:
    """SHRD: shift right, filling from the bottom of `fill`."""
    count = effective_count(count, bits)
    if not count:
        return a, rflags
    wide = (a << bits | fill) << bits | a
    value, carry = wide >> count & ((1 << bits) - 1), wide >> (count - 1) & 1
    return _shifted(value, carry, (a ^ value) >> (bits - 1), rflags, bits)
