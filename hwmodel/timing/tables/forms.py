"""Instruction forms by encoding: what each reads and writes, by capstone.

A form is opcode map, mandatory prefix, opcode, ModRM's reg field where that selects the operation,
register or memory operand, and operand size: what cext/encoding.c finds in an instruction.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, Final

import capstone
from capstone import x86


class Role(IntFlag):
    """What a form does with its operands; the same bits stand in cext/cost.h."""

    READS_REG = 1 << 0
    WRITES_REG = 1 << 1
    READS_RM = 1 << 2
    WRITES_RM = 1 << 3
    LOADS = 1 << 4
    STORES = 1 << 5
    VECTOR_REG = 1 << 6
    VECTOR_RM = 1 << 7
    READS_OPCODE = 1 << 8
    WRITES_OPCODE = 1 << 9
    READS_VVVV = 1 << 10
    WRITES_VVVV = 1 << 11
    READS_FLAGS = 1 << 12
    WRITES_FLAGS = 1 << 13
    X87 = 1 << 14
    ENDS = 1 << 15
    FUSES = 1 << 16
    ZEROES = 1 << 17
    MOVES = 1 << 18
    BRANCH = 1 << 19
    PUSHES = 1 << 20
    POPS = 1 << 21
    BYTES = 1 << 22
    CONDITIONAL = 1 << 23
    MERGES = 1 << 24


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a form stands: `reg` is the ModRM field if it selects, else -1."""

    map: int
    prefix: int
    opcode: int
    reg: int
    memory: bool
    size: int


@dataclass(frozen=True, slots=True)
class Form:
    """One form with a specimen of it."""

    slot: Slot
    code: bytes
    text: str
    roles: Role
    reads: int
    """Implicit operands: bits 0 to 15 general registers, 16 to 31 XMM."""
    writes: int


MANDATORY: Final = (b"", b"\x66", b"\xf3", b"\xf2")
_ESCAPES: Final = (b"", b"\x0f", b"\x0f\x38", b"\x0f\x3a")
_SIZES: Final = (2, 4, 8)
_REG, _RM, _BASE, _VVVV = 9, 10, 14, 11
_REPEATED: Final = {0x90, *range(0x6C, 0x70), *range(0xA4, 0xA8), *range(0xAA, 0xB0)}
_NAMES: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")


def _families() -> dict[int, int]:
    """By capstone's register id: general registers 0 to 15, XMM 16 to 31, MMX 32 to 39."""
    found: dict[int, int] = {}
    for number, name in enumerate(_NAMES):
        for spelling in (f"r{name}", f"e{name}", name, f"{name}l", f"{name[0]}l", f"{name[0]}h"):
            known = getattr(x86, "X86_REG_" + spelling.upper(), None)
            if known is not None and not (
                len(spelling) == 2 and number > 3 and spelling[1] in "lh"
            ):
                found[known] = number
    for number in range(8, 16):
        for suffix in ("", "D", "W", "B"):
            found[getattr(x86, f"X86_REG_R{number}{suffix}")] = number
    for number in range(16):
        found[getattr(x86, f"X86_REG_XMM{number}")] = 16 + number
    for number in range(8):
        found[getattr(x86, f"X86_REG_MM{number}")] = 32 + number
    return found


_FAMILIES: Final = _families()
_CALLS: Final = {x86.X86_INS_CALL, x86.X86_INS_RET, x86.X86_INS_JMP, x86.X86_INS_LOOP,
                 x86.X86_INS_LOOPE, x86.X86_INS_LOOPNE}  # fmt: skip
_FUSING: Final = {"cmp", "test", "add", "sub", "and", "inc", "dec"}
_MOVES: Final = {"mov", "movaps", "movapd", "movdqa", "movups", "movdqu", "movupd", "movzx"}
_ZEROING: Final = {"xor", "sub", "xorps", "xorpd", "pxor", "psubb", "psubw", "psubd", "psubq",
                   "pcmpgtb", "pcmpgtw", "pcmpgtd"}  # fmt: skip
# Scalar operations that leave the rest of their destination as it was, and so wait for it.
_KEEPS_UPPER: Final = set(
    "sqrtss sqrtsd rcpss rsqrtss roundss roundsd cvtsi2ss cvtsi2sd cvtss2sd cvtsd2ss".split()
)
# Manual, "System Instruction Reference" and what the engine carries out itself: nothing goes on past
# these without waiting for them.
_SYSTEM: Final = set(
    "cpuid rdtsc rdtscp rdmsr wrmsr rdpmc xgetbv xsetbv hlt cli sti clts invd wbinvd invlpg lgdt lidt"
    " lldt ltr sgdt sidt sldt str smsw lmsw in out insb insw insd outsb outsw outsd pushf pushfq"
    " pushfd popf popfq popfd iret iretd iretq int int1 int3 into syscall sysret sysretq sysenter"
    " sysexit sysexitq swapgs vmcall vmmcall pause ud2 ud0 ud1 monitor mwait clac stac rdrand rdseed"
    " lar lsl verr verw xsave xrstor xsaveopt xsavec fxsave fxrstor fxsave64 fxrstor64 rdpkru wrpkru"
    " rdfsbase rdgsbase wrfsbase wrgsbase invpcid retf retfq ljmp lcall rsm lfs lgs lss".split()
)


