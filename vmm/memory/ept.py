"""The EPT that the hypervisor keeps for a VM: tables in machine memory that no guest can reach.

Guest-physical memory is mapped in the largest pages that fit its place ("EPT Translation
Mechanism"); what is not mapped is a device, and an access to it a violation.
"""

from dataclasses import dataclass
from typing import Final

from hwmodel.arch.paging import ENTRIES, EptLeaf, EptMemoryType, EptPointer, EptTable
from hwmodel.mem.ram import PAGE, Ram

LEAF_LEVELS: Final = {PAGE: 1, PAGE << 9: 2, PAGE << 18: 3}
"""Bytes of a page, and the level of the entry that maps it."""
LARGEST_PAGE: Final = PAGE << 9  # what a host with transparent huge pages has
_PAGE_SIZE_BIT: Final = int(EptLeaf.of(page_size=1))
_PRESENT: Final = 7
_FRAME: Final = (1 << 52) - PAGE


@dataclass(frozen=True, slots=True)
class Slot:
    """Guest-physical memory [gpa, gpa+size) at host-physical `hpa`; bytes, 4 KiB aligned."""

    gpa: int
    size: int
    hpa: int
    writable: bool = True


class Ept:
    """Tables for `slots`, `levels` deep (4 or 5), in the pages [base, base + `size`) of `ram`.

    With `mode_based` control, user and supervisor pages get the right to execute alike. `used`
    entries have accessed and dirty flags from the start, as KVM's: where nobody reads them, what
    a walk finds must not depend on walks that a snapshot knows nothing of. The caller does the
    INVEPT after a change.
    """

    def __init__(
        self, ram: Ram, base: int, size: int, slots: list[Slot], *, levels: int = 4,
        largest: int = LARGEST_PAGE, mode_based: bool = False, used: bool = False,
    ) -> None:  # fmt: skip
        """Build them. Raises MemoryError if the pages do not suffice: `pages_for` says how many."""
        self._ram: Final = ram
        self._free = list(range(base + size - PAGE, base - PAGE, -PAGE))
        self._levels: Final = levels
        self._largest: Final = largest
        self._used: Final = int(used)
        self._execute: Final = {"execute": 1, "execute_user": int(mode_based)}
        self.root: Final = self._table()
        for slot in slots:
            self.map(slot)

    def pointer(self, *, accessed_dirty: bool = True) -> int:
        """Return the EPTP for these tables."""
        return int(
            EptPointer.of(
                memory_type=EptMemoryType.WB, walk_length_minus_1=self._levels - 1,
                accessed_dirty=accessed_dirty, frame=self.root // PAGE,
            )
        )  # fmt: skip

    def map(self, slot: Slot) -> None:
        """Map a slot, in the largest pages that its place allows."""
        gpa, end, shift = slot.gpa, slot.gpa + slot.size, slot.hpa - slot.gpa
        while gpa < end:
            size = self._page_at(gpa, gpa + shift, end - gpa)
            self._set(gpa, self._leaf(gpa + shift, size, slot.writable), size)
            gpa += size

    def unmap_page(self, gpa: int) -> None:
        """Take one 4 KiB page away; a large page that holds it is mapped in smaller ones."""
        self.replace_page(gpa, 0)

    def page(self, hpa: int) -> int:
        """Return an entry that maps a 4 KiB page to `hpa`, writable."""
        return self._leaf(hpa, PAGE, writable=True)

    def replace_page(self, gpa: int, entry: int) -> int:
        """Make `entry` map one 4 KiB page (0: none does) and return the entry that did.

        Tables that map nothing any more are given back: a guest chooses the addresses.
        """
        table, index = self._table_for(gpa, PAGE), _index(gpa, 1)
        old = self._read(table, index)
        self._write(table, index, entry)
        if not entry:
            self._prune(gpa)
        return old

    def entry(self, gpa: int) -> tuple[int, int]:
        """Return the entry that maps `gpa`, or the one that is not present, and its level."""
        table = self.root
        for level in range(self._levels, 0, -1):
            entry = self._read(table, _index(gpa, level))
            if level == 1 or not entry & _PRESENT or entry & _PAGE_SIZE_BIT:
                return entry, level
            table = entry & _FRAME
        raise AssertionError("a walk ends at level 1")

    def _page_at(self, gpa: int, hpa: int, left: int) -> int:
        fitting = (
            size for size in sorted(LEAF_LEVELS, reverse=True)
            if size <= min(self._largest, left) and not (gpa | hpa) % size
        )  # fmt: skip
        return next(fitting)

    def _leaf(self, hpa: int, size: int, writable: bool) -> int:
        return int(
            EptLeaf.of(
                read=1, write=writable, memory_type=EptMemoryType.WB, page_size=size > PAGE,
                accessed=self._used, dirty=self._used and int(writable),
                frame=hpa // PAGE, **self._execute,
            )
        )  # fmt: skip

    def _set(self, gpa: int, entry: int, size: int) -> None:
        self._write(self._table_for(gpa, size), _index(gpa, LEAF_LEVELS[size]), entry)

    def _table_for(self, gpa: int, size: int) -> int:
        """Return the table whose entry maps a page of `size` at `gpa`; make what is not there."""
        table = self.root
        for level in range(self._levels, LEAF_LEVELS[size], -1):
            index = _index(gpa, level)
            upper = self._read(table, index)
            if not upper & _PRESENT or upper & _PAGE_SIZE_BIT:
                upper = self._split(upper, level)
                self._write(table, index, upper)
            table = upper & _FRAME
        return table

    def _prune(self, gpa: int) -> None:
        path = [self.root]
        for level in range(self._levels, 1, -1):
            path.append(self._read(path[-1], _index(gpa, level)) & _FRAME)
        for level, table in enumerate(reversed(path[1:]), start=1):
            if any(self._ram.view[table : table + PAGE]):
                return
            self._write(path[-level - 1], _index(gpa, level + 1), 0)
            self._free.append(table)

    def _split(self, large: int, level: int) -> int:
        """Return a pointer to a new table that maps what the entry at `level` mapped."""
        table = self._table()
        if large & _PRESENT:
            piece = PAGE << 9 * (level - 2)
            flags = large & ~_FRAME & (~_PAGE_SIZE_BIT if level == 2 else -1)
            for index in range(ENTRIES):
                self._write(table, index, (large & _FRAME) + index * piece | flags)
        return int(
            EptTable.of(
                read=1, write=1, accessed=self._used, frame=table // PAGE, **self._execute
            )
        )  # fmt: skip

    def _table(self) -> int:
        if not self._free:
            raise MemoryError("no page is left for EPT tables")
        at = self._free.pop()
        self._ram.view[at : at + PAGE] = bytes(PAGE)
        return at

    def _read(self, table: int, index: int) -> int:
        at = table + 8 * index
        return int.from_bytes(self._ram.view[at : at + 8], "little")

    def _write(self, table: int, index: int, entry: int) -> None:
        at = table + 8 * index
        self._ram.view[at : at + 8] = entry.to_bytes(8, "little")


def _index(gpa: int, level: int) -> int:
    return gpa >> 3 + 9 * level & ENTRIES - 1


def pages_for(slots: list[Slot], *, levels: int = 4, spare: int = 8) -> int:
    """Return how many pages the tables of `slots` take at most, `spare` ones for later maps."""
    tables = spare + 1
    for slot in slots:
        for level in range(1, levels):
            span = PAGE << 9 * level
            first, last = slot.gpa // span, (slot.gpa + slot.size - 1) // span
            tables += last - first + 1
    return tables
