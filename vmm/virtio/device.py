"""The base of every virtio device: what is the same whatever the device is and however it is seen.

A device states what it is and handles its queues; a transport (PCI, MMIO) shows it to the driver
and carries its interrupts. An entropy source, in full:

    class Rng(VirtioDevice):
        device_id = 4

        def __init__(self, context: Context) -> None:
            super().__init__("rng", context, queue_sizes=(64,))

        def on_queue(self, index: int) -> None:
            queue = self.queues[index]
            while chain := queue.pop():
                queue.push(chain, chain.writable.write(0, self.draw(chain.writable.size)))
            self.interrupt(queue)

What takes time is put off: note it, answer the cycle in `next_event()`, push in `fire()`, and call
`self.rescheduled()` when the next event changed outside an access of the guest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from vmm.devices.device import Clock, State
from vmm.devices.saved import restore_fields, save_fields
from vmm.memory.guest import GuestMemory
from vmm.virtio.features import Feature, Status, bits
from vmm.virtio.queue import VirtQueue

# Plain numbers: enumerations cost a microsecond an operation, and this is asked for each request.
_STATUS_WRITABLE: Final = 0x8F
_DRIVER_OK: Final = int(Status.DRIVER_OK)
_FEATURES_OK: Final = int(Status.FEATURES_OK)
_NEEDS_RESET: Final = int(Status.NEEDS_RESET)
_LIVE: Final = _DRIVER_OK | _FEATURES_OK
_SAVED: Final = ("status", "driver_features", "generation", "config")


def _ignore(_: object = None) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a device is given: guest memory, the clock, and where to say what went wrong."""

    memory: GuestMemory
    clock: Clock
    log: Callable[[str], None] = _ignore
    reschedule: Callable[[], None] = _ignore
    """Say that a next event changed while no guest access was under way (host input came)."""


class Transport(Protocol):
    """How a device reaches its driver."""

    def queue_interrupt(self, index: int) -> None:
        """Say that queue `index` has used buffers."""

    def config_interrupt(self) -> None:
        """Say that the configuration or the status changed."""


