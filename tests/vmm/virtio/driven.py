"""A virtio device with a driver in front of it: features, rings and interrupts, without a bus."""

from collections.abc import Callable, Sequence

from hwmodel.timing.clock import Clock
from tests.vmm.virtio.rings import Driver, DriverMemory, PackedDriver, Piece, SplitDriver
from vmm.virtio.device import Context, VirtioDevice
from vmm.virtio.features import Feature, Status, bits

RING = 16


class Driven:
    """Set up as a driver would; `interrupts` lists the queues that were signalled."""

    def __init__(
        self,
        make: Callable[[Context], VirtioDevice],
        *,
        features: int = -1,
        kind: type[Driver] = SplitDriver,
        memory: int = 4 << 20,
        ring: int = RING,
    ) -> None:
        self.memory = DriverMemory(memory)
        self.clock = Clock()
        self.log: list[str] = []
        self.interrupts: list[int] = []
        self.config_interrupts = 0
        self.device = make(Context(self.memory.ram, self.clock, self.log.append))
        self.device.attach(self)
        self.kind, self.ring = kind, ring
        self.drivers: list[Driver] = []
        self.start(features)

    def start(self, features: int = -1) -> None:
        """Reset, negotiate, set the rings up, and go."""
        device = self.device
        device.write_status(0)
        device.write_status(Status.ACKNOWLEDGE | Status.DRIVER)
        wanted = device.features & features | bits(Feature.VERSION_1)
        wanted &= ~bits(Feature.RING_PACKED, Feature.EVENT_IDX)
        if self.kind is PackedDriver:
            wanted |= bits(Feature.RING_PACKED)
        device.select_features(0, wanted & 0xFFFF_FFFF)
        device.select_features(1, wanted >> 32)
        device.write_status(device.status | Status.FEATURES_OK)
        assert device.status & Status.FEATURES_OK
        self.drivers = []
        for queue in device.queues:
            driver = self.kind(self.memory, self.ring)
            queue.size = self.ring
            queue.descriptors, queue.driver, queue.device = (
                *(driver.descriptors, driver.driver, driver.device),
            )
            device.enable_queue(queue.index)
            self.drivers.append(driver)
        device.write_status(device.status | Status.DRIVER_OK)
        assert device.live, self.log

    def queue_interrupt(self, index: int) -> None:
        self.interrupts.append(index)

    def config_interrupt(self) -> None:
        self.config_interrupts += 1

    def request(
        self, queue: int, out: Sequence[bytes], room: Sequence[int] = (), *, notify: bool = True
    ) -> list[int]:
        """Make a chain of these pieces available; return where its writable pieces lie."""
        pieces = [Piece(self.memory.put(data), len(data), False) for data in out]
        places = [Piece(self.memory.alloc(size), size, True) for size in room]
        self.drivers[queue].add(pieces + places)
        if notify:
            self.device.notify(queue)
        return [piece.gpa for piece in places]

    def ask(self, queue: int, out: Sequence[bytes], room: int) -> bytes:
        """Send a request, let time pass until it is answered, and return the answer."""
        gpa = self.request(queue, out, (room,))[0]
        for _ in range(100):
            if used := self.drivers[queue].used():
                return self.memory.ram.read(gpa, used[0][1])
            self.let_time_pass()
        raise AssertionError("no answer")

    def let_time_pass(self) -> bool:
        """Go to the device's next event; False if there is none."""
        event = self.device.next_event()
        if event is None:
            return False
        self.clock.now = max(self.clock.now, event)
        self.device.fire()
        return True
