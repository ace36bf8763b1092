"""MOV and its relatives: MOVZX, MOVSX, MOVBE, MOVNTI, CMOVcc, SETcc, and what moves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.exits.emulator.alu import condition
from vmm.exits.emulator.operands import (
    MASK,
    Memory,
    Operand,
    Reader,
    Register,
    Segment,
    address_of,
    getter,
    reader,
    setter,
    signed,
    width_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.exits.emulator.decode import Instruction
    from vmm.exits.emulator.machine import Machine
    from vmm.exits.emulator.outcome import Execute


def store(target: Operand, size: int, value: Reader) -> Execute | None:
    """Compile target = value(machine); None if target is neither register nor memory."""
    if isinstance(target, Register):
        put = setter(target)
        return lambda m: put(m.regs, value(m))
    if not isinstance(target, Memory):
        return None
    address = address_of(target)

    def execute(m: Machine) -> None:
        m.write(address(m), size, value(m))

    return execute


def _load(target: Register, source: Memory) -> Execute:
    address, number, size = address_of(source), target.number, target.size
    if size >= 4:

        def execute(m: Machine) -> None:
            m.regs[number] = m.read(address(m), size)

        return execute
    put = setter(target)
    return lambda m: put(m.regs, m.read(address(m), size))


def _save(target: Memory, source: Register) -> Execute:
    address, size, get = address_of(target), source.size, getter(source)
    return lambda m: m.write(address(m), size, get(m.regs))


def mov(insn: Instruction) -> Execute | None:
    """MOV, also to and from absolute offsets and from segment registers; MOVNTI."""
    target, source = insn.operands
    if isinstance(source, Segment):
        return _from_segment(target, source.number)
    if isinstance(target, Register) and isinstance(source, Memory):
        return _load(target, source)
    if isinstance(target, Memory) and isinstance(source, Register):
        return _save(target, source)
    size = width_of(target)
    value = reader(source, size)
    return store(target, size, value) if size and value else None


def _from_segment(target: Operand, number: int) -> Execute | None:
    # To memory it is always 16 bits; a register takes it zero-extended to its own size.
    return store(target, 2, lambda m: m.segment_selector(number))


def _extending(insn: Instruction, *, sign: bool) -> Execute | None:
    target, source = insn.operands
    wide = width_of(target) * 8
    size = min(width_of(source), width_of(target))  # MOVSXD with 66 is 16 to 16 bits
    value = reader(source, size)
    if not value or not size or not isinstance(target, Register):
        return None
    if not sign:
        return store(target, target.size, value)
    bits, mask = size * 8, MASK[wide]
    return store(target, target.size, lambda m: signed(value(m), bits) & mask)


def movzx(insn: Instruction) -> Execute | None:
    """MOVZX."""
    return _extending(insn, sign=False)


def movsx(insn: Instruction) -> Execute | None:
    """MOVSX and MOVSXD."""
    return _extending(insn, sign=True)


def movbe(insn: Instruction) -> Execute | None:
    """MOVBE: a move with the bytes reversed."""
    target, source = insn.operands
    # Of 66 and REX.W together capstone gives the memory operand the wrong one.
    size = width_of(source if isinstance(source, Register) else target)
    value = reader(source, size)
    if not value:
        return None
    return store(target, size, lambda m: int.from_bytes(value(m).to_bytes(size, "little"), "big"))


def cmov(insn: Instruction) -> Execute | None:
    """CMOVcc: reads its source, and clears bits 63..32 for 32-bit operands, either way."""
    target, source = insn.operands
    size, code = width_of(target), insn.opcode & 15
    value = reader(source, size)
    if not value or not isinstance(target, Register):
        return None
    old = getter(target)

    def chosen(m: Machine) -> int:
        new = value(m)
        return new if condition(code, m.regs.rflags) else old(m.regs)

    return store(target, size, chosen)


def setcc(insn: Instruction) -> Execute | None:
    """SETcc."""
    code = insn.opcode & 15
    return store(insn.operands[0], 1, lambda m: int(condition(code, m.regs.rflags)))


def nothing(_: Instruction) -> Execute | None:
    """Hints: no effect, and no access that a device would see."""
    return lambda _: None


_HINTS = (
    "nop", "clflush", "clflushopt", "clwb", "prefetch", "prefetchw", "prefetchnta",
    "prefetcht0", "prefetcht1", "prefetcht2", "endbr64", "endbr32",
)  # fmt: skip
_CONDITIONS = (
    "o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g",
)  # fmt: skip


def xlatb(insn: Instruction) -> Execute:
    """Compile AL = segment:[BX + AL], unsigned, in the address size."""
    chosen = insn.prefixes.segment
    segment, mask = _DS if chosen is None else chosen, MASK[insn.address_bits]
    flat, linear = insn.bits == 64 and segment < _FS, MASK[64 if insn.bits == 64 else 32]

    def execute(m: Machine) -> None:
        base = 0 if flat else m.segment_base(segment)
        offset = m.regs[_RBX] + (m.regs[_RAX] & 0xFF) & mask
        m.regs[_RAX] = m.regs[_RAX] & ~0xFF | m.read(base + offset & linear, 1)

    return execute


_RAX, _RBX, _DS, _FS = 0, 3, 3, 4

TABLE: dict[str, Callable[[Instruction], Execute | None]] = {
    "mov": mov,
    "movabs": mov,
    "movnti": mov,
    "movzx": movzx,
    "movsx": movsx,
    "movsxd": movsx,
    "movbe": movbe,
    "xlatb": xlatb,
    "xlat": xlatb,
    **{f"cmov{name}": cmov for name in _CONDITIONS},
    **{f"set{name}": setcc for name in _CONDITIONS},
    **dict.fromkeys(_HINTS, nothing),
}
