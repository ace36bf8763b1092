"""One instruction of a form: operands chosen, bytes made, and what it does to registers and flags.

Registers that hold addresses are never written (`Plan.held`), so that every access goes where it
was meant to: into one of the windows, often over its border.
"""

import re
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Final

from vmm.testing.fuzz.forms import Form
from vmm.testing.fuzz.record import DATA, WINDOWS
from vmm.testing.fuzz.stack87 import Stack

_MASK64: Final = (1 << 64) - 1
_RSP: Final = 4
_ORDINARY: Final = DATA + WINDOWS[0]
_BORDERS: Final = (0x1000, 0x2000, 0x3000, 0x4000)  # read-write, read-only, missing, read-write
_OPERAND: Final = re.compile(r"([A-Z])(\d*)(a?)(!?)")
_CONDITION_READS: Final = (0x800, 1, 0x40, 0x41, 0x80, 4, 0x880, 0x8C0)
_IMPLIED_REGISTER: Final = {"rax": 0, "rax1": 0, "rax2": 0, "rcx": 1, "rdx": 2}
_EDGE_BYTES: Final = (0, 1, 2, 7, 8, 0x1F, 0x20, 0x3F, 0x40, 0x7F, 0x80, 0xFF)
_SHIFTS: Final = frozenset({"shl", "shr"})


class UnfitError(Exception):
    """This form cannot be used here: it would write a held register or read an undefined flag."""


@dataclass(slots=True)
class Plan:
    """A sequence in the making.

    `held` maps registers that hold addresses to their values; `undefined` are the flags that the
    last instructions left open; `ever` is their union.
    """

    random: Random
    bits: int
    at: int
    held: dict[int, int]
    code: list[bytes] = field(default_factory=list)
    undefined: int = 0
    ever: int = 0
    stack: Stack = field(default_factory=lambda: Stack(0, 0))

    @property
    def registers(self) -> int:
        """Return how many general registers there are."""
        return 16 if self.bits == 64 else 8

    def here(self) -> int:
        """Return where the next instruction will lie."""
        return self.at + sum(map(len, self.code))


@cache
def _operand(text: str) -> tuple[str, int, bool, bool]:
    """Kind, bytes (0: the operand size), must be aligned, is written."""
    found = _OPERAND.fullmatch(text)
    assert found is not None, text
    kind, size, aligned, written = found.groups()
    return kind, int(size or 0), bool(aligned), bool(written)


def target(random: Random, size: int, aligned: bool) -> int:
    """Choose a linear address for an access: mostly inside, else at a border of pages."""
    if random.random() < 0.72:
        step = size if aligned and random.random() < 0.99 else 1
        return _ORDINARY + random.randrange(0, 129 - size, step)
    border = DATA + random.choice(_BORDERS)
    offset = random.choice((0, -size, random.randint(-size, 0), random.randint(-48, 48 - size)))
    if aligned and random.random() < 0.98:
        offset = offset // 16 * 16
    return border + max(-64, min(offset, 64 - size))


def string_target(random: Random) -> int:
    """Choose where a string begins: four elements up or down stay in its window."""
    if random.random() < 0.7:
        return _ORDINARY + random.randint(32, 88)
    return DATA + random.choice(_BORDERS) + random.randint(-32, 24)


