"""A qcow2 image as a disk: reads through to the backing file, copies on write, keeps order.

What must survive a kill at any moment is arranged by `flush()`: counts first, then the tables that
point to new clusters, and only then is what they no longer point to given up. Between two flushes
the file holds the tables of the last one, so a crash costs clusters (leaks) and no content.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from vmm.errors import UsageError
from vmm.storage.hostfile import HostFile
from vmm.storage.image import Image, Pieces, StorageError, Views, clear, scatter, total
from vmm.storage.qcow2.compressed import Decompressor
from vmm.storage.qcow2.header import AUTOCLEAR_AT, Header
from vmm.storage.qcow2.mapping import COMPRESSED, COPIED, OFFSET, ZERO, Mapping
from vmm.storage.qcow2.refcounts import Refcounts


class Kind(Enum):
    """What an L2 entry says of its cluster."""

    ABSENT = auto()  # what the backing file has
    ZEROES = auto()
    DATA = auto()
    PACKED = auto()  # compressed


@dataclass(slots=True)
class _Run:
    """Clusters to be written in one go, and the entries that are to point to them."""

    offset: int
    views: list[memoryview]
    size: int
    entries: list[tuple[int, int, int]]  # cluster of the disk, new entry, old entry


class Qcow2Image:
    """An open qcow2 image."""

    def __init__(self, file: HostFile, header: Header, backing: Image | None) -> None:
        """Check that the tables lie in the file. Raises UsageError if not."""
        self.size = header.size
        self.read_only = file.read_only
        self._file: Final = file
        self._header: Final = header
        self._backing: Final = backing
        self._cluster: Final = header.cluster_size
        self._refcounts: Final = Refcounts(file, header)
        self._mapping: Final = Mapping(file, header, self._refcounts)
        self._decompressor: Final = Decompressor(file, header)
        self._touched = False
        self._fresh: set[int] = set()  # clusters that nothing points to yet
        self._punch: set[int] = set()
        _check_whole(file, header, self._mapping, self._refcounts)

    def read(self, offset: int, views: Views) -> None:
        """Fill `views` from `offset`, run by run."""
        pieces = Pieces(views)
        for kind, place, at, size in self._runs(offset, total(views)):
            part = pieces.take(size)
            if kind is Kind.DATA:
                self._file.readv(place, part)
            elif kind is Kind.PACKED:
                start = at % self._cluster
                scatter(memoryview(self._decompressor.read(place))[start:], part)
            elif kind is Kind.ABSENT and self._backing is not None:
                _read_backing(self._backing, at, part)
            else:
                clear(part)

    def write(self, offset: int, views: Views) -> None:
        """Store `views`: in place where a cluster is ours alone, else in a new one."""
        self._touch()
        try:
            self._write(offset, views)
        except StorageError:
            for fresh in self._fresh:
                self._refcounts.take_back(fresh)
            self._fresh.clear()
            raise

    def _write(self, offset: int, views: Views) -> None:
        pieces, end, run = Pieces(views), offset + total(views), None
        while offset < end:
            cluster, start = divmod(offset, self._cluster)
            size = min(self._cluster - start, end - offset)
            part = self._place(cluster, start, size, pieces.take(size))
            if run is not None and run.offset + run.size == part.offset:
                run.views += part.views
                run.size += part.size
                run.entries += part.entries
            else:
                self._carry_out(run)
                run = part
            offset += size
        self._carry_out(run)

    def zero(self, offset: int, size: int, *, unmap: bool) -> None:
        """Mark whole clusters as zeroes; write the rest."""
        self._touch()
        for cluster, start, part in self._clusters(offset, size):
            entry = self._mapping.get(cluster)
            kind = self._kind(entry)
            if kind is Kind.ZEROES or (kind is Kind.ABSENT and self._backing is None):
                continue
            if part == self._cluster and self._header.version >= 3:
                keep = not unmap and kind is Kind.DATA and entry & COPIED
                self._replace(cluster, entry, entry | ZERO if keep else ZERO, release=not keep)
            elif part == self._cluster and self._backing is None and unmap:
                self._replace(cluster, entry, 0)
            else:
                self.write(cluster * self._cluster + start, [memoryview(bytes(part))])

    def discard(self, offset: int, size: int) -> None:
        """Give whole clusters back; they read as zeroes then."""
        self._touch()
        for cluster, _, part in self._clusters(offset, size):
            entry = self._mapping.get(cluster)
            if part == self._cluster and self._kind(entry) in (Kind.DATA, Kind.PACKED):
                if self._backing is None:
                    self._replace(cluster, entry, 0)
                elif self._header.version >= 3:
                    self._replace(cluster, entry, ZERO)

    def flush(self) -> None:
        """Counts, then tables, then what is free; each durable before the next."""
        if self.read_only or not self._touched:
            return
        if self._refcounts.is_dirty:
            self._refcounts.write_back()
        self._file.sync()
        if self._mapping.is_dirty:
            self._mapping.write_back()
            self._file.sync()
        freed = self._refcounts.release_pending()
        for cluster in self._punch.intersection(freed):
            self._file.punch(cluster * self._cluster, self._cluster)
        self._punch.clear()
        self._touched = False

    def close(self) -> None:
        """Flush, write down what the flush has freed, and let go of the files.

        Raises StorageError, with the files closed, when the host cannot write.
        """
        try:
            self.flush()
            if self._refcounts.is_dirty:
                self._refcounts.write_back()
        finally:
            self._file.close()
            if self._backing is not None:
                self._backing.close()

    # ---- reading ----

    def _kind(self, entry: int) -> Kind:
        if entry & COMPRESSED:
            return Kind.PACKED
        if entry & ZERO and self._header.version >= 3:
            return Kind.ZEROES
        return Kind.DATA if entry & OFFSET else Kind.ABSENT

    def _runs(self, offset: int, size: int) -> Iterator[tuple[Kind, int, int, int]]:
        """Yield (kind, place, offset, bytes): what one read can fetch.

        `place` is an offset in the file for DATA, the entry for PACKED.
        """
        kind, place, at, length = Kind.ABSENT, 0, offset, 0
        for cluster, start, part in self._clusters(offset, size):
            entry = self._mapping.get(cluster)
            next_kind = self._kind(entry)
            next_place = self._data_at(entry) + start if next_kind is Kind.DATA else entry
            joins = next_kind is kind and next_kind is not Kind.PACKED
            if joins and (kind is not Kind.DATA or place + length == next_place):
                length += part
                continue
            if length:
                yield kind, place, at, length
            kind, place, at, length = next_kind, next_place, at + length, part
        if length:
            yield kind, place, at, length

    def _data_at(self, entry: int) -> int:
        offset = entry & OFFSET
        if offset % self._cluster:
            raise StorageError(f"{self._file.path}: a cluster at {offset:#x}: it is corrupt")
        return offset

    def _clusters(self, offset: int, size: int) -> Iterator[tuple[int, int, int]]:
        """Yield (cluster, start in it, bytes) for a range of the disk."""
        end = offset + size
        while offset < end:
            cluster, start = divmod(offset, self._cluster)
            part = min(self._cluster - start, end - offset)
            yield cluster, start, part
            offset += part

    # ---- writing ----

    def _place(self, cluster: int, start: int, size: int, part: list[memoryview]) -> _Run:
        """Say where a piece goes; a piece of a cluster that gets a new place is made whole."""
        entry = self._mapping.get(cluster)
        kind = self._kind(entry)
        if kind is Kind.DATA and entry & COPIED:
            return _Run(self._data_at(entry) + start, part, size, [])
        if size < self._cluster:
            whole = bytearray(self._cluster)
            self._read_whole(cluster, memoryview(whole))
            whole[start : start + size] = b"".join(part)
            part = [memoryview(whole)]
        fresh = self._refcounts.allocate()
        self._fresh.add(fresh)
        at = fresh * self._cluster
        return _Run(at, part, self._cluster, [(cluster, at | COPIED, entry)])

    def _read_whole(self, cluster: int, content: memoryview) -> None:
        offset = cluster * self._cluster
        self.read(offset, [content[: self.size - offset]])

    def _carry_out(self, run: _Run | None) -> None:
        """Write a run, and when it is in the file point to it."""
        if run is None:
            return
        self._file.writev(run.offset, run.views)
        for cluster, entry, old in run.entries:
            self._mapping.set(cluster, entry)
            self._fresh.discard((entry & OFFSET) // self._cluster)
            self._release(old)

    def _replace(self, cluster: int, old: int, new: int, *, release: bool = True) -> None:
        self._mapping.set(cluster, new)
        if release:
            self._punch.update(self._release(old))

    def _release(self, entry: int) -> list[int]:
        """Give up the clusters of the file that an old entry held; return them."""
        if entry & COMPRESSED:
            self._decompressor.forget()
            offset, size = self._decompressor.extent(entry)
            held = range(offset // self._cluster, (offset + size - 1) // self._cluster + 1)
        else:
            first = (entry & OFFSET) // self._cluster
            held = range(first, first + bool(first))
        for cluster in held:
            self._refcounts.release(cluster)
        return list(held)

    def _touch(self) -> None:
        """Before the first change: features that it would make untrue are cleared."""
        if not self._touched and self._header.autoclear:
            self._file.write(AUTOCLEAR_AT, bytes(8))
        self._touched = True


def _read_backing(backing: Image, offset: int, views: list[memoryview]) -> None:
    """Read what the backing file has; behind its end there are zeroes."""
    pieces = Pieces(views)
    inside = min(total(views), max(backing.size - offset, 0))
    if inside:
        backing.read(offset, pieces.take(inside))
    clear(pieces.take(total(views) - inside))


def _check_whole(file: HostFile, header: Header, mapping: Mapping, refcounts: Refcounts) -> None:
    """Everything that the tables name lies in the file, and is counted if it may be written."""
    cluster, end = header.cluster_size, file.size
    try:
        named = {0, header.l1_offset, header.refcount_table_offset, *mapping.tables()}
        last = max(named)
        if last < end:
            last = max((e & OFFSET for e in mapping.entries() if not e & COMPRESSED), default=0)
        if last >= end:
            raise UsageError(
                f"--disk {file.path} has {end} bytes and data at {last:#x}: it is truncated; "
                "give the whole image"
            )
        if not file.read_only and any(not refcounts.count(at // cluster) for at in named):
            raise UsageError(
                f"--disk {file.path} has wrong reference counts; repair it (qemu-img check -r all)"
            )
    except StorageError as error:
        raise UsageError(f"--disk {error}; repair it (qemu-img check -r all)") from None
