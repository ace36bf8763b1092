"""Hostile programs: a seed gives memory, registers and control state, biased towards trouble.

`generate(seed)` is a pure function: the same seed is the same program on every host.
"""

from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Final

from hwmodel.arch.vmcs import Field
from tests.hostile import tables
from tests.hostile.opcodes import code, turned
from tests.hostile.tables import (
    CODE,
    CODE_SIZE,
    DATA,
    GDT,
    HANDLERS,
    IDT,
    Patches,
    Segment,
    segment,
)

MASK: Final = (1 << 64) - 1


class Mode(Enum):
    """The processor mode a program starts in."""

    REAL = "real"
    V8086 = "v8086"
    PROTECTED16 = "protected16"
    PROTECTED32 = "protected32"
    PAGED32 = "paged32"
    PAE32 = "pae32"
    COMPATIBILITY = "compatibility"
    LONG = "long"


@dataclass(slots=True)
class Program:
    """What is put into a fresh machine, and how long it may run (cycles)."""

    seed: int
    mode: Mode
    cpl: int
    limit: int
    patches: Patches = field(default_factory=list)
    gpr: list[int] = field(default_factory=list)
    fields: dict[Field, int] = field(default_factory=dict)
    msrs: dict[str, int] = field(default_factory=dict)


def value(random: Random) -> int:
    """Return a number that matters: an address of something, an edge, or noise."""
    match random.randrange(12):
        case 0 | 1:
            return random.randrange(16)
        case 2 | 3 | 4:
            return DATA + random.randrange(0x8000)
        case 5:
            return CODE + random.randrange(CODE_SIZE)
        case 6:
            return random.choice(
                (GDT, IDT, tables.TSS, tables.PML4 + 0x3000)
            ) + 8 * random.randrange(64)
        case 7:
            return random.choice((0xFEE00000, 0xFEC00000, 0xA0000, 0xFFFFF, 0x100000, 0xFFFFFFF0))
        case 8:
            return random.choice(
                (1 << 47, MASK - 0xFFF, (1 << 47) - 1, 1 << 63, 0xFFFF, 0x7FFFFFFF)
            )
        case 9:
            return 8 * random.randrange(40)
        case 10:
            return 1 << random.randrange(64)
        case _:
            return random.getrandbits(64)


def generate(seed: int) -> Program:
    """Return program number `seed`."""
    random = Random(seed)
    mode = random.choice(list(Mode))
    cpl = {Mode.REAL: 0, Mode.V8086: 3}.get(mode, random.choice((0, 0, 0, 3, 3, 1, 2)))
    program = Program(seed, mode, cpl, random.choice((50, 300, 300, 1000, 3000)))
    harm = random.choice((0.0, 0.0, 0.3, 0.6))
    _memory(program, random, harm)
    _control(program, random)
    _segments(program, random)
    _registers(program, random)
    _break(program, random, harm)
    return program


def _gate_bits(mode: Mode, random: Random) -> int:
    if mode is Mode.REAL:
        return 0
    if mode in (Mode.LONG, Mode.COMPATIBILITY):
        return 64
    return 16 if mode is Mode.PROTECTED16 and random.random() < 0.8 else 32


def _memory(program: Program, random: Random, harm: float) -> None:
    bits = _gate_bits(program.mode, random)
    kind = {64: "code64", 32: "code32", 16: "code16", 0: "code16"}[bits]
    program.patches += [
        (CODE, turned(random, CODE_SIZE, 0x1000)),
        (DATA, random.randbytes(256) * 4),
    ]
    program.patches += tables.handlers()
    program.patches += tables.gdt(random, bits == 64)
    program.patches += tables.idt(random, bits, segment(kind, 0).selector)
    program.patches += tables.tss(random, bits)
    program.patches += tables.paging(random, harm)
    for _ in range(random.randrange(3)):  # a place for wild jumps to land
        program.patches.append((random.randrange(0xFF000), code(random, 64)))


