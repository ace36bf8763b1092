"""Boot page tables of a PV guest: 4 KiB pages of machine frames; they map themselves read-only."""

from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from vmm.boot.plan import Placement

PAGE, ENTRIES = 4096, 512
LINK, WRITABLE, READ_ONLY = 0x67, 0x67, 0x65  # P, W, U, A, D
_SHIFTS: Final = (39, 30, 21)


def tables_needed(linear: int, pages: int) -> int:
    """Return how many tables map so many pages from `linear` on, the root included."""
    first, last = linear >> 12, (linear >> 12) + pages - 1
    return 1 + sum((last >> shift - 12) - (first >> shift - 12) + 1 for shift in _SHIFTS)


class PageTables:
    """Tables in pseudo-physical frames from `first` on; the first is the root."""

    def __init__(self, p2m: "array[int]", first: int) -> None:
        """Only the root exists."""
        self._p2m: Final = p2m
        self._first: Final = first
        self._tables: list[array[int]] = [_empty()]
        self._by_place: dict[tuple[int, int], int] = {}
        self._leaves: list[tuple[int, int, int]] = []
        """Table, index, pseudo-physical frame."""

    def map(self, linear: int, frames: Sequence[int], *, without: range = range(0)) -> None:
        """Map frames from `linear` on, one behind the other."""
        for offset, pfn in enumerate(frames):
            if pfn not in without:
                at = linear + offset * PAGE
                self._leaves.append((self._table(at), at >> 12 & 511, pfn))

    def _table(self, linear: int) -> int:
        """Return the number of the L1 table for an address; make it and those above."""
        table = 0
        for shift in _SHIFTS:
            key = shift, linear >> shift
            if key not in self._by_place:
                self._tables.append(_empty())
                number = self._by_place[key] = len(self._tables) - 1
                self._tables[table][linear >> shift & 511] = self._entry(number, LINK)
            table = self._by_place[key]
        return table

    def _entry(self, number: int, flags: int) -> int:
        return self._p2m[self._first + number] * PAGE | flags

    def placements(self, *, read_only: range) -> Iterator[Placement]:
        """Yield the tables; frames in `read_only` are mapped so."""
        for table, index, pfn in self._leaves:
            flags = READ_ONLY if pfn in read_only else WRITABLE
            self._tables[table][index] = self._p2m[pfn] * PAGE | flags
        for number, entries in enumerate(self._tables):
            yield Placement((self._first + number) * PAGE, entries.tobytes(), "boot page table")


def _empty() -> "array[int]":
    return array("Q", bytes(PAGE))
