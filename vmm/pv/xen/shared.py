"""Machine memory that guest and hypervisor share, by machine address: plain numbers in place."""

from typing import Final

from vmm.memory.guest import GuestMemory


class Shared:
    """Reads and writes of machine memory; translated code there is dropped on a write."""

    def __init__(self, memory: GuestMemory) -> None:
        """Over all of it."""
        self._memory: Final = memory
        self._view: Final = memory.ram.view

    def read(self, at: int, size: int) -> int:
        """Return a little-endian number."""
        return int.from_bytes(self._view[at : at + size], "little")

    def write(self, at: int, size: int, value: int) -> None:
        """Store a little-endian number."""
        self._view[at : at + size] = value.to_bytes(size, "little")
        self._memory.wrote(at, size)

    def load(self, at: int, size: int) -> bytes:
        """Return bytes."""
        return bytes(self._view[at : at + size])

    def store(self, at: int, data: bytes) -> None:
        """Store bytes."""
        self._view[at : at + len(data)] = data
        self._memory.wrote(at, len(data))

    def view(self, at: int, size: int) -> memoryview:
        """Return machine memory itself; say `wrote` behind a store."""
        return self._view[at : at + size]

    def wrote(self, at: int, size: int) -> None:
        """Bytes were stored through a view."""
        self._memory.wrote(at, size)

    def set_bit(self, base: int, bit: int) -> bool:
        """Set a bit of an array of 64-bit words; whether it was set before."""
        at = base + bit // 8
        old = self._view[at]
        self._view[at] = old | 1 << bit % 8
        self._memory.wrote(at, 1)
        return bool(old >> bit % 8 & 1)

    def clear_bit(self, base: int, bit: int) -> None:
        """Clear one."""
        at = base + bit // 8
        self._view[at] &= ~(1 << bit % 8) & 0xFF
        self._memory.wrote(at, 1)

    def test_bit(self, base: int, bit: int) -> bool:
        """Whether one is set."""
        return bool(self._view[base + bit // 8] >> bit % 8 & 1)
