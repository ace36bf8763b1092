"""From code bytes to an `Instruction`, by capstone; the only module that imports it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import capstone  # type: ignore[import-untyped,unused-ignore]
from capstone import x86_const as x86  # type: ignore[import-untyped,unused-ignore]

from vmm.exits.emulator.operands import (
    CS,
    DS,
    ES,
    FS,
    GS,
    SS,
    Immediate,
    Memory,
    Operand,
    Register,
    Segment,
    Xmm,
)

MAX_LENGTH = 15
LOCK, REPNE, REP, OPERAND_SIZE, ADDRESS_SIZE = 0xF0, 0xF2, 0xF3, 0x66, 0x67
OVERRIDES = {0x26: ES, 0x2E: CS, 0x36: SS, 0x3E: DS, 0x64: FS, 0x65: GS}
LEGACY = {LOCK, REPNE, REP, OPERAND_SIZE, ADDRESS_SIZE, *OVERRIDES}
# Opcodes for which F2/F3 is at most a hint (XACQUIRE/XRELEASE), not another instruction: those of
# one byte but the string ones, and these of the 0F map. Capstone takes some of the latter amiss.
STRINGS = {*range(0x6C, 0x70), *range(0xA4, 0xA8), *range(0xAA, 0xB0)}
HINTED = {
    *range(0x40, 0x50), *range(0x90, 0xA0), 0xA3, 0xA4, 0xA5, 0xAB, 0xAC, 0xAD, 0xAF,
    0xB0, 0xB1, 0xB3, 0xB6, 0xB7, 0xBA, 0xBB, 0xBE, 0xBF, 0xC0, 0xC1, 0xC7,
}  # fmt: skip

# Opcodes of the 0F map in which 66 selects the XMM form.
VECTOR = {*range(0x10, 0x18), *range(0x28, 0x30), *range(0x50, 0x80), *range(0xD0, 0x100)}


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The legacy prefixes in front of an instruction, as the processor takes them."""

    count: int
    lock: bool
    repeat: int
    operand_size: bool
    segment: int | None


@dataclass(frozen=True, slots=True)
class Instruction:
    """One decoded instruction; `opcode` is its last opcode byte, `escaped` if after 0F."""

    name: str
    text: str
    bits: int
    length: int
    opcode: int
    modrm: int
    escaped: bool
    address_bits: int
    wide: bool
    prefixes: Prefixes
    operands: tuple[Operand, ...] = field(default=())


def scan_prefixes(code: bytes, bits: int) -> Prefixes:
    """Collect legacy prefixes; the last of a group wins (Intel SDM, *Instruction Prefixes*)."""
    count, repeat, segment = 0, 0, None
    while count < len(code) and code[count] in LEGACY:
        byte = code[count]
        if byte in (REP, REPNE):
            repeat = byte
        elif byte in OVERRIDES and (bits != 64 or byte >= 0x64):
            segment = OVERRIDES[byte]
        count += 1
    taken = code[:count]
    return Prefixes(count, LOCK in taken, repeat, OPERAND_SIZE in taken, segment)


def decode(code: bytes, bits: int) -> Instruction | None:
    """Decode the first instruction of `code`; None if the bytes are none or incomplete.

    Raises nothing. LOCK is stripped first: whether it is legal is for the caller to say.
    """
    prefixes = scan_prefixes(code, bits)
    rest = code[prefixes.count :]
    hint = prefixes.repeat and _repeat_is_hint(rest, bits)
    dropped = {LOCK, REP, REPNE} if hint else {LOCK}
    front, mode = b"", bits
    if bits == 16 and prefixes.operand_size and _is_vector(rest):
        # Capstone knows no mandatory 66 in 16-bit code: there it reads MMX. So let it read 32-bit
        # code with the address size toggled; the operands of these have sizes of their own.
        front, mode = b"" if ADDRESS_SIZE in code[: prefixes.count] else b"\x67", 32
        dropped |= {ADDRESS_SIZE}
    raw = _disassemble(front + _without(code, prefixes.count, dropped), mode)
    if raw is None:
        return None
    length = raw.size - len(front) + sum(byte in dropped for byte in code[: prefixes.count])
    return _translate(raw, bits, length, prefixes) if length <= MAX_LENGTH else None


def _without(code: bytes, prefixes: int, dropped: set[int]) -> bytes:
    return bytes(b for b in code[:prefixes] if b not in dropped) + code[prefixes:]


