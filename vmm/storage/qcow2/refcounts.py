"""Who uses which cluster of the file: reference counts, allocation, release.

Changes are made in memory and written by `write_back()`; a cluster that is given up is counted down
only by `release_pending()`, when nothing in the file points to it any more.
"""

from struct import Struct
from typing import Final

from vmm.storage.hostfile import HostFile
from vmm.storage.image import StorageError
from vmm.storage.qcow2.header import REFCOUNT_TABLE_AT, Header

_U64 = Struct(">Q")
_TABLE_FIELDS = Struct(">QI")
_BLOCK_OFFSET: Final = ~0x1FF


class Refcounts:
    """Clusters of the file by number: number * cluster size is the offset."""

    def __init__(self, file: HostFile, header: Header) -> None:
        """Read the table; blocks are read when they are needed. Raises StorageError."""
        self._file: Final = file
        self._cluster: Final = header.cluster_size
        self._bits: Final = 1 << header.refcount_order
        self.per_block: Final = self._cluster * 8 // self._bits
        self._table_at = header.refcount_table_offset
        size = header.refcount_table_clusters * self._cluster
        raw = file.read(self._table_at, size)
        self._table = [entry & _BLOCK_OFFSET for (entry,) in _U64.iter_unpack(raw)]
        self._blocks: dict[int, bytearray] = {}
        self._dirty: set[int] = set()
        self._dirty_entries: set[int] = set()
        self._moved = False
        self._pending: list[int] = []
        self._search = 0

    def count(self, cluster: int) -> int:
        """Return how many references there are to `cluster`."""
        number, index = divmod(cluster, self.per_block)
        block = self._block(number)
        return 0 if block is None else self._get(block, index)

    def allocate(self) -> int:
        """Take a free cluster, the next one in the file if possible; return its number."""
        cluster = self._find_free()
        self._set(cluster, 1)
        self._search = cluster + 1
        return cluster

    def release(self, cluster: int) -> None:
        """Give up one reference, as soon as the file's tables no longer have it."""
        self._pending.append(cluster)

    def take_back(self, cluster: int) -> None:
        """Undo an allocate() that nothing came of."""
        self._set(cluster, 0)
        self._search = min(self._search, cluster)

    @property
    def is_dirty(self) -> bool:
        """Whether write_back() has something to write."""
        return bool(self._dirty or self._dirty_entries or self._moved)

    def write_back(self) -> None:
        """Write blocks, then the table, then, if that has moved, the header's pointer to it."""
        for number in sorted(self._dirty):
            self._file.write(self._table[number], self._blocks[number])
        self._dirty.clear()
        if self._moved:
            self._write_moved_table()
        for entry in sorted(self._dirty_entries):
            self._file.write(self._table_at + 8 * entry, _U64.pack(self._table[entry]))
        self._dirty_entries.clear()

    def release_pending(self) -> list[int]:
        """Count down what was given up; return the clusters that are free now."""
        freed = []
        for cluster in self._pending:
            count = self.count(cluster)
            if count:
                self._set(cluster, count - 1)
            if count == 1:
                freed.append(cluster)
                self._search = min(self._search, cluster)
        self._pending.clear()
        return freed

    def _find_free(self) -> int:
        number, index = divmod(self._search, self.per_block)
        while True:
            block = self._block(number)
            if block is None:
                self._add_block(number)
                block = self._blocks[number]
            if (found := self._free_in(block, index)) is not None:
                return number * self.per_block + found
            number, index = number + 1, 0

    def _free_in(self, block: bytearray, index: int) -> int | None:
        """Return the first free entry of `block` from `index`."""
        if self._bits < 8:
            entries = range(index, self.per_block)
            return next((i for i in entries if not self._get(block, i)), None)
        width = self._bits // 8
        at = block.find(bytes(width), index * width)
        while at >= 0 and at % width:
            at = block.find(bytes(width), at - at % width + width)
        return at // width if at >= 0 else None

    def _block(self, number: int) -> bytearray | None:
        if (known := self._blocks.get(number)) is not None:
            return known
        at = self._table[number] if number < len(self._table) else 0
        if not at:
            return None
        if at % self._cluster or at >= self._file.size:
            raise StorageError(f"{self._file.path}: a refcount block at {at:#x}: it is corrupt")
        block = bytearray(self._file.read(at, self._cluster))
        self._blocks[number] = block
        return block

    def _add_block(self, number: int) -> None:
        """Make the first cluster of a range that has no counts yet the block of its counts."""
        if number >= len(self._table):
            self._grow(number)
            return
        self._new_block(number, number * self.per_block)
        self._set(number * self.per_block, 1)

    def _new_block(self, number: int, cluster: int) -> None:
        self._blocks[number] = bytearray(self._cluster)
        self._table[number] = cluster * self._cluster
        self._dirty.add(number)
        self._dirty_entries.add(number)

    def _grow(self, number: int) -> None:
        """Put a larger table behind everything counted so far, with blocks that count it."""
        first = number * self.per_block
        entries = self._cluster // 8
        old, old_clusters = self._table_at // self._cluster, len(self._table) // entries
        clusters = max(old_clusters * 2, 1)
        blocks = 1
        while blocks * self.per_block < clusters + blocks:
            blocks += 1
        while clusters * entries < number + blocks:
            clusters += 1
            blocks += blocks * self.per_block < clusters + blocks
        self._table += [0] * (clusters * entries - len(self._table))
        for place in range(blocks):
            self._new_block(number + place, first + clusters + place)
        for cluster in range(first, first + clusters + blocks):
            self._set(cluster, 1)
        self._table_at = first * self._cluster
        self._moved = True
        self._pending += range(old, old + old_clusters)

    def _write_moved_table(self) -> None:
        self._file.write(self._table_at, b"".join(map(_U64.pack, self._table)))
        self._dirty_entries.clear()
        self._file.sync()  # the header must not point to what is not there
        clusters = len(self._table) * 8 // self._cluster
        self._file.write(REFCOUNT_TABLE_AT, _TABLE_FIELDS.pack(self._table_at, clusters))
        self._moved = False

    def _get(self, block: bytearray, index: int) -> int:
        if self._bits < 8:
            at = index * self._bits
            return block[at >> 3] >> (at & 7) & ((1 << self._bits) - 1)
        width = self._bits // 8
        return int.from_bytes(block[index * width : (index + 1) * width], "big")

    def _set(self, cluster: int, value: int) -> None:
        number, index = divmod(cluster, self.per_block)
        block = self._block(number)
        assert block is not None, cluster
        self._dirty.add(number)
        if self._bits < 8:
            at = index * self._bits
            mask = ((1 << self._bits) - 1) << (at & 7)
            block[at >> 3] = block[at >> 3] & ~mask | value << (at & 7)
        else:
            width = self._bits // 8
            block[index * width : (index + 1) * width] = value.to_bytes(width, "big")
