"""Entries of page tables: the guest's, in their 64- and 32-bit forms, and EPT's; memory types.

Layouts are in "4-Level Paging and 5-Level Paging", "32-Bit Paging" and "EPT Translation Mechanism".
A Word with a memory type raises ValueError when a reserved type is read by name: test
`has_valid_type` first where a guest may have written it.
"""

from enum import IntEnum
from typing import Final

from hwmodel.arch.word import Word, bits, field, flag

ENTRIES: Final = 512
"""Entries of a table with 8-byte entries."""
ENTRIES_32: Final = 1024
"""Entries of a table with 4-byte entries."""


class MemoryType(IntEnum):
    """How an access to memory is cached and ordered ("Memory Types and Their Properties")."""

    UC = 0
    WC = 1
    WT = 4
    WP = 5
    WB = 6
    UC_MINUS = 7
    """Only in the PAT: UC that an MTRR may turn to WC."""


class EptMemoryType(IntEnum):
    """The memory types that an EPT entry may name."""

    UC = 0
    WC = 1
    WT = 4
    WP = 5
    WB = 6


class TableEntry(Word):
    """An entry that points to another table (levels 5 to 2; PAE's PDPTEs have fewer bits)."""

    present = flag(0)
    write = flag(1)
    user = flag(2)
    pwt = flag(3)
    pcd = flag(4)
    accessed = flag(5)
    page_size = flag(7)
    frame = bits(51, 12)
    nx = flag(63)


class Pte(Word):
    """An entry that maps a 4 KiB page, 8 bytes long."""

    present = flag(0)
    write = flag(1)
    user = flag(2)
    pwt = flag(3)
    pcd = flag(4)
    accessed = flag(5)
    dirty = flag(6)
    pat = flag(7)
    global_ = flag(8)
    frame = bits(51, 12)
    protection_key = bits(62, 59)
    nx = flag(63)


class LargePte(Word):
    """An entry that maps a 2 MiB or 1 GiB page; the low bits of `frame` must be 0."""

    present = flag(0)
    write = flag(1)
    user = flag(2)
    pwt = flag(3)
    pcd = flag(4)
    accessed = flag(5)
    dirty = flag(6)
    page_size = flag(7)
    global_ = flag(8)
    pat = flag(12)
    frame = bits(51, 13)
    """In units of 8 KiB, since bit 12 is PAT."""
    protection_key = bits(62, 59)
    nx = flag(63)


class Pte32(Word):
    """An entry of 32-bit paging that maps a 4 KiB page (or, at level 2, points to a table)."""

    present = flag(0)
    write = flag(1)
    user = flag(2)
    pwt = flag(3)
    pcd = flag(4)
    accessed = flag(5)
    dirty = flag(6)
    pat = flag(7)
    """At level 2: the page-size bit."""
    global_ = flag(8)
    frame = bits(31, 12)


class LargePte32(Word):
    """An entry of 32-bit paging that maps a 4 MiB page, with PSE-36's high address bits."""

    present = flag(0)
    write = flag(1)
    user = flag(2)
    pwt = flag(3)
    pcd = flag(4)
    accessed = flag(5)
    dirty = flag(6)
    page_size = flag(7)
    global_ = flag(8)
    pat = flag(12)
    frame_high = bits(20, 13)
    """Bits 39:32 of the address."""
    frame = bits(31, 22)
    """Bits 31:22 of the address."""


class EptTable(Word):
    """An EPT entry that points to another table."""

    read = flag(0)
    write = flag(1)
    execute = flag(2)
    page_size = flag(7)
    accessed = flag(8)
    execute_user = flag(10)
    frame = bits(51, 12)


class EptLeaf(Word):
    """An EPT entry that maps a page."""

    read = flag(0)
    write = flag(1)
    execute = flag(2)
    memory_type = field(5, 3, EptMemoryType)
    ignore_pat = flag(6)
    page_size = flag(7)
    accessed = flag(8)
    dirty = flag(9)
    execute_user = flag(10)
    frame = bits(51, 12)
    verify_guest_paging = flag(57)
    paging_write_access = flag(58)
    supervisor_shadow_stack = flag(60)
    sub_page_write = flag(61)
    suppress_ve = flag(63)

    @property
    def is_present(self) -> bool:
        """Whether any access is granted ("present" is the OR of the three)."""
        return bool(self & 0b111)

    @property
    def has_valid_type(self) -> bool:
        """Whether the memory type is one of those that exist, so that it can be read by name."""
        return self >> 3 & 7 in set(EptMemoryType)


class EptPointer(Word):
    """The EPTP: where an EPT starts; the walk length is stored less one."""

    memory_type = field(2, 0, EptMemoryType)
    walk_length_minus_1 = bits(5, 3)
    accessed_dirty = flag(6)
    supervisor_shadow_stack = flag(7)
    frame = bits(51, 12)


class InvVpid(IntEnum):
    """What INVVPID invalidates ("INVVPID: Invalidate Translations Based on VPID")."""

    ADDRESS = 0
    SINGLE_CONTEXT = 1
    ALL_CONTEXTS = 2
    SINGLE_CONTEXT_RETAINING_GLOBALS = 3


class InvEpt(IntEnum):
    """What INVEPT invalidates ("INVEPT: Invalidate Translations Derived from EPT")."""

    SINGLE_CONTEXT = 1
    ALL_CONTEXTS = 2
