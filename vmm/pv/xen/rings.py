"""The byte rings of the PV console and of xenstore: producer and consumer indexes in one page."""

from dataclasses import dataclass
from typing import Final

from vmm.pv.xen.shared import Shared


@dataclass(frozen=True, slots=True)
class ByteRing:
    """`size` bytes (a power of two) at machine address `data`, indexes of 32 bits that run free."""

    shared: Shared
    data: int
    size: int
    consumer: int
    producer: int

    def used(self) -> int:
        """Return how many bytes wait; a guest's nonsense counts as none."""
        used = self.shared.read(self.producer, 4) - self.shared.read(self.consumer, 4) & 0xFFFF_FFFF
        return used if used <= self.size else 0

    def is_sound(self) -> bool:
        """Whether the indexes make sense."""
        used = self.shared.read(self.producer, 4) - self.shared.read(self.consumer, 4) & 0xFFFF_FFFF
        return used <= self.size

    def take(self) -> bytes:
        """Consume what waits."""
        count, first = self.used(), self.shared.read(self.consumer, 4)
        ring = self.shared.load(self.data, self.size)
        at = first & self.size - 1
        self.shared.write(self.consumer, 4, first + count & 0xFFFF_FFFF)
        return (ring[at:] + ring[:at])[:count]

    def put(self, data: bytes) -> int:
        """Produce as much as there is room for; how much that was."""
        room = self.size - self.used() if self.is_sound() else 0
        first, count = self.shared.read(self.producer, 4), min(room, len(data))
        at = first & self.size - 1
        ahead = min(count, self.size - at)  # up to the end; the rest goes to the beginning
        self.shared.store(self.data + at, data[:ahead])
        if count > ahead:
            self.shared.store(self.data, data[ahead:count])
        self.shared.write(self.producer, 4, first + count & 0xFFFF_FFFF)
        return count


CONSOLE_IN: Final = 0, 1024, 3072, 3076
CONSOLE_OUT: Final = 1024, 2048, 3080, 3084
"""struct xencons_interface (public/io/console.h): data, bytes, consumer, producer."""
STORE_REQUESTS: Final = 0, 1024, 2048, 2052
STORE_REPLIES: Final = 1024, 1024, 2056, 2060
"""struct xenstore_domain_interface (public/io/xs_wire.h)."""


def ring_at(shared: Shared, page: int, places: tuple[int, int, int, int]) -> ByteRing:
    """Return a ring of the page at a machine address."""
    data, size, consumer, producer = places
    return ByteRing(shared, page + data, size, page + consumer, page + producer)
