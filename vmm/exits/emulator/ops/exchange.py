"""XCHG, XADD, CMPXCHG, CMPXCHG8B and CMPXCHG16B."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.exits.emulator import alu
from vmm.exits.emulator.alu import ZF
from vmm.exits.emulator.machine import GuestFault, Machine
from vmm.exits.emulator.operands import (
    MASK,
    Memory,
    Operand,
    Register,
    address_of,
    getter,
    setter,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.exits.emulator.decode import Instruction
    from vmm.exits.emulator.outcome import Execute

RAX, RCX, RDX, RBX = range(4)
GENERAL_PROTECTION = 13


def _pair(insn: Instruction) -> tuple[Operand, Register] | None:
    """Return (register or memory, register) in this order, as XCHG may come either way."""
    first, second = insn.operands
    if isinstance(second, Memory):
        first, second = second, first
    return (first, second) if isinstance(second, Register) else None


def xchg(insn: Instruction) -> Execute | None:
    """XCHG."""
    pair = _pair(insn)
    if not pair:
        return None
    target, register = pair
    get, put = getter(register), setter(register)
    if isinstance(target, Register):
        return _swap(target, register)
    if not isinstance(target, Memory):
        return None
    address, size = address_of(target), register.size

    def execute(m: Machine) -> None:
        linear = address(m)
        m.check_write(linear, size)
        old = m.read(linear, size)
        m.write(linear, size, get(m.regs))
        put(m.regs, old)

    return execute


def _swap(one: Register, other: Register) -> Execute:
    get_one, get_other = getter(one), getter(other)
    put_one, put_other = setter(one), setter(other)

    def execute(m: Machine) -> None:
        first, second = get_one(m.regs), get_other(m.regs)
        put_one(m.regs, second)
        put_other(m.regs, first)

    return execute


def xadd(insn: Instruction) -> Execute | None:
    """XADD: the sum to the destination, its old value to the register."""
    target, register = insn.operands
    if not isinstance(register, Register):
        return None
    get, put, bits = getter(register), setter(register), register.size * 8
    if isinstance(target, Register):
        return _xadd_registers(target, register)
    if not isinstance(target, Memory):
        return None
    address, size = address_of(target), register.size

    def execute(m: Machine) -> None:
        linear = address(m)
        m.check_write(linear, size)
        old = m.read(linear, size)
        total, flags = alu.add(old, get(m.regs), m.regs.rflags, bits)
        m.write(linear, size, total)
        put(m.regs, old)
        m.regs.rflags = flags

    return execute


def _xadd_registers(target: Register, register: Register) -> Execute:
    get_target, put_target = getter(target), setter(target)
    get, put = getter(register), setter(register)

    def execute(m: Machine) -> None:
        old = get_target(m.regs)
        total, m.regs.rflags = alu.add(old, get(m.regs), m.regs.rflags, register.size * 8)
        put(m.regs, old)
        put_target(m.regs, total)

    return execute


def cmpxchg(insn: Instruction) -> Execute | None:
    """CMPXCHG: memory is written either way, a register only if equal (*CMPXCHG*)."""
    target, source = insn.operands
    if not isinstance(source, Register):
        return None
    if isinstance(target, Register):
        return _cmpxchg_register(target, source)
    return _cmpxchg_memory(target, source) if isinstance(target, Memory) else None


def _cmpxchg_memory(target: Memory, source: Register) -> Execute:
    address, size, get = address_of(target), source.size, getter(source)
    get_rax, put_rax = getter(Register(RAX, size)), setter(Register(RAX, size))

    def execute(m: Machine) -> None:
        linear, regs = address(m), m.regs
        m.check_write(linear, size)
        old = m.read(linear, size)
        flags = alu.sub(get_rax(regs), old, regs.rflags, size * 8)[1]
        m.write(linear, size, get(regs) if flags & ZF else old)
        if not flags & ZF:
            put_rax(regs, old)
        regs.rflags = flags

    return execute


def _cmpxchg_register(target: Register, source: Register) -> Execute:
    size, get = source.size, getter(source)
    get_target, put_target = getter(target), setter(target)
    get_rax, put_rax = getter(Register(RAX, size)), setter(Register(RAX, size))

    def execute(m: Machine) -> None:
        regs = m.regs
        old = get_target(regs)
        flags = alu.sub(get_rax(regs), old, regs.rflags, size * 8)[1]
        if flags & ZF:
            put_target(regs, get(regs))
        else:
            put_rax(regs, old)  # and the target keeps even its upper half
        regs.rflags = flags

    return execute


def _cmpxchg_pair(half: int) -> Callable[[Instruction], Execute | None]:
    """CMPXCHG8B (half = 4 bytes) and CMPXCHG16B (8): rDX:rAX against memory."""

    def build(insn: Instruction) -> Execute | None:
        target = insn.operands[0]
        if not isinstance(target, Memory):
            return None
        address, bits, mask = address_of(target), half * 8, MASK[half * 8]

        def execute(m: Machine) -> None:
            linear, regs = address(m), m.regs
            if half == 8 and linear & 15:
                raise GuestFault(GENERAL_PROTECTION, 0)
            m.check_write(linear, half * 2)
            old = m.read(linear, half * 2)
            equal = old == (regs[RDX] & mask) << bits | regs[RAX] & mask
            new = (regs[RCX] & mask) << bits | regs[RBX] & mask
            m.write(linear, half * 2, new if equal else old)
            if not equal:
                regs[RAX], regs[RDX] = old & mask, old >> bits
            regs.rflags = regs.rflags & ~ZF | (ZF if equal else 0)

        return execute

    return build


TABLE: dict[str, Callable[[Instruction], Execute | None]] = {
    "xchg": xchg,
    "xadd": xadd,
    "cmpxchg": cmpxchg,
    "cmpxchg8b": _cmpxchg_pair(4),
    "cmpxchg16b": _cmpxchg_pair(8),
}
