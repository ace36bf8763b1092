"""Machine memory: one anonymous mapping, host-physical address 0 upwards."""

import mmap
from typing import Final

from hwmodel.cpu.unicorn import ffi

PAGE: Final = 4096


class Ram:
    """`size` bytes of zeroed machine memory; pages that are never touched cost nothing."""

    __slots__ = ("_map", "pointer", "size", "view")

    def __init__(self, size: int) -> None:
        """Map the memory. Raises ValueError for a size that is no multiple of 4 KiB."""
        if size <= 0 or size % PAGE:
            raise ValueError(f"machine memory of {size} bytes is no multiple of {PAGE}")
        self.size: Final = size
        self._map: Final = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view: Final = memoryview(self._map)
        self.pointer: Final = ffi.from_buffer("uint8_t[]", self._map, require_writable=True)

    def zero(self) -> None:
        """Give every page back: the memory reads as zero again."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def discard(self, at: int, size: int) -> None:
        """Give whole pages back: they read as zero, and cost nothing until they are written."""
        self._map.madvise(mmap.MADV_DONTNEED, at, size)
