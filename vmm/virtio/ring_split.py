"""The split ring: descriptor table, available ring, used ring (virtio 1.2, "Split Virtqueues")."""

from collections.abc import Iterator
from struct import Struct
from typing import Final

from vmm.memory.guest import GuestMemory
from vmm.virtio.chain import Chain, RingError
from vmm.virtio.ring import (
    DESCRIPTOR_SIZE,
    INDIRECT,
    NEXT,
    Descriptor,
    Ring,
    RingLayout,
    need_event,
)

DESCRIPTOR = Struct("<QIHH")  # address, length, flags, next
USED_ELEMENT = Struct("<II")  # id, length
NO_INTERRUPT, NO_NOTIFY = 1, 1


class SplitRing(Ring):
    """Indices are free-running 16-bit numbers; slots are taken modulo the size, a power of two."""

    def __init__(
        self, memory: GuestMemory, layout: RingLayout, *, event_idx: bool, indirect: bool
    ) -> None:
        """As Ring; the size must be a power of two up to 32768."""
        super().__init__(memory, layout, event_idx=event_idx, indirect=indirect)
        size = layout.size
        if size < 1 or size > 0x8000 or size & (size - 1):
            raise RingError(f"a split ring of {size} entries")
        table = DESCRIPTOR_SIZE * size
        self._table: Final = self.place(layout.descriptors, table, "descriptor table", 16)
        self._avail: Final = self.place(layout.driver, 6 + 2 * size, "available ring", 2)
        self._used: Final = self.place(layout.device, 6 + 8 * size, "used ring", 4)
        self._next_avail = 0
        self._next_used = 0
        self._signalled = 0  # the used index when an interrupt was last considered
        self._notify = True

    def has_available(self) -> bool:
        """Whether the driver's index is ahead of ours."""
        return self.load16(self._avail + 2) != self._next_avail

    def pop(self, epoch: int) -> Chain | None:
        """Take the next head off the available ring and follow its descriptors."""
        ahead = (self.load16(self._avail + 2) - self._next_avail) & 0xFFFF
        if ahead == 0:
            return None
        if ahead > self.size:
            raise RingError(f"the available index is {ahead} ahead in a ring of {self.size}")
        head = self.load16(self._avail + 4 + 2 * (self._next_avail & (self.size - 1)))
        if head >= self.size:
            raise RingError(f"head {head} in a ring of {self.size}")
        chain = self.gather(head, 1, epoch, self._descriptors(head))
        self._move((self._next_avail + 1) & 0xFFFF)
        return chain

    def unpop(self, chain: Chain) -> None:
        """Step back by one: the driver's entry is still in its slot."""
        del chain
        self._move((self._next_avail - 1) & 0xFFFF)

    def push(self, chain: Chain, written: int) -> None:
        """Write the used element, then the index that publishes it."""
        at = self._used + 4 + 8 * (self._next_used & (self.size - 1))
        USED_ELEMENT.pack_into(self.view, at, chain.id, written)
        self.memory.wrote(at, 8)
        self._next_used = (self._next_used + 1) & 0xFFFF
        self.store16(self._used + 2, self._next_used)

    def should_interrupt(self) -> bool:
        """By used_event or by the available ring's flag."""
        new, old = self._next_used, self._signalled
        self._signalled = new
        if new == old:
            return False
        if self.event_idx:
            return need_event(self.load16(self._avail + 4 + 2 * self.size), new, old)
        return not self.load16(self._avail) & NO_INTERRUPT

    def want_notification(self, wanted: bool) -> None:
        """By avail_event or by the used ring's flag."""
        self._notify = wanted
        if self.event_idx:
            self._publish_event()
        else:
            self.store16(self._used, 0 if wanted else NO_NOTIFY)

    def save(self) -> list[int]:
        """Return the indices."""
        return [self._next_avail, self._next_used, self._signalled, int(self._notify)]

    def restore(self, numbers: list[int]) -> None:
        """Take over the indices."""
        self._next_avail, self._next_used, self._signalled, notify = numbers
        self._notify = bool(notify)

    def _move(self, index: int) -> None:
        self._next_avail = index
        if self.event_idx and self._notify:
            self._publish_event()

    def _publish_event(self) -> None:
        """Ask for a notification at the next chain, or at the farthest possible one."""
        event = self._next_avail if self._notify else self._next_avail - 1
        self.store16(self._used + 4 + 8 * self.size, event)

    def _descriptors(self, head: int) -> Iterator[Descriptor]:
        """Yield the descriptors of a chain, an indirect table's in place of its one."""
        table, entries, index = self._table, self.size, head
        for _ in range(entries):
            gpa, size, flags, following = self._descriptor(table, index)
            if flags & INDIRECT:
                yield from self._indirect(*self.indirect_table(gpa, size, flags))
                return
            yield gpa, size, flags
            if not flags & NEXT:
                return
            if following >= entries:
                raise RingError(f"descriptor {index} is followed by {following} of {entries}")
            index = following
        raise RingError(f"a loop of descriptors, from {head}")

    def _indirect(self, table: int, entries: int) -> Iterator[Descriptor]:
        index = 0
        for _ in range(entries):
            gpa, size, flags, following = self._descriptor(table, index)
            if flags & INDIRECT:
                raise RingError("an indirect descriptor in an indirect table")
            yield gpa, size, flags
            if not flags & NEXT:
                return
            if following >= entries:
                raise RingError(f"entry {index} is followed by {following} of {entries}")
            index = following
        raise RingError("a loop in an indirect table")

    def _descriptor(self, table: int, index: int) -> tuple[int, int, int, int]:
        at = table + DESCRIPTOR_SIZE * index
        gpa, size, flags, following = DESCRIPTOR.unpack_from(self.view, at)
        return gpa, size, flags, following