class Disassembler:
    """capstone, which knows operands but not how they are encoded."""

    def __init__(self) -> None:
        """Prepare for 64-bit code."""
        self._decoder: Final = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._decoder.detail = True

    def first(self, code: bytes) -> Any:
        """The instruction at the beginning of `code`, None if there is none."""
        return next(self._decoder.disasm(code, 0, 1), None)


def specimen(slot: Slot) -> bytes:
    """Bytes of an instruction in this slot, with zeros behind."""
    rex = 0x40 | (8 if slot.size == 8 else 0) | 1 | (0 if slot.reg >= 0 else 4)
    if slot.map == 0 and slot.opcode == 0x90:
        rex &= ~1  # with REX.B it is no NOP
    field = slot.reg if slot.reg >= 0 else _REG & 7
    rm = (_BASE & 7) if slot.memory else _RM & 7
    modrm = bytes([(0x40 if slot.memory else 0xC0) | field << 3 | rm]) + b"\x40" * slot.memory
    tail = bytes(12)
    if slot.map > 3:
        middle = 0x80 * (slot.size == 8) | (15 - _VVVV) << 3 | slot.prefix
        head = bytes([0xC4, (0x40 if slot.reg < 0 else 0xC0) | (2 if slot.map == 4 else 3), middle])
        return head + bytes([slot.opcode]) + modrm + tail
    prefix = MANDATORY[slot.prefix]
    if slot.size == 2 and slot.prefix != 1:
        prefix = b"\x66" + prefix
    escape = _ESCAPES[slot.map]
    return prefix + bytes([rex]) + escape + bytes([slot.opcode]) + modrm + tail


def _has_modrm(decoder: Disassembler, slot: Slot) -> bool:
    if slot.map > 1:
        return True
    code = specimen(slot)
    at = code.index(_ESCAPES[slot.map] + bytes([slot.opcode]), len(MANDATORY[slot.prefix]))
    at += len(_ESCAPES[slot.map]) + 1
    short, longer = (
        decoder.first(code[:at] + bytes([mod | 0x01 | (code[at] & 0x38)]) + bytes(12))
        for mod in (0x00, 0x40)
    )
    return short is not None and longer is not None and longer.size == short.size + 1


def _selects(decoder: Disassembler, map_: int, prefix: int, opcode: int) -> bool:
    """Whether ModRM's reg field selects the operation."""
    names = set()
    for reg in range(8):
        for memory in (True, False):
            insn = decoder.first(specimen(Slot(map_, prefix, opcode, reg, memory, 4)))
            operands = len(insn.operands) if insn else -1
            names.add(insn.mnemonic if insn else "")
            if insn and any(
                o.type == x86.X86_OP_REG and _FAMILIES.get(o.reg, 99) % 16 == reg
                and reg not in (0, 1) for o in insn.operands
            ) and operands > 1:  # fmt: skip
                return False
    return len(names) > 1


def _slots(decoder: Disassembler) -> Iterator[Slot]:
    for map_ in range(6):
        for prefix in range(4) if map_ else (0, 2):
            for opcode in range(256):
                selects = _selects(decoder, map_, prefix, opcode)
                for reg in range(8) if selects else (-1,):
                    for memory in (False, True):
                        for size in _SIZES:
                            yield Slot(map_, prefix, opcode, reg, memory, size)


def _is_usable(insn: Any, slot: Slot) -> bool:
    """Prefixes and escapes are no instructions; a size must be told by the encoding."""
    if slot.map > 3 and insn.mnemonic.startswith("v"):
        return False  # AVX: no model offers it
    if slot.map == 0 and slot.prefix and slot.opcode not in _REPEATED:
        return False
    opcode = insn.opcode[0] if slot.map == 0 else 0
    if slot.map == 0 and (slot.opcode in (0x0F, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67)
                          or slot.opcode in (0xF0, 0xF2, 0xF3, 0x62, 0xC4, 0xC5)
                          or 0x40 <= slot.opcode < 0x50):  # fmt: skip
        return False
    return opcode == slot.opcode or slot.map > 0


def roles_of(insn: Any, slot: Slot, has_modrm: bool) -> tuple[Role, int, int]:
    """Roles, and implicit registers read and written."""
    roles, reads, writes = Role(0), 0, 0
    read, written = insn.regs_access()
    for registers, is_write in ((read, False), (written, True)):
        for register in registers:
            role, implicit = _role(insn, slot, has_modrm, register, is_write)
            roles |= role
            reads |= 0 if is_write else implicit
            writes |= implicit if is_write else 0
    for operand in insn.operands:
        if operand.type == x86.X86_OP_MEM and insn.mnemonic not in ("lea", "nop"):
            roles |= _memory_role(insn, operand)
    return roles | _kinds(insn, slot, roles), reads, writes


