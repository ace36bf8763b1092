"""Linux's ORC tables: how to find a function's caller without a frame pointer.

Linux, arch/x86/include/asm/orc_types.h and Documentation/arch/x86/orc-unwinder.rst: for each range
of code an entry of six bytes says from which register, plus what, the caller's stack pointer
follows, and where RBP was saved. `.orc_unwind_ip` holds the ranges' starts, as offsets from their
own places.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Any, Final

_ENTRY: Final = struct.Struct("<hhH")


class Base(IntEnum):
    """What a stack pointer is reckoned from."""

    UNDEFINED = 0
    PREV_SP = 1
    DX = 2
    DI = 3
    BP = 4
    SP = 5
    R10 = 6
    R13 = 7
    BP_INDIRECT = 8
    SP_INDIRECT = 9


class Kind(IntEnum):
    """What lies at the caller's stack pointer."""

    CALL = 0
    REGS = 1
    REGS_PARTIAL = 2


class Form(Enum):
    """How the kind and two flags share the entry's last byte; each Linux release knows one.

    The image does not tell which one it is: its entries do, since nearly all are calls.
    """

    FIRST = auto()
    """Up to 6.2: kind in bits 8 and 9, end of the stack in bit 10."""
    SIGNAL = auto()
    """6.3: bit 10 marks frames of interrupts, bit 11 the end."""
    SPLIT = auto()
    """From 6.4: kinds in bits 8 to 10 are undefined, end, call, registers, some registers."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How to go from one frame to its caller."""

    sp_base: Base
    sp_offset: int
    bp_base: Base
    bp_offset: int
    kind: Kind
    ends: bool


class OrcTable:
    """The rules of one kernel, by link address."""

    def __init__(self, starts: Sequence[int], rules: bytes) -> None:
        """`starts` rise; `rules` has six bytes for each."""
        self._starts: Final = starts
        self._rules: Final = rules
        self._form: Final = _form_of(rules)

    @classmethod
    def of(cls, elf: Any) -> "OrcTable | None":
        """Read the tables of a kernel; None where it has none."""
        places = elf.get_section_by_name(".orc_unwind_ip")
        rules = elf.get_section_by_name(".orc_unwind")
        if places is None or rules is None or places["sh_size"] % 4:
            return None
        base, offsets = places["sh_addr"], array("i", places.data())
        starts = [base + 4 * index + offset for index, offset in enumerate(offsets)]
        data = rules.data()
        if starts != sorted(starts) or len(data) != _ENTRY.size * len(starts):
            return None
        return cls(array("Q", starts), data)

    def at(self, address: int) -> Rule | None:
        """Return the rule for the instruction at `address`, None where nobody knows."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        sp_offset, bp_offset, word = _ENTRY.unpack_from(self._rules, index * _ENTRY.size)
        sp_base, bp_base, flags = word & 15, word >> 4 & 15, word >> 8
        kind, ends = _KINDS[self._form](flags)
        if not 0 <= kind <= Kind.REGS_PARTIAL or max(sp_base, bp_base) > Base.SP_INDIRECT:
            return None
        ends = ends or sp_base == Base.UNDEFINED
        return Rule(Base(sp_base), sp_offset, Base(bp_base), bp_offset, Kind(kind), ends)


_KINDS: Final[dict[Form, Callable[[int], tuple[int, bool]]]] = {
    Form.FIRST: lambda flags: (flags & 3, bool(flags & 4)),
    Form.SIGNAL: lambda flags: (flags & 3, bool(flags & 8)),
    Form.SPLIT: lambda flags: (max((flags & 7) - 2, 0), flags & 7 < 2),
}


def _form_of(rules: bytes) -> Form:
    flags = rules[5 :: _ENTRY.size]
    calls = sum(1 for byte in flags if byte & 7 == 2)
    if 2 * calls > len(flags):
        return Form.SPLIT
    return Form.SIGNAL if any(byte & 8 for byte in flags) else Form.FIRST
