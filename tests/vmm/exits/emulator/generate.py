"""Seeded random instructions of every form, with the state they run in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import keystone

from tests.vmm.exits.emulator.fake import CODE, DATA, SIZE, WRITABLE
from tests.vmm.exits.emulator.forms import FORMS, Form, undefined_flags
from tests.vmm.exits.emulator.native import State

WORDS = {1: "byte", 2: "word", 4: "dword", 8: "qword", 16: "xmmword"}
LEGACY = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
LANDING = CODE + 0x80
MODES = {
    16: keystone.KS_MODE_16,
    32: keystone.KS_MODE_32,
    64: keystone.KS_MODE_64,
}
ARITHMETIC = 0x8D5
DIRECTION = 0x400
FIXED = 0x202


@dataclass(frozen=True)
class Case:
    """One instruction in one state; `undefined` are the flags the manual leaves open."""

    text: str
    state: State
    undefined: int
    mutated: bool
    kind: str


@cache
def _engine(bits: int) -> Any:
    return keystone.Ks(keystone.KS_ARCH_X86, MODES[bits])


@cache
def assemble(text: str, bits: int) -> bytes:
    """Return the machine code of one instruction, nothing if there is none in this mode."""
    try:
        return bytes(_engine(bits).asm(text)[0] or b"")
    except keystone.KsError:
        return b""


def register(number: int, size: int, *, high: bool = False) -> str:
    """Name a general register; `high` picks AH..BH for numbers 0..3 of one byte."""
    if number >= 8:
        return f"r{number}" + {1: "b", 2: "w", 4: "d", 8: ""}[size]
    name = LEGACY[number]
    if size == 1:
        return name[0] + ("h" if high else "l") if number < 4 else f"{name}l"
    return {2: "", 4: "e", 8: "r"}[size] + name


class Builder:
    """The making of one case."""

    def __init__(self, random: Random, bits: int, form: Form) -> None:
        self.random, self.bits, self.form = random, bits, form
        narrow = [size for size in form.sizes if size * 8 <= max(bits, 32) or size == 16]
        self.size = random.choice(narrow)
        self.memory = bytearray(random.randbytes(SIZE))
        self.regs = [self._value() for _ in range(16)]
        self.regs[4] = self._target(8) & ~1
        self.used = {4}
        self.target = 0
        self.xmm = tuple(random.getrandbits(128) for _ in range(16))
        self.rflags = FIXED | random.getrandbits(12) & ARITHMETIC
        self.count = 1
        self.high = self.rex = False

    def _value(self) -> int:
        kind = self.random.random()
        if kind < 0.15:
            return self.random.choice([0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x80000000, (1 << 64) - 1])
        return self.random.getrandbits(self.random.choice([8, 16, 32, 63, 64, 64]))

    def _target(self, size: int) -> int:
        """Choose a linear address: mostly inside, often at an edge, now and then outside."""
        kind = self.random.random()
        if kind < 0.25:
            return DATA + 0x1000 - self.random.randrange(size + 1)
        if kind < 0.30:
            return DATA + self.random.choice([WRITABLE, SIZE]) - self.random.randrange(size + 1)
        aligned = 15 if self.random.random() < 0.5 else 0
        return DATA + (self.random.randrange(0x40, WRITABLE - 0x40) & ~aligned)

    def _segment_base(self) -> int:
        return DATA if self.bits == 16 else 0

    def _pick(self, limit: int) -> int:
        free = [n for n in range(limit) if n not in self.used]
        number = self.random.choice(free)
        self.used.add(number)
        return number

    def address(self) -> str:
        """Write a memory operand that leads to a chosen target, and set its registers."""
        self.target = self._target(self.size)
        offset = self.target - self._segment_base()
        if self.bits == 16 and self.random.random() < 0.7:
            return self._address16(offset)
        width = 4 if self.bits != 64 or self.random.random() < 0.15 else 8
        limit = 16 if self.bits == 64 else 8
        kind = self.random.random()
        if self.bits == 64 and kind < 0.08 and width == 8:
            return f"gs:[{self._base(limit, width, self.target - DATA)}]"
        if kind < 0.2 and self.bits != 16:
            return f"[{offset:#x}]"
        if kind < 0.6:
            displacement = self.random.choice([0, 0x10, -0x20, 0x12345, -0x7FFF0])
            return f"[{self._base(limit, width, offset - displacement)}{displacement:+#x}]"
        return self._scaled(limit, width, offset)

    def _base(self, limit: int, width: int, value: int) -> str:
        number = self._pick(limit)
        self._set(number, width, value)
        return register(number, width)

    def _set(self, number: int, width: int, value: int) -> None:
        """Set a register; bits above an address size are noise that must be ignored."""
        mask = (1 << 8 * width) - 1
        noise = self.random.getrandbits(64) if self.bits == 64 else 0
        self.regs[number] = noise & ~mask | value & mask

    def _scaled(self, limit: int, width: int, offset: int) -> str:
        scale, displacement = self.random.choice([1, 2, 4, 8]), self.random.choice([0, -8, 0x400])
        amount = self.random.choice([0, 1, 37, -5, -1])
        index, base = self._pick(limit), self._pick(limit)
        self._set(index, width, amount)
        self._set(base, width, offset - amount * scale - displacement)
        names = register(base, width), register(index, width)
        return f"[{names[0]}+{names[1]}*{scale}{displacement:+#x}]"

    def _address16(self, offset: int) -> str:
        pairs = [(3, 6), (3, 7), (5, 6), (5, 7), (3, None), (5, None), (6, None), (7, None)]
        base, index = self.random.choice(pairs)
        displacement = self.random.choice([0, 5, -5, 0x300, -0x700])
        amount = self.random.randrange(0x10000) if index is not None else 0
        self.used |= {base, index if index is not None else base}
        if index is not None:
            self._set(index, 2, amount)
        self._set(base, 2, offset - amount - displacement)
        names = register(base, 2) + (f"+{register(index, 2)}" if index is not None else "")
        return f"[{names}{displacement:+#x}]" if displacement else f"[{names}]"

    def general(self, size: int) -> str:
        """Name a register operand, perhaps one that the address uses too."""
        limit = 16 if self.bits == 64 else 8
        if size == 1 and (self.bits != 64 or self.high):
            limit = 4
        number = self.random.randrange(limit)
        # AH..BH cannot be encoded beside a REX prefix; keystone ends the process on trying.
        may = size == 1 and number < 4 and max(self.used) < 8 and not self.rex
        high = may and self.random.random() < 0.4
        self.high |= high
        self.rex |= size == 1 and number >= 4
        self.used.add(number)
        return register(number, size, high=high)

    def bit_index(self) -> str:
        """Name a register that holds a bit number reaching some bytes around the target."""
        number = self._pick(16 if self.bits == 64 else 8)
        self._set(number, self.size, self.random.randrange(-700, 700))
        return register(number, self.size)

    def shift_count(self) -> str:
        """Write a count for shifts: 1, CL or an immediate."""
        limit = 17 if self.form.name in ("shld", "shrd") and self.size == 2 else 256
        self.count = 1 if self.random.random() < 0.3 else self.random.randrange(limit)
        if 1 not in self.used and self.random.random() < 0.5:
            self.used.add(1)
            self.regs[1] = self.regs[1] & ~0xFF | self.count
            return "cl"
        return str(self.count)

    def immediate(self) -> str:
        """Write a constant that the operand size can hold, sign-extended."""
        bits = min(self.size * 8, 32)
        bits = self.random.choice([8, bits])
        return str(self.random.getrandbits(bits) - (1 << (bits - 1)))

    def text(self) -> str:
        """Fill the form's template; the address first, as it claims registers."""
        template, parts = self.form.template, {}
        if "{m}" in template:
            parts["m"] = f"{WORDS[self.form.memory or self.size]} ptr {self.address()}"
        if "{bit}" in template:
            parts["bit"] = self.bit_index()
        if "{count}" in template:
            parts["count"] = self.shift_count()
        if "{r}" in template:
            parts["r"] = self.general(self.size)
        if "{q}" in template:
            parts["q"] = self.general(self.size)
        if "{wide}" in template:
            parts["wide"] = self.general(self.random.choice(self._wider()))
        if "{i}" in template:
            parts["i"] = self.immediate()
        if "{x}" in template:
            parts["x"] = f"xmm{self.random.randrange(16 if self.bits == 64 else 8)}"
            parts["y"] = f"xmm{self.random.randrange(16 if self.bits == 64 else 8)}"
        return template.format(**parts, suffix={1: "b", 2: "w", 4: "d", 8: "q"}.get(self.size))

    def _wider(self) -> list[int]:
        return [n for n in (2, 4, 8) if n > self.size and n * 8 <= max(32, self.bits)]

    def poke(self, value: int, size: int) -> None:
        """Put a value where the memory operand points, as far as it is inside."""
        start = self.target - DATA
        if 0 <= start <= SIZE - size:
            self.memory[start : start + size] = (value & (1 << size * 8) - 1).to_bytes(
                size, "little"
            )

    def prepare(self) -> None:
        """Make the interesting case likely: equal comparands, quotients that fit, and so on."""
        getattr(self, f"_prepare_{self.form.kind}", lambda: None)()

    def _prepare_string(self) -> None:
        width = 2 if self.bits == 16 else self.bits // 8
        self._set(6, width, self._target(16) - self._segment_base())
        # The 16-bit ES has another base than DS.
        shift = 0x100 if self.bits == 16 else 0
        self._set(7, width, self._target(16) - self._segment_base() - shift)
        self._set(1, width, self.random.choice([0, 1, 2, 7, 40]))
        if self.random.random() < 0.4:
            self.rflags |= DIRECTION
        if self.random.random() < 0.7:
            self.memory = bytearray([self.random.getrandbits(8)]) * SIZE
            self.memory[self.random.randrange(SIZE)] ^= 1
            self.regs[0] = int.from_bytes(self.memory[:8], "little")

    def _prepare_compare(self) -> None:
        if self.random.random() < 0.5 and 0 not in self.used:
            self.poke(self.regs[0], self.size)

    def _prepare_compare_pair(self) -> None:
        half = self.size * 4
        mask = (1 << half) - 1
        if self.random.random() < 0.5 and not self.used & {0, 2}:
            self.poke((self.regs[2] & mask) << half | self.regs[0] & mask, self.size)

    def _prepare_divide(self) -> None:
        if self.random.random() < 0.7 and 2 not in self.used:
            self.regs[2] = self.random.choice([0, 1, 5, (1 << 64) - 1])
        if self.size == 1 and self.random.random() < 0.7 and 0 not in self.used:
            self.regs[0] = self.random.randrange(0x300)
        if self.random.random() < 0.1:
            self.poke(0, self.size)

    def _prepare_branch(self) -> None:
        self.poke(LANDING - (CODE if self.bits == 16 else 0), self.size)


