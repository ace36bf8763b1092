"""The instructions that sequences are made of: `forms.txt`, read."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

FLAG_BITS: Final = {"o": 0x800, "s": 0x80, "z": 0x40, "a": 0x10, "p": 4, "c": 1, "d": 0x400}
ALL_FLAGS: Final = 0x8D5

FAMILIES: Final = ("integer", "string", "sse", "float", "mmx", "x87")


@dataclass(frozen=True, slots=True)
class Form:
    """One line of the tables."""

    name: str
    family: str
    prefix: int
    """The mandatory prefix, 0 for none."""
    opcode: bytes
    vex: str
    operands: tuple[str, ...]
    sizes: tuple[int, ...]
    by_mode: bool
    """The size is that of the stack, as for PUSH."""
    reads: int
    writes: int
    undefined: int
    conditional: bool
    """A condition code is in the opcode."""
    implied: tuple[str, ...]


def _flags(text: str) -> tuple[int, int, int, bool]:
    sets, kind = {"<": 0, "+": 0, "-": 0}, "+"
    if text == "-":
        return 0, 0, 0, False
    if text == "<cc":
        return 0, 0, 0, True
    for letter in text:
        if letter in sets:
            kind = letter
        else:
            sets[kind] |= FLAG_BITS[letter]
    return sets["<"], sets["+"], sets["-"], False


_IMPLIED: Final = ("rax", "rax1", "rax2", "rdx", "rcx", "xmm0")


def _form(family: str, opcode: str, operands: str, sizes: str, flags: str, name: str) -> Form:
    vex = ""
    prefix = 0
    if opcode.startswith("vex:"):
        vex, opcode = opcode[4:9], opcode[10:]
    elif "." in opcode:
        head, opcode = opcode.split(".")
        prefix = int(head, 16)
    words = () if operands == "-" else tuple(operands.split(","))
    numbers = tuple(int(letter) for letter in sizes if letter.isdigit())
    return Form(
        name, family, prefix, bytes.fromhex(opcode), vex,
        tuple(w for w in words if w not in _IMPLIED), numbers, sizes == "d", *_flags(flags),
        tuple(w for w in words if w in _IMPLIED),
    )  # fmt: skip


@cache
def _lines() -> tuple[str, ...]:
    text = (files("vmm.testing.fuzz") / "forms.txt").read_text()
    return tuple(line for line in text.splitlines() if line and not line.startswith("#"))


@cache
def forms(family: str, bits: int) -> tuple[Form, ...]:
    """Return the forms of a family that exist in code of `bits`."""
    found, section, here = [], "", True
    for line in _lines():
        if line.startswith("== "):
            section = line[3:]
        elif line.startswith("["):
            here = line in ("[both]", f"[{bits}]")
        elif section == family and here:
            form = _form(family, *line.split())
            if form.name != "skip":
                found.append(form)
    return tuple(found)


@cache
def opcodes_with(*operands: str) -> frozenset[tuple[int, bytes]]:
    """Return (mandatory prefix, opcode) of the forms that have an operand beginning like this."""
    every = (form for family in FAMILIES for form in forms(family, 64) if not form.vex)
    return frozenset(
        (form.prefix, form.opcode)
        for form in every
        if any(word.startswith(operands) for word in form.operands)
    )
