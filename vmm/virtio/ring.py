"""What split and packed rings share: where they lie, and how descriptors become a chain."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from vmm.memory.guest import GuestMemory
from vmm.virtio.chain import Buffer, Chain, RingError, Segment

NEXT, WRITE, INDIRECT = 1, 2, 4
"""Descriptor flags (virtio 1.2, "The Virtqueue Descriptor Table")."""
DESCRIPTOR_SIZE: Final = 16
LONGEST_CHAIN: Final = 1024
"""Descriptors of an indirect table. The specification says "queue size", which Linux does not heed
with indirect descriptors; IOV_MAX of Linux and so the bound of other devices is 1024."""

U16 = Struct("<H")
U16X2 = Struct("<HH")

Descriptor = tuple[int, int, int]
"""(guest-physical address, bytes, flags)."""


@dataclass(frozen=True, slots=True)
class RingLayout:
    """What the driver programs for a queue: slots, and guest-physical addresses of three areas."""

    size: int
    descriptors: int
    driver: int
    device: int


class Ring(ABC):
    """An enabled ring. `pop` and `push` raise RingError for what no sound driver does."""

    def __init__(
        self, memory: GuestMemory, layout: RingLayout, *, event_idx: bool, indirect: bool
    ) -> None:
        """Negotiated features as flags. Raises RingError if an area is misaligned or not RAM."""
        self.memory: Final = memory
        self.view: Final = memory.ram.view
        self.size: Final = layout.size
        self.event_idx: Final = event_idx
        self.indirect: Final = indirect

    @abstractmethod
    def pop(self, epoch: int) -> Chain | None:
        """Take the next available chain, None if there is none."""

    @abstractmethod
    def unpop(self, chain: Chain) -> None:
        """Put back the chain that was popped last."""

    @abstractmethod
    def has_available(self) -> bool:
        """Whether pop() would find a chain."""

    @abstractmethod
    def push(self, chain: Chain, written: int) -> None:
        """Give a chain back with the number of bytes written into it."""

    @abstractmethod
    def should_interrupt(self) -> bool:
        """Whether the driver wants to hear of what was pushed since this was last asked."""

    @abstractmethod
    def want_notification(self, wanted: bool) -> None:
        """Tell the driver whether to notify of new chains."""

    @abstractmethod
    def save(self) -> list[int]:
        """Return the indices."""

    @abstractmethod
    def restore(self, numbers: list[int]) -> None:
        """Take over the indices."""

    def place(self, gpa: int, size: int, what: str, align: int = 1) -> int:
        """Return the machine address of [gpa, gpa + size). Raises RingError if it is not RAM."""
        if gpa % align:
            raise RingError(f"{what} at {gpa:#x} is not aligned to {align}")
        at = self.memory.hpa(gpa, size)
        if at is None:
            raise RingError(f"{what}: {size:#x} bytes at {gpa:#x} are not RAM")
        return at

    def store16(self, at: int, value: int) -> None:
        """Write 16 bits at machine address `at`."""
        U16.pack_into(self.view, at, value & 0xFFFF)
        self.memory.wrote(at, 2)

    def load16(self, at: int) -> int:
        """Read 16 bits at machine address `at`."""
        (value,) = U16.unpack_from(self.view, at)
        return int(value)

    def indirect_table(self, gpa: int, size: int, flags: int) -> tuple[int, int]:
        """Return where an indirect table lies and its entries. Raises RingError for a bad one."""
        if not self.indirect:
            raise RingError("an indirect descriptor, which was not negotiated")
        if flags & NEXT:
            raise RingError("an indirect descriptor with a successor")
        entries, rest = divmod(size, DESCRIPTOR_SIZE)
        if rest or not 0 < entries <= LONGEST_CHAIN:
            raise RingError(f"an indirect table of {size:#x} bytes")
        return self.place(gpa, size, "indirect table"), entries

    def gather(
        self, number: int, length: int, epoch: int, descriptors: Iterator[Descriptor]
    ) -> Chain:
        """Make a chain of checked buffers. Raises RingError."""
        readable: list[Segment] = []
        writable: list[Segment] = []
        hpa = self.memory.hpa
        for gpa, size, flags in descriptors:
            if not size:
                continue  # nothing to check, nothing to touch
            at = hpa(gpa, size)
            if at is None:
                raise RingError(f"a buffer of {size:#x} bytes at {gpa:#x} is not RAM")
            if flags & WRITE:
                writable.append((at, size))
            elif writable:
                raise RingError("a device-readable buffer behind a writable one")
            else:
                readable.append((at, size))
        buffers = Buffer(self.memory, readable), Buffer(self.memory, writable)
        return Chain(number, length, epoch, *buffers)


def need_event(event: int, new: int, old: int, modulus: int = 1 << 16) -> bool:
    """Whether going from index `old` to `new` passes `event` (virtio 1.2, "vring_need_event")."""
    return (new - event - 1) % modulus < (new - old) % modulus
