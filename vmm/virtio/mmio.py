"""Virtio over MMIO, version 2 of its registers (virtio 1.2, "MMIO Device Register Layout").

One page of registers and one interrupt line; announced to the guest by ACPI as LNRO0005.
"""

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Final

from vmm.devices.device import IrqLine, State
from vmm.devices.saved import restore_fields, save_fields
from vmm.virtio.device import VirtioDevice
from vmm.virtio.queue import VirtQueue

MMIO_SIZE: Final = 0x200
"""Bytes that a device takes up: registers below 0x100, its configuration space above."""
MAGIC: Final = 0x7472_6976
VERSION: Final = 2
VENDOR: Final = 0x554D_4551
"""What drivers know; the number has no meaning."""
CONFIG: Final = 0x100
ALL_ONES: Final = 0xFFFF_FFFF
USED_BUFFER, CONFIG_CHANGE = 1, 2
_SAVED: Final = ("device_word", "driver_word", "queue_select", "interrupts")


class Reg(IntEnum):
    """Offsets; all registers are 32 bits wide."""

    MAGIC = 0x00
    VERSION = 0x04
    DEVICE_ID = 0x08
    VENDOR_ID = 0x0C
    DEVICE_FEATURES = 0x10
    DEVICE_FEATURES_SEL = 0x14
    DRIVER_FEATURES = 0x20
    DRIVER_FEATURES_SEL = 0x24
    QUEUE_SEL = 0x30
    QUEUE_SIZE_MAX = 0x34
    QUEUE_SIZE = 0x38
    QUEUE_READY = 0x44
    QUEUE_NOTIFY = 0x50
    INTERRUPT_STATUS = 0x60
    INTERRUPT_ACK = 0x64
    STATUS = 0x70
    QUEUE_DESC = 0x80
    QUEUE_DRIVER = 0x90
    QUEUE_DEVICE = 0xA0
    SHM_LENGTH = 0xB0
    SHM_BASE = 0xB8
    QUEUE_RESET = 0xC0
    CONFIG_GENERATION = 0xFC


