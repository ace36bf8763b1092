"""PUSH and POP; near CALL, JMP and RET."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.exits.emulator.machine import GuestFault, Machine
from vmm.exits.emulator.operands import (
    MASK,
    SS,
    Immediate,
    Memory,
    Operand,
    Reader,
    Register,
    Segment,
    address_of,
    reader,
    setter,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.exits.emulator.decode import Instruction
    from vmm.exits.emulator.outcome import Execute

RSP, RBP = 4, 5
_GP = 13


def _linear(m: Machine, pointer: int) -> int:
    if m.bits == 64:
        return pointer
    return m.segment_base(SS) + pointer & MASK[32]


def _moved(m: Machine, delta: int) -> tuple[int, int]:
    """Return (stack offset after a move by delta bytes, RSP with it merged in)."""
    mask = MASK[m.stack_bits]
    offset = m.regs[RSP] + delta & mask
    return offset, (m.regs[RSP] & ~mask | offset) if mask < MASK[32] else offset


def push_value(m: Machine, value: int, size: int) -> None:
    """Push `size` bytes; RSP moves only when the store succeeded."""
    offset, pointer = _moved(m, -size)
    m.write(_linear(m, offset), size, value)
    m.regs[RSP] = pointer


def pop_value(m: Machine, size: int) -> tuple[int, int]:
    """Return (value on top, RSP after the pop); RSP is the caller's to set."""
    value = m.read(_linear(m, m.regs[RSP] & MASK[m.stack_bits]), size)
    return value, _moved(m, size)[1]


def _stack_size(insn: Instruction) -> int:
    """PUSH and POP: 66 toggles between 2 and the default, which is 8 in 64-bit mode."""
    if insn.bits == 16:
        return 4 if insn.prefixes.operand_size else 2
    return 2 if insn.prefixes.operand_size and not insn.wide else insn.bits // 8


def _branch_size(insn: Instruction) -> int:
    """Near branches ignore 66 in 64-bit mode (Intel)."""
    return 8 if insn.bits == 64 else _stack_size(insn)


def push(insn: Instruction) -> Execute | None:
    """PUSH of memory, register, segment register or immediate."""
    size, operand = _stack_size(insn), insn.operands[0]
    value = _selector(operand) if isinstance(operand, Segment) else reader(operand, size)
    return (lambda m: push_value(m, value(m), size)) if value else None


def _selector(segment: Segment) -> Reader:
    return lambda m: m.segment_selector(segment.number)


def pop(insn: Instruction) -> Execute | None:
    """POP to memory (its address sees RSP already incremented) or register."""
    size, target = _stack_size(insn), insn.operands[0]
    if isinstance(target, Register):
        return _pop_register(target, size)
    if not isinstance(target, Memory):
        return None
    address = address_of(target)

    def execute(m: Machine) -> None:
        before = m.regs[RSP]
        value, m.regs[RSP] = pop_value(m, size)
        try:
            m.write(address(m), size, value)
        except GuestFault:
            m.regs[RSP] = before
            raise

    return execute


def _pop_register(target: Register, size: int) -> Execute:
    put = setter(target)

    def execute(m: Machine) -> None:
        value, m.regs[RSP] = pop_value(m, size)
        put(m.regs, value)

    return execute


def _checked(m: Machine, target: int) -> int:
    """Where a branch of 64-bit code goes must be canonical; else it faults, not its target."""
    if m.bits == 64 and not m.is_canonical(target):
        raise GuestFault(_GP, 0)
    return target


def _target(insn: Instruction, size: int) -> Reader | None:
    """Compile the target of a near branch; a direct one is relative to RIP."""
    operand: Operand = insn.operands[0]
    if isinstance(operand, Immediate):
        distance, mask = operand.value, MASK[size * 8]
        return lambda m: m.regs.rip + distance & mask
    return reader(operand, size)


def jmp(insn: Instruction) -> Execute | None:
    """JMP near."""
    target = _target(insn, _branch_size(insn))
    if not target or not _is_near(insn):
        return None

    def execute(m: Machine) -> None:
        m.regs.rip = _checked(m, target(m))

    return execute


def call(insn: Instruction) -> Execute | None:
    """CALL near."""
    size, length = _branch_size(insn), insn.length
    target = _target(insn, size)
    if not target or not _is_near(insn):
        return None

    def execute(m: Machine) -> None:
        destination = _checked(m, target(m))
        push_value(m, m.regs.rip + length & MASK[size * 8], size)
        m.regs.rip = destination

    return execute


def _is_near(insn: Instruction) -> bool:
    # Capstone gives FF /3 and FF /5, the far ones, the names of the near ones now and then.
    return insn.opcode != 0xFF or not insn.modrm >> 3 & 1


def ret(insn: Instruction) -> Execute | None:
    """RET near."""
    size, first = _branch_size(insn), insn.operands[0] if insn.operands else Immediate(0)
    extra = first.value if isinstance(first, Immediate) else 0

    def execute(m: Machine) -> None:
        target = _checked(m, pop_value(m, size)[0])
        m.regs[RSP] = _moved(m, size + extra)[1]
        m.regs.rip = target

    return execute


def leave(insn: Instruction) -> Execute | None:
    """LEAVE: the stack pointer goes to the frame, whose first word the frame pointer takes."""
    size = _stack_size(insn)

    def execute(m: Machine) -> None:
        mask = MASK[m.stack_bits]
        frame = m.regs[RBP] & mask
        value = m.read(_linear(m, frame), size)
        kept = ~mask if mask < MASK[32] else 0
        m.regs[RSP] = m.regs[RSP] & kept | frame + size & mask
        word = MASK[size * 8]
        m.regs[RBP] = value if size >= 4 else m.regs[RBP] & ~word | value

    return execute


def enter(insn: Instruction) -> Execute | None:
    """ENTER: a frame of `room` bytes, with the frame pointers of `level` enclosing ones."""
    size = _stack_size(insn)
    room, level = (_immediate(operand) for operand in insn.operands)

    def execute(m: Machine) -> None:
        before = m.regs[RSP]
        try:
            push_value(m, m.regs[RBP] & MASK[size * 8], size)
            frame = m.regs[RSP]
            _push_display(m, size, level & 31, frame)
        except GuestFault:
            m.regs[RSP] = before
            raise
        m.regs[RSP] = _moved(m, -(room & MASK[16]))[1]
        word = MASK[size * 8]
        m.regs[RBP] = frame & word if size >= 4 else m.regs[RBP] & ~word | frame & word

    return execute


def _immediate(operand: Operand) -> int:
    return operand.value if isinstance(operand, Immediate) else 0


def _push_display(m: Machine, size: int, level: int, frame: int) -> None:
    """Copy the pointers to enclosing frames, then push that to this one."""
    outer = m.regs[RBP]
    for _ in range(level - 1):
        outer -= size
        push_value(m, m.read(_linear(m, outer & MASK[m.stack_bits]), size), size)
    if level:
        push_value(m, frame & MASK[size * 8], size)


TABLE: dict[str, Callable[[Instruction], Execute | None]] = {
    "push": push,
    "enter": enter,
    "pop": pop,
    "leave": leave,
}
BRANCHES: dict[str, Callable[[Instruction], Execute | None]] = {
    "jmp": jmp,
    "call": call,
    "ret": ret,
}
