"""struct virtio_pci_common_cfg: the registers that set a device and its queues up."""

from collections.abc import Callable
from typing import Final

from vmm.virtio.device import VirtioDevice
from vmm.virtio.queue import VirtQueue

NO_VECTOR: Final = 0xFFFF
_LOW: Final = 0xFFFF_FFFF

Reader = Callable[[], int]
Writer = Callable[[int], None]
_SELECTORS: Final = ("device_word", "driver_word", "queue_select", "config_vector")


def _drop(_value: int) -> None:
    """A read-only field."""


class CommonConfig:
    """Fields by offset, each accessed in its own width; 64-bit ones by halves too."""

    def __init__(self, device: VirtioDevice, vectors: int) -> None:
        """`vectors` MSI-X vectors can be chosen."""
        self._device: Final = device
        self._vector_count: Final = vectors
        self.device_word = self.driver_word = self.queue_select = 0
        self.config_vector = NO_VECTOR
        self.vectors: Final = [NO_VECTOR] * len(device.queues)
        self._fields: Final = self._device_fields() | self._queue_fields() | self._address_fields()

    def read(self, offset: int, size: int) -> int:
        """Return a field; zero for what is none."""
        if size == 8:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        field = self._fields.get((offset, size))
        return field[0]() & ((1 << 8 * size) - 1) if field is not None else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Write a field; what is none is dropped."""
        if size == 8:
            self.write(offset, 4, value & _LOW)
            self.write(offset + 4, 4, value >> 32)
        elif (field := self._fields.get((offset, size))) is not None:
            field[1](value)

    def save(self) -> list[int]:
        """Return selectors and vectors."""
        return [*(getattr(self, name) for name in _SELECTORS), *self.vectors]

    def restore(self, numbers: list[int]) -> None:
        """Take over what save() returned."""
        for name, number in zip(_SELECTORS, numbers, strict=False):
            setattr(self, name, number)
        self.vectors[:] = numbers[len(_SELECTORS) :]

    # ---- the table ----

    def _device_fields(self) -> dict[tuple[int, int], tuple[Reader, Writer]]:
        device = self._device
        return {
            (0x00, 4): (lambda: self.device_word, lambda v: setattr(self, "device_word", v)),
            (0x04, 4): (lambda: device.offered(self.device_word), _drop),
            (0x08, 4): (lambda: self.driver_word, lambda v: setattr(self, "driver_word", v)),
            (0x0C, 4): (self._accepted, lambda v: device.select_features(self.driver_word, v)),
            (0x10, 2): (lambda: self.config_vector, self._set_config_vector),
            (0x12, 2): (lambda: len(device.queues), _drop),
            (0x14, 1): (lambda: device.status, self._set_status),
            (0x15, 1): (lambda: device.generation, _drop),
            (0x16, 2): (lambda: self.queue_select, lambda v: setattr(self, "queue_select", v)),
        }

    def _queue_fields(self) -> dict[tuple[int, int], tuple[Reader, Writer]]:
        return {
            (0x18, 2): (self._of_queue(lambda queue: queue.size), self._set_size),
            (0x1A, 2): (self._vector, self._set_vector),
            (0x1C, 2): (self._of_queue(lambda queue: int(queue.enabled)), self._enable),
            (0x1E, 2): (self._of_queue(lambda queue: queue.index), _drop),
            (0x38, 2): (self._of_queue(lambda queue: queue.index), _drop),
            (0x3A, 2): (lambda: 0, self._reset_queue),
        }

    def _address_fields(self) -> dict[tuple[int, int], tuple[Reader, Writer]]:
        fields: dict[tuple[int, int], tuple[Reader, Writer]] = {}
        for offset, area in ((0x20, "descriptors"), (0x28, "driver"), (0x30, "device")):
            for shift in (0, 32):
                fields[offset + shift // 8, 4] = self._half(area, shift)
        return fields

    def _half(self, area: str, shift: int) -> tuple[Reader, Writer]:
        def write(value: int) -> None:
            if (queue := self._programmable()) is not None:
                kept = getattr(queue, area) & ~(_LOW << shift)
                setattr(queue, area, kept | value << shift)

        return self._of_queue(lambda queue: getattr(queue, area) >> shift & _LOW), write

    # ---- the fields' effects ----

    def _selected(self) -> VirtQueue | None:
        queues = self._device.queues
        return queues[self.queue_select] if self.queue_select < len(queues) else None

    def _programmable(self) -> VirtQueue | None:
        """The selected queue, while it is not enabled."""
        queue = self._selected()
        return None if queue is None or queue.enabled else queue

    def _of_queue(self, value: Callable[[VirtQueue], int]) -> Reader:
        def read() -> int:
            queue = self._selected()
            return 0 if queue is None else value(queue)

        return read

    def _accepted(self) -> int:
        word = self.driver_word
        return self._device.driver_features >> 32 * word & _LOW if word < 2 else 0

    def _set_status(self, value: int) -> None:
        self._device.write_status(value)
        if value == 0:
            self.config_vector = NO_VECTOR
            self.vectors[:] = [NO_VECTOR] * len(self.vectors)
            self.queue_select = 0

    def _set_size(self, value: int) -> None:
        if (queue := self._programmable()) is not None:
            queue.size = value

    def _enable(self, value: int) -> None:
        if value == 1 and (queue := self._selected()) is not None:
            self._device.enable_queue(queue.index)

    def _reset_queue(self, value: int) -> None:
        if value == 1 and (queue := self._selected()) is not None:
            self._device.reset_queue(queue.index)

    def _vector(self) -> int:
        queue = self._selected()
        return NO_VECTOR if queue is None else self.vectors[queue.index]

    def _set_vector(self, value: int) -> None:
        if (queue := self._selected()) is not None:
            self.vectors[queue.index] = self._known(value)

    def _set_config_vector(self, value: int) -> None:
        self.config_vector = self._known(value)

    def _known(self, vector: int) -> int:
        return vector if vector < self._vector_count else NO_VECTOR