def _role(insn: Any, slot: Slot, has_modrm: bool, register: int, writes: bool) -> tuple[Role, int]:
    if register == x86.X86_REG_EFLAGS:
        return (Role.WRITES_FLAGS if writes else Role.READS_FLAGS), 0
    if register == x86.X86_REG_FPSW or insn.reg_name(register).startswith("st("):
        return Role.X87, 0
    family = _FAMILIES.get(register)
    if family is None:
        return Role(0), 0
    vector, number = family >= 16, family % 16
    if has_modrm and slot.reg < 0 and number == (_REG if family < 32 else _REG & 7):
        role = Role.WRITES_REG if writes else Role.READS_REG
        return role | (Role.VECTOR_REG if vector else Role(0)), 0
    if has_modrm and not slot.memory and number == (_RM if family < 32 else _RM & 7):
        role = Role.WRITES_RM if writes else Role.READS_RM
        return role | (Role.VECTOR_RM if vector else Role(0)), 0
    if slot.memory and family == _BASE:
        return Role(0), 0
    if slot.map > 3 and family == _VVVV:
        return (Role.WRITES_VVVV if writes else Role.READS_VVVV), 0
    if not has_modrm and not vector and number == 8 | slot.opcode & 7:
        return (Role.WRITES_OPCODE if writes else Role.READS_OPCODE), 0
    return Role(0), (1 << family if family < 32 else 0)


def _memory_role(insn: Any, operand: Any) -> Role:
    if insn.mnemonic.startswith("prefetch") or insn.mnemonic in ("clflush", "clflushopt", "clwb"):
        return Role.LOADS
    store = bool(operand.access & capstone.CS_AC_WRITE)
    load = bool(operand.access & capstone.CS_AC_READ) or not store
    return (Role.LOADS if load else Role(0)) | (Role.STORES if store else Role(0))


def _kinds(insn: Any, slot: Slot, roles: Role) -> Role:
    name = insn.mnemonic.split(" ")[-1]
    kinds = Role(0)
    jumps = x86.X86_GRP_JUMP in insn.groups
    if jumps or insn.id in _CALLS or x86.X86_GRP_CALL in insn.groups:
        kinds |= Role.BRANCH | Role.ENDS
    if jumps and name != "jmp":
        kinds |= Role.CONDITIONAL
    if name in _SYSTEM or _touches_system_register(insn):
        kinds |= Role.ENDS
    if name in _FUSING and not roles & Role.STORES:
        kinds |= Role.FUSES
    if name in _ZEROING and not slot.memory:
        kinds |= Role.ZEROES
    if name in _MOVES and not slot.memory and (name != "mov" or slot.size > 2):
        kinds |= Role.MOVES
    if name in ("push", "call") or (name == "enter"):
        kinds |= Role.PUSHES | Role.STORES
    if name in ("pop", "ret", "leave"):
        kinds |= Role.POPS | Role.LOADS
    sizes = [o.size for o in insn.operands if o.type != x86.X86_OP_IMM]
    if sizes and max(sizes) == 1:
        kinds |= Role.BYTES
    narrow = (
        sizes and sizes[0] <= 2 and roles & (Role.WRITES_REG | Role.WRITES_RM | Role.WRITES_OPCODE)
    )
    if narrow and not roles & (Role.VECTOR_REG | Role.VECTOR_RM):
        kinds |= Role.MERGES
    if name.startswith("cmov") or name in _KEEPS_UPPER:
        kinds |= Role.READS_REG
    if name.startswith("f") and not name.startswith(("femms", "fxs", "fxr")):
        kinds |= Role.X87
    return kinds


def _touches_system_register(insn: Any) -> bool:
    return any(
        o.type == x86.X86_OP_REG and insn.reg_name(o.reg)[:2] in ("cr", "dr", "cs", "ds", "es", "ss",
                                                                   "fs", "gs")
        for o in insn.operands
    )  # fmt: skip


def enumerate_forms() -> list[Form]:
    """Every form that capstone knows, in the order of slots."""
    decoder, found = Disassembler(), []
    for slot in _slots(decoder):
        code = specimen(slot)
        insn = decoder.first(code)
        if insn is None and slot.map == 1 and not slot.memory and slot.reg >= 0:
            code = MANDATORY[slot.prefix] + bytes([0x0F, slot.opcode, 0xC0 | slot.reg << 3])
            insn = decoder.first(code)  # LFENCE and its like want an r/m field of 0
        if insn is None or not _is_usable(insn, slot):
            continue
        modrm = _has_modrm(decoder, slot)
        if slot.memory and not modrm:
            continue
        roles, reads, writes = roles_of(insn, slot, modrm)
        text = f"{insn.mnemonic} {insn.op_str}".strip()
        found.append(Form(slot, bytes(code[: insn.size]), text, roles, reads, writes))
    return found
