"""A base address register: a range of a function's own registers that the guest puts somewhere."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

Read = Callable[[int, int], int]
"""read(offset, size) -> value: size is 1, 2, 4 or 8 bytes, offset + size within the range."""
Write = Callable[[int, int, int], None]
"""write(offset, size, value): value has no bits beyond size."""


class BarKind(IntEnum):
    """Bits 3..0 of the register (PCI 3.0, "Address Maps"), without the prefetchable one."""

    MEMORY32 = 0x0
    IO = 0x1
    MEMORY64 = 0x4


PREFETCHABLE = 0x8
MIN_IO, MAX_IO, MIN_MEMORY = 4, 256, 16


@dataclass(frozen=True, slots=True)
class Bar:
    """`size` bytes (a power of two) behind callbacks that get offsets from its start.

    An access reaches the callbacks as the guest made it, aligned or not; one that crosses the end
    comes in pieces. Memory takes up to 8 bytes at once, ports up to 4.
    """

    size: int
    read: Read
    write: Write
    kind: BarKind = BarKind.MEMORY32
    prefetchable: bool = False
    name: str = "bar"

    def __post_init__(self) -> None:
        """Check what the programmer chose."""
        least = MIN_IO if self.is_io else MIN_MEMORY
        assert self.size >= least, self
        assert self.size & (self.size - 1) == 0, self
        assert not self.is_io or self.size <= MAX_IO, self

    @property
    def is_io(self) -> bool:
        """Whether it lies among the ports."""
        return self.kind is BarKind.IO

    @property
    def registers(self) -> int:
        """Return how many 32-bit registers its address takes."""
        return 2 if self.kind is BarKind.MEMORY64 else 1

    @property
    def flags(self) -> int:
        """Return the read-only low bits of the register."""
        return self.kind | (PREFETCHABLE if self.prefetchable else 0)

    @property
    def writable(self) -> int:
        """Return the address bits; that the others stay is what the sizing protocol reads."""
        return (1 << 32 * self.registers) - self.size

    @property
    def width(self) -> int:
        """Return the widest access, in bytes."""
        return 4 if self.is_io else 8
