"""String instructions: MOVS CMPS STOS LODS SCAS INS OUTS, alone and under REP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmm.exits.emulator import alu
from vmm.exits.emulator.alu import DF, RF, ZF
from vmm.exits.emulator.decode import REPNE, Instruction
from vmm.exits.emulator.machine import GuestFault, Machine
from vmm.exits.emulator.operands import DS, ES, FS, GS, MASK, Register, getter, setter
from vmm.exits.emulator.outcome import DONE, PARTIAL, Emulated, Plan

RAX, RCX, RDX, RSI, RDI = 0, 1, 2, 6, 7

Element = Callable[[int, int], bool]
"""One iteration: (source linear, destination linear) -> whether REP may go on."""

Maker = Callable[[Machine, "Form"], Element]


@dataclass(frozen=True, slots=True)
class Form:
    """A string instruction as encoded; sizes in bytes; `repeat` is the prefix byte or 0."""

    size: int
    address_bits: int
    source_segment: int
    repeat: int
    bits: int
    length: int


def _movs(m: Machine, form: Form) -> Element:
    size, read, write, check = form.size, m.read, m.write, m.check_write
    checked = -1

    def element(source: int, target: int) -> bool:
        nonlocal checked
        # A doomed store must not cost a device the datum just read; once a page is enough.
        if target >> 12 != checked or (target & 0xFFF) + size > 0x1000:
            check(target, size)
            checked = target >> 12
        write(target, size, read(source, size))
        return True

    return element


def _stos(m: Machine, form: Form) -> Element:
    size, write, value = form.size, m.write, m.regs[RAX] & MASK[form.size * 8]

    def element(_: int, target: int) -> bool:
        write(target, size, value)
        return True

    return element


def _lods(m: Machine, form: Form) -> Element:
    size, read, regs, put = form.size, m.read, m.regs, setter(Register(RAX, form.size))

    def element(source: int, _: int) -> bool:
        put(regs, read(source, size))
        return True

    return element


def _comparing(m: Machine, form: Form, left: Callable[[int], int]) -> Element:
    size, read, regs, bits = form.size, m.read, m.regs, form.size * 8
    wanted = 0 if form.repeat == REPNE else ZF

    def element(source: int, target: int) -> bool:
        flags = alu.sub(left(source), read(target, size), regs.rflags, bits)[1]
        regs.rflags = flags
        return flags & ZF == wanted

    return element


def _cmps(m: Machine, form: Form) -> Element:
    return _comparing(m, form, lambda source: m.read(source, form.size))


def _scas(m: Machine, form: Form) -> Element:
    accumulator = getter(Register(RAX, form.size))(m.regs)
    return _comparing(m, form, lambda _: accumulator)


def _ins(m: Machine, form: Form) -> Element:
    size, port = form.size, m.regs[RDX] & 0xFFFF

    def element(_: int, target: int) -> bool:
        m.check_write(target, size)
        m.write(target, size, m.port_in(port, size))
        return True

    return element


def _outs(m: Machine, form: Form) -> Element:
    size, port = form.size, m.regs[RDX] & 0xFFFF

    def element(source: int, _: int) -> bool:
        m.port_out(port, size, m.read(source, size))
        return True

    return element


@dataclass(frozen=True, slots=True)
class Kind:
    """What one opcode pair does, and which index registers it moves."""

    make: Maker
    source: bool
    target: bool


KINDS = {
    0x6C: Kind(_ins, source=False, target=True),
    0x6E: Kind(_outs, source=True, target=False),
    0xA4: Kind(_movs, source=True, target=True),
    0xA6: Kind(_cmps, source=True, target=True),
    0xAA: Kind(_stos, source=False, target=True),
    0xAC: Kind(_lods, source=True, target=False),
    0xAE: Kind(_scas, source=False, target=True),
}


def is_string(insn: Instruction) -> bool:
    """Tell whether an instruction is one of these (MOVSD and CMPSD also name SSE ones)."""
    return not insn.escaped and insn.opcode & 0xFE in KINDS and insn.name != ""


def _element_size(insn: Instruction) -> int:
    if not insn.opcode & 1:
        return 1
    port = insn.opcode < 0x70
    if insn.wide and not port:
        return 8
    return 2 if insn.prefixes.operand_size != (insn.bits == 16) and not insn.wide else 4


def compile_string(insn: Instruction) -> Plan:
    """Compile a string instruction."""
    segment = insn.prefixes.segment
    form = Form(
        size=_element_size(insn),
        address_bits=insn.address_bits,
        source_segment=DS if segment is None else segment,
        repeat=insn.prefixes.repeat,
        bits=insn.bits,
        length=insn.length,
    )
    kind = KINDS[insn.opcode & 0xFE]
    return lambda m, limit: _run(m, kind, form, limit)


def _run(m: Machine, kind: Kind, form: Form, limit: int) -> Emulated:
    regs = m.regs
    count = regs[RCX] & MASK[form.address_bits] if form.repeat else 1
    if count:
        done, stopped = _iterate(m, kind, form, min(count, limit) if form.repeat else 1)
        if done < count and not stopped:
            return PARTIAL
    regs.rip = regs.rip + form.length & MASK[form.bits]
    if regs.rflags & RF:
        regs.rflags &= ~RF
    return DONE


def _bases(m: Machine, form: Form) -> tuple[int, int]:
    """Return the bases of the source and of ES."""
    segment = form.source_segment
    if form.bits == 64:
        return m.segment_base(segment) if segment in (FS, GS) else 0, 0
    return m.segment_base(segment), m.segment_base(ES)


def _iterate(m: Machine, kind: Kind, form: Form, budget: int) -> tuple[int, bool]:
    """Run up to `budget` iterations -> (how many, whether a comparison ended it).

    Completed iterations are committed even when one faults; flags are then those from before,
    which the comparisons do not read (*REP/REPE/REPZ/REPNE/REPNZ*).
    """
    regs, mask, linear = m.regs, MASK[form.address_bits], MASK[64 if form.bits == 64 else 32]
    source, target, flags = regs[RSI] & mask, regs[RDI] & mask, regs.rflags
    source_base, target_base = _bases(m, form)
    element, step = kind.make(m, form), -form.size if flags & DF else form.size
    done, more = 0, True
    try:
        while done < budget and more:
            more = element(source_base + source & linear, target_base + target & linear)
            done += 1
            source, target = source + step & mask, target + step & mask
    except GuestFault:
        regs.rflags = flags
        raise
    finally:
        _commit(m, kind, form, done)
    return done, not more


def _commit(m: Machine, kind: Kind, form: Form, done: int) -> None:
    regs = m.regs
    moved = -done * form.size if regs.rflags & DF else done * form.size
    if done:
        if kind.source:
            _advance(m, RSI, moved, form.address_bits)
        if kind.target:
            _advance(m, RDI, moved, form.address_bits)
        if form.repeat:
            _advance(m, RCX, -done, form.address_bits)


def _advance(m: Machine, number: int, delta: int, bits: int) -> None:
    value, mask = m.regs[number], MASK[bits]
    moved = value + delta & mask
    m.regs[number] = value & ~mask | moved if bits == 16 else moved
