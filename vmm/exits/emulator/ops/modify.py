"""Read-modify-write of a register or memory operand, shared by all that change one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vmm.exits.emulator.machine import Machine
from vmm.exits.emulator.operands import (
    Memory,
    Operand,
    Register,
    address_of,
    getter,
    setter,
)

if TYPE_CHECKING:
    from vmm.exits.emulator.outcome import Execute

Compute = Callable[[Machine, int], tuple[int, int]]
"""(machine, old value) -> (new value, new rflags)."""


def modify(target: Operand, compute: Compute) -> Execute | None:
    """Compile target = compute(target), with RFLAGS; None if it is neither register nor memory."""
    if isinstance(target, Register):
        return _modify_register(target, compute)
    return _modify_memory(target, compute) if isinstance(target, Memory) else None


def _modify_register(target: Register, compute: Compute) -> Execute:
    get, put = getter(target), setter(target)

    def execute(m: Machine) -> None:
        value, flags = compute(m, get(m.regs))
        put(m.regs, value)
        m.regs.rflags = flags

    return execute


def _modify_memory(target: Memory, compute: Compute) -> Execute:
    address, size = address_of(target), target.size

    def execute(m: Machine) -> None:
        linear = address(m)
        # The store is checked first: a device must not lose what a doomed load took from it.
        m.check_write(linear, size)
        value, flags = compute(m, m.read(linear, size))
        m.write(linear, size, value)
        m.regs.rflags = flags

    return execute
