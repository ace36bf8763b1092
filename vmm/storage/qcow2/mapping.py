"""Where each cluster of the disk lies in the file: the L1 table and its L2 tables.

Changed tables stay in memory until `write_back()`; the file never points to what it does not have.
"""

import sys
from array import array
from collections.abc import Iterator
from typing import Final

from vmm.storage.hostfile import HostFile
from vmm.storage.image import StorageError
from vmm.storage.qcow2.header import Header
from vmm.storage.qcow2.refcounts import Refcounts

COPIED: Final = 1 << 63
"""Exactly one reference: may be written in place."""
COMPRESSED: Final = 1 << 62
ZERO: Final = 1
OFFSET: Final = 0x00FF_FFFF_FFFF_FE00
_CACHED: Final = 64 << 20  # bytes of unchanged L2 tables that are kept


def _swapped(table: "array[int]") -> "array[int]":
    """Between the file's big-endian numbers and ours."""
    if sys.byteorder == "little":
        table = table[:]
        table.byteswap()
    return table


class Mapping:
    """L2 entries by cluster number of the disk; an absent table is all zero."""

    def __init__(self, file: HostFile, header: Header, refcounts: Refcounts) -> None:
        """Read the L1 table. Raises StorageError."""
        self._file: Final = file
        self._refcounts: Final = refcounts
        self._cluster: Final = header.cluster_size
        self._l1_at: Final = header.l1_offset
        self._per_table: Final = self._cluster // 8
        self._shift: Final = header.cluster_bits - 3
        self._l1 = self._load(header.l1_offset, header.l1_size)
        self._tables: dict[int, array[int]] = {}
        self._dirty: set[int] = set()
        self._dirty_l1: set[int] = set()

    def get(self, cluster: int) -> int:
        """Return the entry of `cluster`, 0 if it has none."""
        place = cluster >> self._shift
        table = self._tables.get(place)
        if table is None:
            if not self._l1[place] & OFFSET:
                return 0
            table = self._table(place)
        return table[cluster & (self._per_table - 1)]

    def set(self, cluster: int, entry: int) -> None:
        """Change the entry of `cluster`, in a table that is ours alone."""
        place = cluster >> self._shift
        if place not in self._dirty:
            self._own(place)
        self._tables[place][cluster & (self._per_table - 1)] = entry

    @property
    def is_dirty(self) -> bool:
        """Whether write_back() has something to write."""
        return bool(self._dirty)

    def write_back(self) -> None:
        """Write the changed L2 tables, and when they are there the L1 entries."""
        for place in sorted(self._dirty):
            data = _swapped(self._tables[place]).tobytes()
            self._file.write(self._l1[place] & OFFSET, data)
        self._dirty.clear()
        if self._dirty_l1:
            self._file.sync()
        for place in sorted(self._dirty_l1):
            self._file.write(self._l1_at + 8 * place, self._l1[place].to_bytes(8, "big"))
        self._dirty_l1.clear()
        self._trim()

    def tables(self) -> Iterator[int]:
        """Yield the offset of each L2 table in the file."""
        return (entry & OFFSET for entry in self._l1 if entry & OFFSET)

    def entries(self) -> Iterator[int]:
        """Yield the entries that are not zero; reads all tables. Raises StorageError."""
        for place, entry in enumerate(self._l1):
            if entry & OFFSET:
                yield from filter(None, self._table(place))
                self._trim()

    def _table(self, place: int) -> "array[int]":
        if (known := self._tables.get(place)) is not None:
            return known
        offset = self._l1[place] & OFFSET
        if offset % self._cluster or offset >= self._file.size:
            raise StorageError(f"{self._file.path}: an L2 table at {offset:#x}: it is corrupt")
        table = self._load(offset, self._per_table)
        self._tables[place] = table
        return table

    def _own(self, place: int) -> None:
        """Make table `place` one that may be changed: a new one, or a copy of a shared one."""
        entry = self._l1[place]
        if entry & OFFSET:
            self._table(place)
        else:
            self._tables[place] = array("Q", bytes(self._cluster))
        if not entry & COPIED:
            at = self._refcounts.allocate() * self._cluster
            if entry & OFFSET:
                self._refcounts.release((entry & OFFSET) // self._cluster)
            self._l1[place] = at | COPIED
            self._dirty_l1.add(place)
        self._dirty.add(place)

    def _load(self, offset: int, entries: int) -> "array[int]":
        return _swapped(array("Q", self._file.read(offset, 8 * entries)))

    def _trim(self) -> None:
        """Forget the oldest unchanged tables, where there are too many."""
        most = max(_CACHED // self._cluster, 2)
        for place in [p for p in self._tables if p not in self._dirty]:
            if len(self._tables) <= most:
                break
            del self._tables[place]