class VirtioDevice:
    """Status, features, queues and configuration space of one device; subclass it."""

    device_id: ClassVar[int]
    """The number of the device type (virtio 1.2, "Device Types")."""

    def __init__(
        self,
        name: str,
        context: Context,
        *,
        queue_sizes: Sequence[int],
        features: int = 0,
        config: bytes = b"",
        packed: bool = False,
    ) -> None:
        """`features` are the device's own bits; ring features are added here.

        `queue_sizes` gives the most slots of each queue, `config` the first content of the device
        configuration space, `packed` offers the packed ring too.
        """
        self.name: Final = name
        self.context: Final = context
        common = bits(Feature.VERSION_1, Feature.EVENT_IDX, Feature.INDIRECT_DESC)
        rings = bits(Feature.RING_RESET) | (bits(Feature.RING_PACKED) if packed else 0)
        self.features: Final = features | common | rings
        self.queues: Final = [
            VirtQueue(index, size, context.memory, self.fail)
            for index, size in enumerate(queue_sizes)
        ]
        self.config: Final = bytearray(config)
        self.status = 0
        self.driver_features = 0
        self.generation = 0
        self._transport: Transport | None = None

    # ---- for subclasses to fill ----

    def on_queue(self, index: int) -> None:
        """Queue `index` was notified: pop what is there."""

    def on_ready(self) -> None:
        """The driver has finished its set-up (DRIVER_OK): queues and features are final."""

    def on_reset(self) -> None:
        """Forget requests under way and whatever the driver set up."""

    def on_queue_reset(self, index: int) -> None:
        """Forget the requests of one queue, which the driver resets."""

    def read_config(self, offset: int, size: int) -> int:
        """Return `size` bytes of the configuration space, little-endian; zero behind its end."""
        return int.from_bytes(self.config[offset : offset + size], "little")

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Take a write to the configuration space: ignored unless a device says otherwise."""

    def next_event(self) -> int | None:
        """Return the absolute cycle of the next thing the device does by itself, or None."""
        return None

    def fire(self) -> None:
        """Do what is due."""

    def save_device(self) -> State:
        """Return the state that is the subclass's own, as plain data."""
        return {}

    def restore_device(self, state: State) -> None:
        """Take over what save_device() returned; status and queues are restored already."""

    # ---- for subclasses to call ----

    def has(self, feature: int) -> bool:
        """Whether feature bit number `feature` was negotiated."""
        return bool(self.driver_features >> feature & 1)

    @property
    def live(self) -> bool:
        """Whether the driver is up and the device sound: only then are requests served."""
        return self.status & (_LIVE | _NEEDS_RESET) == _LIVE

    def interrupt(self, queue: VirtQueue) -> None:
        """Tell the driver of what was pushed, if it wants to hear; call once after several."""
        if self.live and queue.should_interrupt() and self._transport is not None:
            self._transport.queue_interrupt(queue.index)

    def config_changed(self) -> None:
        """Say that `config` was changed."""
        self.generation = (self.generation + 1) & 0xFF
        if self.status & _DRIVER_OK and self._transport is not None:
            self._transport.config_interrupt()

    def rescheduled(self) -> None:
        """Say that next_event() changed while no guest access was under way."""
        self.context.reschedule()

    def fail(self, reason: str) -> None:
        """Go to NEEDS_RESET: the driver did what no sound driver does."""
        if self.status & _NEEDS_RESET:
            return
        ready = bool(self.status & _DRIVER_OK)
        self.status |= _NEEDS_RESET
        self.context.log(f"virtio device {self.name} needs a reset: {reason}")
        if ready and self._transport is not None:
            self._transport.config_interrupt()

    # ---- for transports ----

    def attach(self, transport: Transport) -> None:
        """Say who carries the interrupts."""
        self._transport = transport

    def reset(self) -> None:
        """Be as at power-on, the configuration space excepted."""
        self.status = 0
        self.driver_features = 0
        for queue in self.queues:
            queue.reset()
        self.on_reset()

    def write_status(self, value: int) -> None:
        """Take a write to the status register; zero resets, set bits stay until then."""
        if value == 0:
            self.reset()
            return
        before = self.status
        self.status |= value & _STATUS_WRITABLE
        if self.status & ~before & _FEATURES_OK and not self._acceptable():
            self.status &= ~_FEATURES_OK
        if self.status & ~before & _DRIVER_OK and self.live:
            self.on_ready()
            for queue in self.queues:
                self.notify(queue.index)  # a notification may have come before

    def offered(self, word: int) -> int:
        """Return bits 32 * `word` ... + 31 of the features offered."""
        return self.features >> 32 * word & 0xFFFF_FFFF if word < 2 else 0

    def select_features(self, word: int, value: int) -> None:
        """Set bits 32 * `word` ... + 31 of the driver's features, until they are accepted."""
        if word < 2 and not self.status & _FEATURES_OK:
            kept = self.driver_features & ~(0xFFFF_FFFF << 32 * word)
            self.driver_features = kept | (value & 0xFFFF_FFFF) << 32 * word

    def enable_queue(self, index: int) -> None:
        """Start a queue by what its registers say."""
        if self.status & _FEATURES_OK and not self.status & _NEEDS_RESET:
            self.queues[index].enable(
                packed=self.has(Feature.RING_PACKED),
                event_idx=self.has(Feature.EVENT_IDX),
                indirect=self.has(Feature.INDIRECT_DESC),
            )

    def reset_queue(self, index: int) -> None:
        """Stop a queue, where that was negotiated."""
        if self.has(Feature.RING_RESET):
            self.queues[index].reset()
            self.on_queue_reset(index)

    def stop_queue(self, index: int) -> None:
        """Stop a queue and keep its registers."""
        self.queues[index].stop()
        self.on_queue_reset(index)

    def notify(self, index: int) -> None:
        """Take a notification; one for a queue that does not exist or is off is dropped."""
        if self.live and index < len(self.queues) and self.queues[index].enabled:
            self.on_queue(index)

    def _acceptable(self) -> bool:
        """Whether the driver chose among what is offered, and the modern interface."""
        return not self.driver_features & ~self.features and self.has(Feature.VERSION_1)

    def save(self) -> State:
        """Return the whole state."""
        state = save_fields(self, _SAVED)
        for queue in self.queues:
            state[f"queue{queue.index}"] = queue.save()
        return state | {f"device_{name}": value for name, value in self.save_device().items()}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, [name for name in _SAVED if name != "config"], state)
        config = state["config"]
        assert isinstance(config, bytes)
        self.config[:] = config
        for queue in self.queues:
            numbers = state[f"queue{queue.index}"]
            assert isinstance(numbers, list)
            queue.restore(numbers)
        own = {k.removeprefix("device_"): v for k, v in state.items() if k.startswith("device_")}
        self.restore_device(own)