class MmioTransport:
    """A virtio device as registers in guest-physical memory."""

    def __init__(self, device: VirtioDevice, irq: IrqLine, name: str | None = None) -> None:
        """`irq` is held while an interrupt is not acknowledged."""
        self.name: Final = name or f"{device.name}-mmio"
        self.device: Final = device
        self._irq: Final = irq
        self.device_word = self.driver_word = self.queue_select = self.interrupts = 0
        self._readers: Final = self._read_table()
        self._writers: Final = self._write_table()
        device.attach(self)

    # ---- the bus ----

    def read(self, offset: int, size: int) -> int:
        """Return a register (32 bits, aligned: else zero) or bytes of the configuration space."""
        if offset >= CONFIG:
            return self.device.read_config(offset - CONFIG, size)
        reader = self._readers.get(offset)
        return reader() & ALL_ONES if reader is not None and size == 4 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Write a register or the configuration space; what does not exist is dropped."""
        if offset >= CONFIG:
            self.device.write_config(offset - CONFIG, size, value)
            return
        writer = self._writers.get(offset)
        if writer is not None and size == 4:
            writer(value & ALL_ONES)

    def next_event(self) -> int | None:
        """Return the device's."""
        return self.device.next_event()

    def fire(self) -> None:
        """Let the device do what is due."""
        self.device.fire()

    def save(self) -> State:
        """Return registers and device."""
        core = {f"core_{name}": value for name, value in self.device.save().items()}
        return save_fields(self, _SAVED) | core

    def restore(self, state: State) -> None:
        """Take over what save() returned; the line's level is the controllers' to restore."""
        restore_fields(self, _SAVED, state)
        core = {k.removeprefix("core_"): v for k, v in state.items() if k.startswith("core_")}
        self.device.restore(core)

    # ---- the device ----

    def queue_interrupt(self, index: int) -> None:
        """Hold the line for used buffers."""
        del index
        self._raise(USED_BUFFER)

    def config_interrupt(self) -> None:
        """Hold the line for a change of configuration or status."""
        self._raise(CONFIG_CHANGE)

    def _raise(self, cause: int) -> None:
        self.interrupts |= cause
        self._irq(True)

    # ---- registers ----

    def _read_table(self) -> dict[int, Callable[[], int]]:
        device = self.device
        return {
            Reg.MAGIC: lambda: MAGIC,
            Reg.VERSION: lambda: VERSION,
            Reg.DEVICE_ID: lambda: device.device_id,
            Reg.VENDOR_ID: lambda: VENDOR,
            Reg.DEVICE_FEATURES: lambda: device.offered(self.device_word),
            Reg.QUEUE_SIZE_MAX: lambda: self._of_queue(lambda queue: queue.size_max),
            Reg.QUEUE_READY: lambda: self._of_queue(lambda queue: int(queue.enabled)),
            Reg.INTERRUPT_STATUS: lambda: self.interrupts,
            Reg.STATUS: lambda: device.status,
            Reg.SHM_LENGTH: lambda: ALL_ONES,  # no shared memory region
            Reg.SHM_LENGTH + 4: lambda: ALL_ONES,
            Reg.SHM_BASE: lambda: ALL_ONES,
            Reg.SHM_BASE + 4: lambda: ALL_ONES,
            Reg.CONFIG_GENERATION: lambda: device.generation,
        }

    def _write_table(self) -> dict[int, Callable[[int], None]]:
        table: dict[int, Callable[[int], None]] = {
            Reg.DEVICE_FEATURES_SEL: partial(setattr, self, "device_word"),
            Reg.DRIVER_FEATURES_SEL: partial(setattr, self, "driver_word"),
            Reg.QUEUE_SEL: partial(setattr, self, "queue_select"),
            Reg.DRIVER_FEATURES: lambda value: self.device.select_features(self.driver_word, value),
            Reg.QUEUE_SIZE: self._set_size,
            Reg.QUEUE_READY: self._set_ready,
            Reg.QUEUE_NOTIFY: self.device.notify,
            Reg.QUEUE_RESET: self._reset_queue,
            Reg.INTERRUPT_ACK: self._acknowledge,
            Reg.STATUS: self._set_status,
        }
        areas = {
            Reg.QUEUE_DESC: "descriptors",
            Reg.QUEUE_DRIVER: "driver",
            Reg.QUEUE_DEVICE: "device",
        }
        for offset, area in areas.items():
            table[offset] = partial(self._set_address, area, 0)
            table[offset + 4] = partial(self._set_address, area, 32)
        return table

    def _selected(self) -> VirtQueue | None:
        queues = self.device.queues
        return queues[self.queue_select] if self.queue_select < len(queues) else None

    def _of_queue(self, value: Callable[[VirtQueue], int]) -> int:
        queue = self._selected()
        return 0 if queue is None else value(queue)

    def _set_size(self, value: int) -> None:
        if (queue := self._selected()) is not None and not queue.enabled:
            queue.size = value

    def _set_address(self, area: str, shift: int, value: int) -> None:
        if (queue := self._selected()) is not None and not queue.enabled:
            kept = getattr(queue, area) & ~(ALL_ONES << shift)
            setattr(queue, area, kept | value << shift)

    def _set_ready(self, value: int) -> None:
        if (queue := self._selected()) is None:
            return
        if value & 1:
            self.device.enable_queue(queue.index)
        elif queue.enabled:
            self.device.stop_queue(queue.index)

    def _reset_queue(self, value: int) -> None:
        if value & 1 and (queue := self._selected()) is not None:
            self.device.reset_queue(queue.index)

    def _acknowledge(self, value: int) -> None:
        self.interrupts &= ~value
        self._irq(bool(self.interrupts))

    def _set_status(self, value: int) -> None:
        self.device.write_status(value & 0xFF)
        if not value & 0xFF:
            self._acknowledge(ALL_ONES)