def _control(program: Program, random: Random) -> None:
    long_mode = program.mode in (Mode.LONG, Mode.COMPATIBILITY)
    paged = long_mode or program.mode in (Mode.PAGED32, Mode.PAE32)
    paged = paged or (program.mode is Mode.V8086 and random.random() < 0.5)
    cr0 = 0x10 | (program.mode is not Mode.REAL) | paged << 31
    cr0 |= random.getrandbits(16) & 0x2E if random.random() < 0.4 else 0
    cr0 |= random.choice((0, 0x10000, 0x50000))
    cr4 = 0x600 | random.choice((0, 0x10, 0x80, 0x90, 0x4, 0x8, 0x100000, 0x200000, 0x300000))
    efer = random.choice((1, 0x800, 0x801, 0))
    cr3 = tables.PD32
    if program.mode is Mode.PAE32:
        cr4, cr3 = cr4 | 0x20, tables.PAE
    if long_mode:
        cr4, cr3, efer = cr4 | 0x20, tables.PML4, efer | 0x500
    f = program.fields
    f[Field.GUEST_CR0], f[Field.GUEST_CR3], f[Field.GUEST_CR4] = cr0, cr3, cr4
    f[Field.GUEST_IA32_EFER] = efer
    for n, pdpte in enumerate((0x9001, 0x9001, 0, 0x9001)):
        f[Field[f"GUEST_PDPTR{n}"]] = pdpte
    f[Field.GUEST_GDTR_BASE], f[Field.GUEST_GDTR_LIMIT] = GDT, random.choice((0x17F, 0x7FF, 0xFFFF))
    real = program.mode is Mode.REAL
    f[Field.GUEST_IDTR_BASE] = tables.IVT if real else IDT
    f[Field.GUEST_IDTR_LIMIT] = 0x3FF if real else random.choice((0x7FF, 0x7FF, 0xFF, 0x17))


def _put(program: Program, name: str, s: Segment) -> None:
    f = program.fields
    f[Field[f"GUEST_{name}_SELECTOR"]], f[Field[f"GUEST_{name}_BASE"]] = s.selector, s.base
    f[Field[f"GUEST_{name}_LIMIT"]], f[Field[f"GUEST_{name}_AR_BYTES"]] = s.limit, s.rights


def _segments(program: Program, random: Random) -> None:
    mode, cpl = program.mode, program.cpl
    for name in ("ES", "CS", "SS", "DS", "FS", "GS"):
        if mode in (Mode.REAL, Mode.V8086):
            base = (CODE if name == "CS" else DATA) >> 4
            rights = 0xF3 if mode is Mode.V8086 else 0x9B if name == "CS" else 0x93
            _put(program, name, Segment(base, base << 4, 0xFFFF, rights))
            continue
        kind = "data16" if mode is Mode.PROTECTED16 else "data32"
        if name == "CS":
            codes = {Mode.LONG: "code64", Mode.PROTECTED16: "code16"}
            kind = codes.get(mode, random.choice(("code32", "code32", "code32", "code16")))
        _put(program, name, segment(kind, cpl))
    long_mode = mode in (Mode.LONG, Mode.COMPATIBILITY)
    _put(program, "TR", Segment(tables.TSS_SELECTOR, tables.TSS, 0x2FF, 0x8B))
    _put(program, "LDTR", Segment(tables.LDT_SELECTOR, tables.LDT, 0xFF, 0x82))
    if not long_mode and random.random() < 0.1:
        _put(program, "TR", Segment(tables.TSS_SELECTOR, tables.TSS, 0x67, 0x83))


def _canonical(address: int) -> int:
    """The address with bits 63:48 as bit 47 is: WRMSR and VM entries take no other."""
    return (address & (1 << 48) - 1 ^ 1 << 47) - (1 << 47) & (1 << 64) - 1


