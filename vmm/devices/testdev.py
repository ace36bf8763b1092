"""The test device of kvm-unit-tests: a latch, a page flush, interrupt lines by hand, and MMIO RAM.

Port offsets: 0x00-0x03 a 4-byte latch, 0x04-0x07 flush (write a guest-physical address), 0x10 + n
the level of interrupt line n.
"""

from collections.abc import Callable

from vmm.devices.device import State, Untimed
from vmm.devices.saved import restore_fields, save_fields

LATCH, FLUSH, LINES = 0x00, 0x04, 0x10
LINE_COUNT = 24
MMIO_SIZE = 64 << 10


class TestDevice(Untimed):
    """The port side."""

    __test__ = False  # pytest: this is no test class

    def __init__(
        self,
        set_line: Callable[[int, bool], None],
        invalidate: Callable[[int], None],
        name: str = "testdev",
    ) -> None:
        """`set_line(n, level)` drives line n; `invalidate(gpa)` drops what is cached of a page."""
        self.name = name
        self._set_line = set_line
        self._invalidate = invalidate
        self._latch = bytearray(4)

    def read(self, offset: int, size: int) -> int:
        """Return bytes of the latch; the rest reads as zero."""
        return int.from_bytes(self._latch[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Write the latch, flush a page, or drive a line."""
        value &= (1 << 8 * size) - 1
        if offset < FLUSH:
            data = value.to_bytes(size, "little")[: len(self._latch) - offset]
            self._latch[offset : offset + len(data)] = data
        elif offset == FLUSH:
            self._invalidate(value)
        elif LINES <= offset < LINES + LINE_COUNT:
            self._set_line(offset - LINES, value & 0xFF != 0)

    def save(self) -> State:
        """The latch."""
        return save_fields(self, ("_latch",))

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, ("_latch",), state)


class TestMemory(Untimed):
    """The memory side: 64 KiB that behave like RAM but are reached by MMIO."""

    __test__ = False

    def __init__(self, name: str = "testmem") -> None:
        """All zero."""
        self.name = name
        self._bytes = bytearray(MMIO_SIZE)

    def read(self, offset: int, size: int) -> int:
        """Return the bytes last written."""
        return int.from_bytes(self._bytes[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Keep the bytes, as far as there is room."""
        data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        data = data[: max(MMIO_SIZE - offset, 0)]
        self._bytes[offset : offset + len(data)] = data

    def save(self) -> State:
        """All bytes."""
        return save_fields(self, ("_bytes",))

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, ("_bytes",), state)
