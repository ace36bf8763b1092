"""The packed ring, which both sides write (virtio 1.2, "Packed Virtqueues")."""

from collections.abc import Iterator
from struct import Struct
from typing import Final

from vmm.memory.guest import GuestMemory
from vmm.virtio.chain import Chain, RingError
from vmm.virtio.ring import (
    DESCRIPTOR_SIZE,
    INDIRECT,
    NEXT,
    U16X2,
    WRITE,
    Descriptor,
    Ring,
    RingLayout,
    need_event,
)

DESCRIPTOR = Struct("<QIHH")  # address, length, id, flags
USED = Struct("<IH")  # length, id: what lies between the address and the flags
AVAIL, USED_BIT = 1 << 7, 1 << 15
EVENT_ENABLE, EVENT_DISABLE, EVENT_AT = 0, 1, 2
"""Flags of the event suppression structures: always, never, at one descriptor."""
WRAP: Final = 1 << 15


class PackedRing(Ring):
    """Positions are a slot and a wrap counter, kept together as `slot | counter << 15`."""

    def __init__(
        self, memory: GuestMemory, layout: RingLayout, *, event_idx: bool, indirect: bool
    ) -> None:
        """As Ring; any size up to 32768."""
        super().__init__(memory, layout, event_idx=event_idx, indirect=indirect)
        if not 1 <= layout.size <= 0x8000:
            raise RingError(f"a packed ring of {layout.size} entries")
        table = DESCRIPTOR_SIZE * layout.size
        self._table: Final = self.place(layout.descriptors, table, "descriptor ring", 16)
        self._driver: Final = self.place(layout.driver, 4, "driver event area", 4)
        self._device: Final = self.place(layout.device, 4, "device event area", 4)
        self._avail = WRAP
        self._used = WRAP
        self._signalled = WRAP
        self._notify = True

    def has_available(self) -> bool:
        """Whether the descriptor at our position has been made available in this lap."""
        flags = self.load16(self._table + DESCRIPTOR_SIZE * (self._avail & ~WRAP) + 14)
        wrap = bool(self._avail & WRAP)
        return bool(flags & AVAIL) == wrap and bool(flags & USED_BIT) != wrap

    def pop(self, epoch: int) -> Chain | None:
        """Take the descriptors up to the one without NEXT; the buffer id is the last one's."""
        if not self.has_available():
            return None
        slot = self._avail & ~WRAP
        length, number = self._extent(slot)
        if number >= self.size:
            raise RingError(f"buffer id {number} in a ring of {self.size}")
        chain = self.gather(number, length, epoch, self._descriptors(slot, length))
        self._avail = self._ahead(self._avail, length)
        self._ask()
        return chain

    def unpop(self, chain: Chain) -> None:
        """Step back over the chain's descriptors, which are still in their slots."""
        self._avail = self._ahead(self._avail, self.size - chain.length) ^ WRAP
        self._ask()

    def push(self, chain: Chain, written: int) -> None:
        """Write a used descriptor; its flags, written last, publish it."""
        at = self._table + DESCRIPTOR_SIZE * (self._used & ~WRAP)
        USED.pack_into(self.view, at + 8, written, chain.id)
        lap = AVAIL | USED_BIT if self._used & WRAP else 0
        self.store16(at + 14, lap | (WRITE if written else 0))
        self.memory.wrote(at + 8, 6)
        self._used = self._ahead(self._used, chain.length)

    def should_interrupt(self) -> bool:
        """By the driver's event suppression structure."""
        new, old = self._used, self._signalled
        self._signalled = new
        if new == old:
            return False
        event, flags = U16X2.unpack_from(self.view, self._driver)
        if flags == EVENT_AT and self.event_idx:
            return self._passed(event, new, old)
        return bool(flags != EVENT_DISABLE)

    def want_notification(self, wanted: bool) -> None:
        """By the device's event suppression structure."""
        self._notify = wanted
        if not wanted:
            self.store16(self._device + 2, EVENT_DISABLE)
        elif self.event_idx:
            self._ask()
            self.store16(self._device + 2, EVENT_AT)
        else:
            self.store16(self._device + 2, EVENT_ENABLE)

    def save(self) -> list[int]:
        """Return the positions."""
        return [self._avail, self._used, self._signalled, int(self._notify)]

    def restore(self, numbers: list[int]) -> None:
        """Take over the positions."""
        self._avail, self._used, self._signalled, notify = numbers
        self._notify = bool(notify)

    def _ask(self) -> None:
        """Name the descriptor whose availability is to be notified."""
        if self.event_idx and self._notify:
            self.store16(self._device, self._avail)

    def _ahead(self, position: int, slots: int) -> int:
        slot = (position & ~WRAP) + slots
        if slot >= self.size:
            return slot - self.size | ~position & WRAP
        return slot | position & WRAP

    def _passed(self, event: int, new: int, old: int) -> bool:
        """The event index test on a line of two laps, so that wrap counters take part."""
        if event & ~WRAP >= self.size:
            return True  # nonsense: rather an interrupt too many
        wanted, last, first = (
            (p & ~WRAP) + (0 if p & WRAP else self.size) for p in (event, new, old)
        )
        return need_event(wanted, last, first, modulus=2 * self.size)

    def _extent(self, slot: int) -> tuple[int, int]:
        """Return (slots, buffer id) of the chain that starts at `slot`."""
        for length in range(1, self.size + 1):
            _, _, number, flags = self._descriptor(self._table, slot)
            if not flags & NEXT:
                return length, number
            if flags & INDIRECT:
                raise RingError("an indirect descriptor with a successor")
            slot = (slot + 1) % self.size
        raise RingError("a chain longer than the ring")

    def _descriptors(self, slot: int, length: int) -> Iterator[Descriptor]:
        for index in range(slot, slot + length):
            gpa, size, _, flags = self._descriptor(self._table, index % self.size)
            if not flags & INDIRECT:
                yield gpa, size, flags
            elif length > 1:
                raise RingError("an indirect descriptor in a chain")
            else:
                yield from self._indirect(*self.indirect_table(gpa, size, flags))

    def _indirect(self, table: int, entries: int) -> Iterator[Descriptor]:
        for index in range(entries):
            gpa, size, _, flags = self._descriptor(table, index)
            if flags & INDIRECT:
                raise RingError("an indirect descriptor in an indirect table")
            yield gpa, size, flags

    def _descriptor(self, table: int, index: int) -> tuple[int, int, int, int]:
        at = table + DESCRIPTOR_SIZE * index
        gpa, size, number, flags = DESCRIPTOR.unpack_from(self.view, at)
        return gpa, size, number, flags