def _registers(program: Program, random: Random) -> None:
    program.gpr = [value(random) for _ in range(16)]
    program.gpr[1] = random.choice(
        (program.gpr[1], random.randrange(64), 0x174, 0xC0000080, 0x1B, 0xC0000101)
    )
    f, flags = program.fields, 2 | random.getrandbits(16) & 0x4CD5
    segmented = program.mode in (Mode.REAL, Mode.V8086)
    start = random.randrange(CODE_SIZE) if random.random() < 0.5 else 0
    f[Field.GUEST_RIP] = start + (0 if segmented else CODE)
    if program.mode is Mode.PROTECTED16:
        _put(
            program,
            "CS",
            Segment(program.fields[Field.GUEST_CS_SELECTOR], CODE, 0xFFFF, 0x9B | program.cpl << 5),
        )
        f[Field.GUEST_RIP] = start
    f[Field.GUEST_RSP] = random.choice((DATA + 0x2800, DATA + 0x3000, DATA + 0x2801, 0x1800))
    if random.random() < 0.1:
        f[Field.GUEST_RSP] = value(random)
    flags |= random.choice((0, 0, 0, 0x200, 0x100, 0x300)) | random.choice((0, 0x3000))
    f[Field.GUEST_RFLAGS] = flags | (1 << 17 if program.mode is Mode.V8086 else 0)
    if random.random() < 0.15:
        f[Field.GUEST_DR7] = 0x400 | random.getrandbits(32) & 0xFFFF03FF & ~0xF0
        program.msrs |= {f"dr{n}": value(random) for n in range(4)}
    target = CODE + random.randrange(CODE_SIZE)
    program.msrs |= {
        "star": 0x0013_0008 << 32 if random.random() < 0.5 else random.getrandbits(64),
        "lstar": random.choice((target, value(random))), "cstar": target,
        "fmask": random.getrandbits(32), "kernel_gs_base": value(random),
    }  # fmt: skip
    f[Field.GUEST_SYSENTER_CS] = random.choice((8, 0x10, 0, random.getrandbits(16)))
    f[Field.GUEST_SYSENTER_EIP] = random.choice((target, _canonical(value(random))))
    f[Field.GUEST_SYSENTER_ESP] = random.choice((DATA + 0x5000, _canonical(value(random))))


def _break(program: Program, random: Random, harm: float) -> None:
    """Spoil tables, and now and then the very state that an entry has to check."""
    f = program.fields
    if random.random() < harm:
        for _ in range(random.randrange(1, 5)):
            at = random.choice((GDT, IDT, tables.TSS, HANDLERS)) + random.randrange(0x200)
            program.patches.append((at, random.randbytes(random.choice((1, 2, 8)))))
    if random.random() < 0.25 * harm:
        name = random.choice(("ES", "CS", "SS", "DS", "FS", "GS", "TR", "LDTR"))
        part, bits = random.choice(
            (("AR_BYTES", 17), ("LIMIT", 32), ("BASE", 64), ("SELECTOR", 16))
        )
        f[Field[f"GUEST_{name}_{part}"]] = random.getrandbits(bits)
    if random.random() < 0.1 * harm:
        which = random.choice((Field.GUEST_CR0, Field.GUEST_CR4, Field.GUEST_IA32_EFER,
                               Field.GUEST_RFLAGS, Field.GUEST_CR3, Field.GUEST_RIP))  # fmt: skip
        f[which] ^= 1 << random.randrange(40)
    if random.random() < 0.1:
        f[Field.GUEST_INTERRUPTIBILITY_INFO] = random.choice((1, 2, 8, 9, 10))
    if random.random() < 0.08:
        kind, vector = random.choice(
            ((0, 0x20), (2, 2), (3, 13), (3, 14), (3, 8), (4, 0x80), (6, 3), (5, 1))
        )
        error = kind == 3 and vector in tables.WITH_ERROR
        f[Field.VM_ENTRY_INTR_INFO_FIELD] = 1 << 31 | kind << 8 | vector | error << 11
        f[Field.VM_ENTRY_INSTRUCTION_LEN] = 1
