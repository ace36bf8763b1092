"""Compressed clusters: where they lie, and their content."""

import zlib
from typing import Final

from vmm.storage.hostfile import HostFile
from vmm.storage.image import SECTOR, StorageError
from vmm.storage.qcow2.header import Header
from vmm.storage.qcow2.mapping import COMPRESSED


class Decompressor:
    """Reads compressed clusters, and remembers the last one."""

    def __init__(self, file: HostFile, header: Header) -> None:
        """`header` says how entries are cut up, and what compressed them."""
        self._file: Final = file
        self._cluster: Final = header.cluster_size
        self._bits: Final = 62 - (header.cluster_bits - 8)
        self._zstd: Final = header.zstd
        self._last: tuple[int, bytes] | None = None

    def extent(self, entry: int) -> tuple[int, int]:
        """Return (offset, bytes) of the compressed data; the last sector may be another's too."""
        entry &= COMPRESSED - 1
        offset = entry & (1 << self._bits) - 1
        return offset, ((entry >> self._bits) + 1) * SECTOR - offset % SECTOR

    def read(self, entry: int) -> bytes:
        """Return a cluster's content. Raises StorageError if it cannot be decompressed."""
        if self._last is not None and self._last[0] == entry:
            return self._last[1]
        data = self._file.read(*self.extent(entry))
        content = self._unzstd(data) if self._zstd else self._inflate(data)
        if len(content) != self._cluster:
            raise StorageError(f"{self._file.path}: a compressed cluster is corrupt")
        self._last = entry, content
        return content

    def forget(self) -> None:
        """A place in the file may be used again."""
        self._last = None

    def _inflate(self, data: bytes) -> bytes:
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, self._cluster)
        except zlib.error:
            return b""

    def _unzstd(self, data: bytes) -> bytes:
        import zstandard

        try:
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        except zstandard.ZstdError:
            return b""
