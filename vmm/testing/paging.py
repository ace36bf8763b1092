"""Guest page tables from a short description.

The scheme maps the first 4 GiB one to one, in its largest common page; lines change single pages:

    LINEAR[+SIZE] [-> PHYSICAL] RIGHTS

RIGHTS is "none" (not present) or letters in any order: r (present), w, x, u (user), g (global), a
and d (accessed and dirty already), z (a reserved bit is set); "key=N" gives a protection key.
Numbers are hexadecimal with 0x. Pages of lines are 4 KiB.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from vmm.errors import UsageError
from vmm.testing.layout import TABLES, TABLES_END

PAGE: Final = 4096
_GIB4: Final = 1 << 32
_P, _W, _U, _A, _D, _PS, _G = 1, 2, 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8
_NX, _RESERVED = 1 << 63, 1 << 51
_LETTERS: Final = {"w": _W, "u": _U, "g": _G, "a": _A, "d": _D}
_LINE: Final = re.compile(
    r"(?P<linear>\w+)(?:\s*\+\s*(?P<size>\w+))?(?:\s*->\s*(?P<physical>\w+))?"
    r"\s+(?P<rights>none|[rwxugadz]+)(?:\s+key=(?P<key>\d+))?"
)


class Scheme(StrEnum):
    """A kind of paging."""

    NONE = "none"
    BITS32 = "32bit"
    PAE = "pae"
    LEVEL4 = "4level"
    LEVEL5 = "5level"


@dataclass(frozen=True, slots=True)
class Shape:
    """Shifts of the levels from the root down, bytes of an entry, and log2 of entries a table."""

    shifts: tuple[int, ...]
    entry: int
    index_bits: int


_SHAPES: Final = {
    Scheme.BITS32: Shape((22, 12), 4, 10),
    Scheme.PAE: Shape((30, 21, 12), 8, 9),
    Scheme.LEVEL4: Shape((39, 30, 21, 12), 8, 9),
    Scheme.LEVEL5: Shape((48, 39, 30, 21, 12), 8, 9),
}


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of a description; `bits` is the leaf entry without its address."""

    linear: int
    size: int
    physical: int
    bits: int


def parse_line(line: str) -> Mapping:
    """Read one line. Raises UsageError naming it."""
    found = _LINE.fullmatch(line.strip())
    try:
        if found is None:
            raise ValueError
        linear = int(found["linear"], 0)
        size = int(found["size"] or "0x1000", 0)
        physical = int(found["physical"], 0) if found["physical"] else linear
    except ValueError:
        raise UsageError(
            f"page line {line.strip()!r} is not LINEAR[+SIZE] [-> PHYSICAL] RIGHTS; "
            f"write 0x200000+0x2000 -> 0x5000 rwu"
        ) from None
    if (linear | physical | size) % PAGE or size <= 0:
        raise UsageError(f"page line {line.strip()!r}: addresses and sizes are multiples of 0x1000")
    return Mapping(linear, size, physical, _bits(found["rights"], int(found["key"] or 0)))


def _bits(rights: str, key: int) -> int:
    if rights == "none":
        return 0
    value = _P | sum(_LETTERS.get(letter, 0) for letter in set(rights))
    if "x" not in rights:
        value |= _NX
    if "z" in rights:
        value |= _RESERVED
    return value | key << 59


class PageTables:
    """The tables of one description, as bytes to be put at guest-physical TABLES."""

    def __init__(self, scheme: Scheme, lines: Sequence[str] = (), *, user: bool = False) -> None:
        """Build; `user` opens the one-to-one mapping to ring 3. Raises UsageError."""
        self._shape = _SHAPES[scheme]
        self.image = bytearray(PAGE)
        self._user = _U if user else 0
        self._map_all()
        for line in lines:
            self._map(parse_line(line))

    @property
    def root(self) -> int:
        """CR3."""
        return TABLES

    def _map_all(self) -> None:
        leaf = self._shape.shifts[-2]
        for linear in range(0, _GIB4, 1 << leaf):
            at = self._descend(linear, leaf)
            self._store(at, linear | _PS | _A | _D | _P | _W | self._user)

    def _map(self, mapping: Mapping) -> None:
        for offset in range(0, mapping.size, PAGE):
            at = self._descend(mapping.linear + offset, 12)
            bits = mapping.bits
            if self._shape.entry == 4:  # no NX, no keys, no reserved bits in a 4 KiB entry
                bits &= 0xFFF
            self._store(at, (mapping.physical + offset) | bits if bits & _P else 0)

    def _descend(self, linear: int, leaf: int) -> int:
        """Return the offset of the entry for `linear` at level `leaf`, making the tables above."""
        table = 0
        for shift in self._shape.shifts:
            index = linear >> shift & ((1 << self._shape.index_bits) - 1)
            at = table + index * self._shape.entry
            if shift == leaf:
                return at
            table = self._below(at, shift)
        raise AssertionError(leaf)

    def _below(self, at: int, shift: int) -> int:
        entry = self._load(at)
        if entry & _P and not entry & _PS:
            return (entry & 0xF_FFFF_F000) - TABLES
        table = self._new_table()
        if entry & _P:
            self._split(table, entry, shift)
        elif shift == self._shape.shifts[0] and self._shape.shifts[0] == 30:
            self._store(at, TABLES + table | _P)  # a PDPTE of PAE has no other bits
            return table
        self._store(at, TABLES + table | _P | _W | _U | _A)
        return table

    def _split(self, table: int, entry: int, shift: int) -> None:
        small = self._shape.shifts[self._shape.shifts.index(shift) + 1]
        base = entry & ~((1 << shift) - 1)
        bits = entry & 0x7F
        for n in range(1 << shift - small):
            self._store(table + n * self._shape.entry, base + (n << small) | bits)

    def _new_table(self) -> int:
        at = len(self.image)
        if at + PAGE > TABLES_END - TABLES:
            most = (TABLES_END - TABLES) // PAGE
            raise UsageError(f"the page lines need more than {most} tables; map fewer regions")
        self.image += bytes(PAGE)
        return at

    def _load(self, at: int) -> int:
        return int.from_bytes(self.image[at : at + self._shape.entry], "little")

    def _store(self, at: int, value: int) -> None:
        size = self._shape.entry
        self.image[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