INJECTED = {64: [0x66, 0x67, 0x2E, 0x3E, 0x65, 0xF2, 0xF3], 32: [0x66, 0x26, 0x36, 0xF2, 0xF3]}


def _mutate(random: Random, code: bytes, bits: int, form: Form) -> tuple[bytes, bool]:
    """Now and then put a prefix in front that the assembler would not: also illegal LOCKs."""
    chance = random.random()
    if form.kind == "branch" or form.name in ("shld", "shrd") or chance > 0.12:
        return code, False
    if chance < 0.04 and code[0] != 0xF0:
        return b"\xf0" + code, True
    prefix = random.choice(INJECTED.get(bits, [0x66]))
    if prefix == 0x66 and "{i}" in form.template:
        return code, False  # a shorter constant would leave bytes behind as code
    return bytes([prefix]) + code, True


def make_case(random: Random, bits: int) -> Case:
    """Make one case for a code size of 16, 32 or 64 bits."""
    while True:
        form = random.choice(FORMS)
        if bits not in form.modes:
            continue
        builder = Builder(random, bits, form)
        text = builder.text()
        code = assemble(text, bits)
        if not code:
            continue
        if bits == 16 and form.prefix:
            code = bytes([form.prefix]) + code
        builder.prepare()
        if bits != 64:
            builder.regs = [value & 0xFFFFFFFF for value in builder.regs[:8]] + [0] * 8
            builder.regs[4] -= DATA if bits == 16 else 0
        raw, mutated = _mutate(random, code, bits, form)
        state = State(
            bits, raw, tuple(builder.regs), 0 if bits == 16 else CODE, builder.rflags,
            builder.xmm, bytes(builder.memory),
        )  # fmt: skip
        flags = undefined_flags(form, builder.count, builder.size)
        return Case(text, state, flags, mutated, form.kind)


__all__ = ["Case", "assemble", "make_case"]