def _repeat_is_hint(code: bytes, bits: int) -> bool:
    if bits == 64 and code[:1] and code[0] & 0xF0 == 0x40:
        code = code[1:]
    if code[:1] == b"\x0f":
        return len(code) > 1 and code[1] in HINTED
    return len(code) > 0 and code[0] not in STRINGS


def _is_vector(code: bytes) -> bool:
    return len(code) > 2 and code[0] == 0x0F and (code[1] in VECTOR or code[1:3] == b"\x38\x2a")


def _engine(mode: int) -> Any:
    engine = capstone.Cs(capstone.CS_ARCH_X86, mode)
    engine.detail = True
    return engine


_ENGINES = {
    16: _engine(capstone.CS_MODE_16),
    32: _engine(capstone.CS_MODE_32),
    64: _engine(capstone.CS_MODE_64),
}


def _disassemble(code: bytes, bits: int) -> Any:
    return next(_ENGINES[bits].disasm(code, 0, 1), None)


def _translate(raw: Any, bits: int, length: int, prefixes: Prefixes) -> Instruction:
    escaped = raw.opcode[0] == 0x0F
    extra = escaped and raw.opcode[1] in (0x38, 0x3A)
    address_bits = raw.addr_size * 8
    operands = tuple(_operand(raw, op, bits, length, prefixes) for op in raw.operands)
    known = tuple(op for op in operands if op is not None)
    return Instruction(
        # An operand of a kind unknown here makes the whole instruction unknown.
        name=raw.insn_name() if len(known) == len(operands) else "",
        text=f"{raw.mnemonic} {raw.op_str}".strip(),
        bits=bits,
        length=length,
        opcode=raw.opcode[2] if extra else raw.opcode[escaped],
        modrm=raw.modrm,
        escaped=escaped,
        address_bits=address_bits,
        wide=bool(raw.rex & 8),
        prefixes=prefixes,
        operands=known,
    )


def _operand(raw: Any, op: Any, bits: int, length: int, prefixes: Prefixes) -> Operand | None:
    if op.type == x86.X86_OP_REG:
        return _REGISTERS.get(op.reg)
    if op.type == x86.X86_OP_IMM:
        return Immediate(op.imm)
    return _memory(raw, op, bits, length, prefixes) if op.type == x86.X86_OP_MEM else None


def _memory(raw: Any, op: Any, bits: int, length: int, prefixes: Prefixes) -> Memory | None:
    relative = op.mem.base in (x86.X86_REG_RIP, x86.X86_REG_EIP)
    base = None if relative else _NUMBERS.get(op.mem.base)
    index = _NUMBERS.get(op.mem.index)
    if op.mem.index not in _NO_INDEX and index is None:
        return None  # a vector index: gathers are not for us
    segment = prefixes.segment
    if segment is None:
        segment = SS if base in (4, 5) and op.mem.base in _STACKED else DS
    return Memory(
        segment=segment,
        base=base,
        index=index,
        scale=op.mem.scale,
        displacement=op.mem.disp + (length if relative else 0),
        size=op.size,
        address_bits=raw.addr_size * 8,
        linear_bits=64 if bits == 64 else 32,
        flat=bits == 64 and segment not in (FS, GS),
        relative=relative,
    )


_LEGACY_NAMES = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")


def _number_names() -> dict[str, Register]:
    names: dict[str, Register] = {}
    for number, name in enumerate(_LEGACY_NAMES):
        low = f"{name[0]}l" if number < 4 else f"{name}l"
        names |= {f"r{name}": Register(number, 8), f"e{name}": Register(number, 4)}
        names |= {name: Register(number, 2), low: Register(number, 1)}
        if number < 4:
            names[f"{name[0]}h"] = Register(number, 1, high=True)
    for number in range(8, 16):
        for suffix, size in (("", 8), ("d", 4), ("w", 2), ("b", 1)):
            names[f"r{number}{suffix}"] = Register(number, size)
    return names


def _id(name: str) -> int:
    return int(getattr(x86, f"X86_REG_{name.upper()}"))


_GENERAL = {_id(name): register for name, register in _number_names().items()}
_NUMBERS = {key: register.number for key, register in _GENERAL.items()}
_REGISTERS: dict[int, Operand] = {
    **_GENERAL,
    **{_id(f"xmm{n}"): Xmm(n) for n in range(16)},
    **{_id(name): Segment(n) for n, name in enumerate(("es", "cs", "ss", "ds", "fs", "gs"))},
}
_NO_INDEX = {x86.X86_REG_INVALID, x86.X86_REG_RIZ, x86.X86_REG_EIZ}
_STACKED = {_id(name) for name in ("rsp", "esp", "sp", "rbp", "ebp", "bp")}
