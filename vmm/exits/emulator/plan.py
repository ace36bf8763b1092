"""From code bytes to a compiled plan, once for each (mode, bytes)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.exits.emulator import sse
from vmm.exits.emulator.alu import RF
from vmm.exits.emulator.decode import REP, Instruction, decode
from vmm.exits.emulator.machine import GuestFault, Machine
from vmm.exits.emulator.operands import MASK, Memory
from vmm.exits.emulator.ops import arithmetic, bits, exchange, moves, product, stack
from vmm.exits.emulator.outcome import DONE, Emulated, Execute, Plan, Status
from vmm.exits.emulator.strings import compile_string, is_string

if TYPE_CHECKING:
    from collections.abc import Callable

INVALID_OPCODE = 6

STRAIGHT: dict[str, Callable[[Instruction], Execute | None]] = {
    **sse.TABLE,
    **moves.TABLE,
    **arithmetic.TABLE,
    **bits.TABLE,
    **exchange.TABLE,
    **product.TABLE,
    **stack.TABLE,
}
# Intel SDM, *LOCK - Assert LOCK# Signal Prefix*: these, and only with a memory destination.
LOCKABLE = frozenset((
    "adc", "add", "and", "btc", "btr", "bts", "cmpxchg", "cmpxchg8b", "cmpxchg16b", "dec",
    "inc", "neg", "not", "or", "sbb", "sub", "xadd", "xchg", "xor",
))  # fmt: skip


def compile_plan(code: bytes, mode: int) -> Plan:
    """Compile the first instruction of `code` for a `mode`-bit segment; raises nothing."""
    insn = decode(code, mode)
    if insn is None:
        return _unsupported("(undecodable)", code)
    if insn.prefixes.lock and not _may_lock(insn):
        return _undefined
    if is_string(insn):
        return compile_string(insn)
    return _compile_other(insn) or _unsupported(insn.text, code[: insn.length])


# What F2 or F3 makes of a 0F opcode: with any other SSE name capstone overlooked the prefix.
REPEATED = frozenset(("movss", "movsd", "movdqu", "lddqu"))


def _is_misread(insn: Instruction) -> bool:
    """Tell whether the processor refuses prefixes that capstone lets pass."""
    repeat, name = insn.prefixes.repeat, insn.name
    if name == "movnti":
        return bool(repeat) or insn.prefixes.operand_size
    if not repeat or (name not in sse.TABLE and name != "movbe"):
        return False
    load = name == "movq" and repeat == REP and insn.opcode == 0x7E
    return name not in REPEATED and not load


def _compile_other(insn: Instruction) -> Plan | None:
    if _is_misread(insn):
        return None
    build = STRAIGHT.get(insn.name)
    execute = build(insn) if build else None
    if execute:
        return _straight(execute, insn.length, MASK[insn.bits])
    build = stack.BRANCHES.get(insn.name)
    execute = build(insn) if build else None
    return _branch(execute) if execute else None


def _may_lock(insn: Instruction) -> bool:
    operands = insn.operands
    if insn.name == "xchg":  # capstone may show its memory operand second
        return any(isinstance(operand, Memory) for operand in operands)
    return insn.name in LOCKABLE and isinstance(operands[0], Memory)


def _straight(execute: Execute, length: int, mask: int) -> Plan:
    def plan(m: Machine, _: int) -> Emulated:
        execute(m)
        regs = m.regs
        regs.rip = regs.rip + length & mask
        if regs.rflags & RF:
            regs.rflags &= ~RF
        return DONE

    return plan


def _branch(execute: Execute) -> Plan:
    def plan(m: Machine, _: int) -> Emulated:
        execute(m)
        m.regs.rflags &= ~RF
        return DONE

    return plan


def _undefined(_machine: Machine, _limit: int) -> Emulated:
    raise GuestFault(INVALID_OPCODE)


def _unsupported(text: str, code: bytes) -> Plan:
    outcome = Emulated(Status.UNSUPPORTED, text=text, code=code)
    return lambda _machine, _limit: outcome