class Encoder:
    """The making of one instruction."""

    __slots__ = (
        "bits",
        "form",
        "modrm",
        "plan",
        "prefixes",
        "random",
        "reg",
        "rex",
        "size",
        "vvvv",
    )

    def __init__(self, plan: Plan, form: Form) -> None:
        """Begin with nothing chosen."""
        self.plan, self.form, self.random, self.bits = plan, form, plan.random, plan.bits
        self.rex = 0
        self.prefixes = b""
        self.modrm: tuple[int, bytes, int] | None = None
        self.reg = 0
        self.vvvv = 0
        self.size = self._choose_size()

    def _choose_size(self) -> int:
        if self.form.by_mode:
            return 2 if self.random.random() < 0.1 else self.bits // 8
        sizes = self.form.sizes
        if not sizes:
            return 4
        size = self.random.choice(sizes)
        return 4 if size == 8 and self.bits == 32 else size

    def make(self) -> bytes:
        """Return the bytes. Raises UnfitError."""
        self._check_implied()
        tail, opcode = b"", self.form.opcode
        last = opcode[-1]
        reads = self.form.reads
        if self.form.conditional:
            condition = self.random.randrange(16)
            last |= condition
            reads = _CONDITION_READS[condition >> 1]
        if reads & self.plan.undefined:
            raise UnfitError
        for operand in self.form.operands:
            if operand[0] in "/iJ":
                tail += self._small(operand)
            elif operand[0] == "Z":
                last |= self._in_opcode(operand)
            elif operand == "Si":
                self.modrm = (3, b"", self.random.randrange(8))
            else:
                self._general(operand)
        return self._assemble(opcode[:-1] + bytes([last]), tail)

    def _check_implied(self) -> None:
        held = self.plan.held
        for word in self.form.implied:
            if _IMPLIED_REGISTER.get(word) in held:
                raise UnfitError

    # ---- operands ----

    def _small(self, operand: str) -> bytes:
        if operand[0] == "/":
            self.reg = int(operand[1])
            return b""
        if operand[0] == "J":
            return bytes(1 if operand == "J8" else 4)  # to what follows; generate.py may lengthen
        kind = operand[1]
        if kind == "3":
            return bytes([self.random.randrange(8)])
        if kind == "4":
            return bytes([self.random.randrange(16)])
        if kind == "n":
            number = self.random.randrange(256)
            return bytes([5 if number in (3, 0x80) else number])
        if kind == "b":
            edge = self.random.random() < 0.3
            return bytes([self.random.choice(_EDGE_BYTES) if edge else self.random.getrandbits(8)])
        size = self.size if kind == "v" else min(self.size, 4)
        return self.random.getrandbits(8 * size).to_bytes(size, "little")

    def _in_opcode(self, operand: str) -> int:
        number = self._register("!" in operand, self._stack_size())
        if number >= 8:
            self.rex |= 0x41
        return number & 7

    def _stack_size(self) -> int:
        return 8 if self.form.by_mode else self.size

    def _register(self, written: bool, size: int) -> int:
        """Choose a general register; a held one is not written."""
        number = self.random.randrange(self.plan.registers)
        if not written:
            return number
        for _ in range(8):
            real = number & 3 if size == 1 and 4 <= number < 8 else number
            if number not in self.plan.held and real not in self.plan.held:
                return number
            number = self.random.randrange(self.plan.registers)
        raise UnfitError

    def _general(self, text: str) -> None:
        kind, size, aligned, written = _operand(text)
        if kind == "G":
            self._set_reg(self._register(written, self.size))
        elif kind == "B":
            self.vvvv = self._register(written, self.size)
        elif kind == "V":
            self._set_reg(self.random.randrange(self.plan.registers))
        elif kind == "P":
            self.reg = self.random.randrange(8)
        else:
            self._set_rm(kind, size or self.size, aligned, written)

    def _set_reg(self, number: int) -> None:
        self.reg = number & 7
        if number >= 8:
            self.rex |= 0x44

    def _set_rm(self, kind: str, size: int, aligned: bool, written: bool) -> None:
        if kind == "M" or (kind in "EWQ" and self.random.random() < 0.5):
            mode, tail, rm, index = self._memory(size, aligned)
            self.modrm = (mode, tail, rm)
            del index
            return
        if kind in "ER":
            number = self._register(written, size)
        else:
            number = self.random.randrange(8 if kind in "QN" else self.plan.registers)
        if number >= 8:
            self.rex |= 0x41
        self.modrm = (3, b"", number & 7)

    def _memory(self, size: int, aligned: bool) -> tuple[int, bytes, int, None]:
        """ModRM's mod, what follows it, and rm, for an access of `size` bytes."""
        linear = target(self.random, size, aligned)
        way = self.random.random()
        if way < 0.12:
            return 0, self._absolute(linear), self._absolute_rm(), None
        if self.bits == 64 and way < 0.2:
            return 0, linear.to_bytes(4, "little"), 5, None  # RIP-relative: _assemble subtracts
        if self.bits == 64 and way < 0.26 and not self.form.vex:
            self.prefixes += b"\x65"
            return 0, self._absolute(linear - DATA), self._absolute_rm(), None
        base = self.random.choice(tuple(self.plan.held))
        if way < 0.6 and base != _RSP:
            return self._by_base(linear, base)
        return self._by_index(linear, base)

    def _absolute(self, linear: int) -> bytes:
        sib = b"\x25" if self.bits == 64 else b""
        return sib + (linear & 0xFFFF_FFFF).to_bytes(4, "little")

    def _absolute_rm(self) -> int:
        return 4 if self.bits == 64 else 5

    def _by_base(self, linear: int, base: int) -> tuple[int, bytes, int, None]:
        mode, tail = self._displacement(linear - self.plan.held[base], base)
        if base >= 8:
            self.rex |= 0x41
        if base & 7 == _RSP:
            return mode, b"\x24" + tail, 4, None
        return mode, tail, base & 7, None

    def _by_index(self, linear: int, base: int) -> tuple[int, bytes, int, None]:
        others = [number for number in self.plan.held if number != _RSP]
        index = self.random.choice(others) if others and self.random.random() < 0.7 else _RSP
        scale = self.random.randrange(4)
        amount = 0 if index == _RSP else self.plan.held[index] << scale
        difference = self._wrapped(linear - self.plan.held[base] - amount)
        if not -1 << 31 <= difference < 1 << 31:
            index, difference = _RSP, linear - self.plan.held[base]
        mode, tail = self._displacement(difference, base)
        if base >= 8:
            self.rex |= 0x41
        if index >= 8:
            self.rex |= 0x42
        return mode, bytes([scale << 6 | (index & 7) << 3 | base & 7]) + tail, 4, None

    def _wrapped(self, value: int) -> int:
        """As a signed number of the address size."""
        half = 1 << self.bits - 1
        return (value + half) % (2 * half) - half

    def _displacement(self, value: int, base: int) -> tuple[int, bytes]:
        value = self._wrapped(value)
        if value == 0 and base & 7 != 5:
            return 0, b""
        if -128 <= value < 128:
            return 1, value.to_bytes(1, "little", signed=True)
        return 2, value.to_bytes(4, "little", signed=True)

    # ---- bytes ----

    def _assemble(self, opcode: bytes, tail: bytes) -> bytes:
        body = b""
        if self.modrm is not None or any(w[0] == "/" for w in self.form.operands):
            body = self._modrm_bytes()
        head = self._vex() if self.form.vex else self._legacy()
        code = head + opcode
        if self._is_relative():
            at = self.plan.here() + len(code) + len(body) + len(tail)
            linear = int.from_bytes(body[1:], "little")
            body = body[:1] + (linear - at).to_bytes(4, "little", signed=True)
        return code + body + tail

    def _is_relative(self) -> bool:
        return self.bits == 64 and self.modrm is not None and self.modrm[0::2] == (0, 5)

    def _modrm_bytes(self) -> bytes:
        mode, tail, rm = self.modrm or (3, b"", 0)
        return bytes([mode << 6 | self.reg << 3 | rm]) + tail

    def _legacy(self) -> bytes:
        if self.size == 8 and not self.form.by_mode:
            self.rex |= 0x48
        if self.bits == 64 and self.random.random() < 0.06:
            self.rex |= 0x40  # one that says nothing but what AH to BH are
            self._keep_bytes_safe()
        prefix = self.prefixes
        if self.size == 2 and (self.form.sizes or self.form.by_mode):
            prefix += b"\x66"
        if self.form.prefix:
            prefix += bytes([self.form.prefix])
        if self.form.family == "integer" and self.random.random() < 0.03:
            prefix = b"\xf0" + prefix  # LOCK: most forms refuse it
        return prefix + (bytes([self.rex]) if self.rex else b"")

    def _keep_bytes_safe(self) -> None:
        """With REX, byte registers 4 to 7 are SPL to DIL, which may be held."""
        if self.size == 1 or any(operand[:2] == "E1" for operand in self.form.operands):
            raise UnfitError

    def _vex(self) -> bytes:
        """The three-byte prefix, with R, X and B inverted."""
        pp = {"00": 0, "66": 1, "f3": 2, "f2": 3}[self.form.vex[:2]]
        table = {"38": 2, "3a": 3}[self.form.vex[3:]]
        wide = 0x80 if self.size == 8 else 0
        inverted = (~self.rex & 7) << 5
        return bytes([0xC4, inverted | table, wide | (~self.vvvv & 15) << 3 | pp])
