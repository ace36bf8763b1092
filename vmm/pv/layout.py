"""Structures in guest memory as tables: one row a member, for Python and for the guests' C alike.

Members are little-endian and naturally aligned, and nothing is implied: a table whose members
would need padding is refused when it is made.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_BYTES: Final = {"u8": 1, "i8": 1, "u16": 2, "u32": 4, "i32": 4, "u64": 8, "i64": 8}
_C: Final = {
    "u8": "uint8_t", "i8": "int8_t", "u16": "uint16_t", "u32": "uint32_t", "i32": "int32_t",
    "u64": "uint64_t", "i64": "int64_t",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its kind ("u32"), how many of them, and what it says."""

    name: str
    kind: str
    words: str
    count: int = 1

    @property
    def width(self) -> int:
        """Bytes of one of them."""
        return _BYTES[self.kind]


class Layout:
    """A structure of `size` bytes at a multiple of `align`; `offsets` by member name."""

    def __init__(self, name: str, size: int, align: int, members: tuple[Member, ...]) -> None:
        """Lay the members out one behind another. Raises ValueError if they do not fit so."""
        self.name: Final = name
        self.size: Final = size
        self.align: Final = align
        self.members: Final = members
        self.offsets: Final[dict[str, int]] = {}
        at = 0
        for member in members:
            if at % member.width:
                raise ValueError(f"{name}.{member.name} at {at} is not aligned; add a member")
            self.offsets[member.name] = at
            at += member.width * member.count
        if at > size:
            raise ValueError(f"{name} has {at} bytes in its members, and only {size} in all")

    def c_lines(self, prefix: str) -> Iterator[str]:
        """The structure in C, with its size checked by the compiler."""
        yield f"struct {prefix}_{self.name} {{"
        at = 0
        for member in self.members:
            array = f"[{member.count}]" if member.count > 1 else ""
            declared = f"    volatile {_C[member.kind]} {member.name}{array};"
            yield f"{declared}  /* {member.words} */"
            at += member.width * member.count
        if at < self.size:
            yield f"    uint8_t rest[{self.size - at}];"
        yield f"}} __attribute__((aligned({self.align})));"
        yield f'_Static_assert(sizeof(struct {prefix}_{self.name}) == {self.size}, "ABI");'
