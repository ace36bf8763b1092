"""A virtqueue as a device sees it: whatever the ring looks like, chains come and go.

No method raises for what a driver did: the device is told, goes to NEEDS_RESET, and the queue is
empty from then on.
"""

from collections.abc import Callable
from typing import Final

from vmm.memory.guest import GuestMemory
from vmm.virtio.chain import Buffer, Chain, RingError, Segment
from vmm.virtio.ring import Ring, RingLayout
from vmm.virtio.ring_packed import PackedRing
from vmm.virtio.ring_split import SplitRing


class VirtQueue:
    """One queue: the registers that a transport shows, and the ring once the driver enabled it."""

    def __init__(
        self, index: int, size_max: int, memory: GuestMemory, fail: Callable[[str], None]
    ) -> None:
        """`fail` is told, with the reason, of what no sound driver does."""
        self.index: Final = index
        self.size_max: Final = size_max
        self._memory: Final = memory
        self._fail: Final = fail
        self._epoch = 0
        self._ring: Ring | None = None
        self._held: set[int] = set()
        self._features = (False, False, False)
        self.reset()

    def stop(self) -> None:
        """Take no more chains; those that are out will not be pushed."""
        self._ring = None
        self._held.clear()
        self._epoch += 1

    def reset(self) -> None:
        """Stop, and forget what the driver programmed."""
        self.stop()
        self.size = self.size_max
        self.descriptors = self.driver = self.device = 0

    # ---- for devices ----

    @property
    def enabled(self) -> bool:
        """Whether the driver has set the queue up."""
        return self._ring is not None

    def pop(self) -> Chain | None:
        """Take the next request; None if there is none, or none that makes sense."""
        if self._ring is None:
            return None
        try:
            chain = self._ring.pop(self._epoch)
            if chain is not None:
                self._hold(chain)
        except RingError as error:
            self._broken(error)
            return None
        return chain

    def unpop(self, chain: Chain) -> None:
        """Put the chain that was popped last back to be popped again."""
        if self._ring is not None and chain.epoch == self._epoch:
            self._held.discard(chain.id)
            self._ring.unpop(chain)

    def push(self, chain: Chain, written: int) -> None:
        """Give a chain back, with `written` bytes of its writable part filled from its start.

        A chain that was popped before the queue was reset is dropped.
        """
        if self._ring is None or chain.epoch != self._epoch or chain.id not in self._held:
            return
        self._held.discard(chain.id)
        self._ring.push(chain, min(written, chain.writable.size))

    def has_available(self) -> bool:
        """Whether pop() would find something."""
        return self._ring is not None and self._ring.has_available()

    def want_notification(self, wanted: bool) -> None:
        """Tell the driver whether to notify; look at has_available() after asking for it again."""
        if self._ring is not None:
            self._ring.want_notification(wanted)

    def should_interrupt(self) -> bool:
        """Whether the driver wants to hear of the chains pushed since this was last asked."""
        return self._ring is not None and self._ring.should_interrupt()

    def _hold(self, chain: Chain) -> None:
        """Remember what is out, so that it neither grows without end nor comes back twice."""
        if chain.id in self._held:
            raise RingError(f"buffer {chain.id} was made available again before it was used")
        if len(self._held) >= self.size:
            raise RingError("more buffers than the queue has slots")
        self._held.add(chain.id)

    def _broken(self, error: RingError) -> None:
        self._ring = None
        self._fail(f"queue {self.index}: {error}")

    # ---- for transports ----

    def enable(self, *, packed: bool, event_idx: bool, indirect: bool) -> None:
        """Take up the ring that the registers describe, under the features negotiated."""
        if self._ring is not None:
            return
        self._features = packed, event_idx, indirect
        if self.size > self.size_max:
            self._broken(RingError(f"{self.size} entries where {self.size_max} is the most"))
            return
        try:
            self._ring = self._make_ring()
        except RingError as error:
            self._broken(error)

    def _make_ring(self) -> Ring:
        packed, event_idx, indirect = self._features
        layout = RingLayout(self.size, self.descriptors, self.driver, self.device)
        kind = PackedRing if packed else SplitRing
        return kind(self._memory, layout, event_idx=event_idx, indirect=indirect)

    def save(self) -> list[int]:
        """Return everything as plain numbers; chains that are out are their device's to save."""
        fixed = [self.size, self.descriptors, self.driver, self.device, self._epoch]
        if self._ring is None:
            return [*fixed, 0]
        flags = [int(flag) for flag in self._features]
        ring = self._ring.save()
        return [*fixed, 1, *flags, len(ring), *ring, *sorted(self._held)]

    def restore(self, numbers: list[int]) -> None:
        """Take over what save() returned."""
        self.size, self.descriptors, self.driver, self.device, self._epoch, on = numbers[:6]
        self._ring = None
        self._held.clear()
        if on:
            packed, event_idx, indirect = (bool(flag) for flag in numbers[6:9])
            self._features = packed, event_idx, indirect
            held = 10 + numbers[9]
            self._ring = self._make_ring()
            self._ring.restore(numbers[10:held])
            self._held.update(numbers[held:])

    def restore_chain(self, numbers: list[int]) -> Chain:
        """Make a chain that is out again from what Chain.save() returned."""
        number, length, readable, *flat = numbers
        segments: list[Segment] = list(zip(flat[::2], flat[1::2], strict=True))
        return Chain(
            number,
            length,
            self._epoch,
            Buffer(self._memory, segments[:readable]),
            Buffer(self._memory, segments[readable:]),
        )
