"""Virtio over PCI, the modern interface (virtio 1.2, "Virtio Over PCI Bus").

BAR 0 holds the four structures, a page each; MSI-X has a BAR of its own: one vector a queue and one
for the configuration.
"""

from enum import IntEnum
from typing import Final

from vmm.devices.device import State
from vmm.devices.pci.bar import Bar
from vmm.devices.pci.function import Identity, PciFunction
from vmm.devices.pci.registers import Capability
from vmm.devices.saved import restore_fields, save_fields
from vmm.virtio.device import VirtioDevice
from vmm.virtio.pci_common import CommonConfig

VENDOR: Final = 0x1AF4
FIRST_DEVICE: Final = 0x1040
"""The PCI device ID is this plus the virtio device ID."""
REVISION: Final = 1
SUBSYSTEM: Final = 0x1100
"""As QEMU has it; the specification asks for 0x40 or more."""
COMMON, ISR, DEVICE, NOTIFY, END = 0x0000, 0x1000, 0x2000, 0x3000, 0x4000
NOTIFY_STEP: Final = 4
USED_BUFFER, CONFIG_CHANGE = 1, 2
_CONFIG_DATA: Final = 16  # offset of pci_cfg_data in its capability
_OTHER_CLASS: Final = 0xFF0000
CLASSES: Final = {
    1: 0x020000,  # net: Ethernet controller
    2: 0x010000,  # block: SCSI storage, as QEMU has it
    3: 0x078000,  # console: other communication device
    8: 0x010000,  # SCSI host
    26: 0x018000,  # fs: other mass storage
}
"""Virtio device ID -> PCI class code (PCI Code and ID Assignment Specification)."""


class Structure(IntEnum):
    """cfg_type of a virtio capability."""

    COMMON = 1
    NOTIFY = 2
    ISR = 3
    DEVICE = 4
    PCI = 5


class VirtioPci(PciFunction):
    """A virtio device as a PCI function."""

    def __init__(self, device: VirtioDevice) -> None:
        """Show `device`; plug() gives it a place."""
        identity = Identity(
            VENDOR,
            FIRST_DEVICE + device.device_id,
            CLASSES.get(device.device_id, _OTHER_CLASS),
            REVISION,
            VENDOR,
            SUBSYSTEM,
        )
        bar = Bar(END, self._read_bar, self._write_bar, name=device.name)
        vectors = len(device.queues) + 1
        super().__init__(device.name, identity, {0: bar}, vectors=vectors)
        self.device: Final = device
        self.common: Final = CommonConfig(device, vectors)
        self.isr = 0
        self._window = 0
        self._add_capabilities()
        device.attach(self)

    # ---- interrupts ----

    def queue_interrupt(self, index: int) -> None:
        """Send the queue's message, or assert the pin."""
        self._interrupt(USED_BUFFER, self.common.vectors[index])

    def config_interrupt(self) -> None:
        """Send the configuration's message, or assert the pin."""
        self._interrupt(CONFIG_CHANGE, self.common.config_vector)

    def _interrupt(self, cause: int, vector: int) -> None:
        assert self.msix is not None
        if not self.msix.notify(vector):
            self.isr |= cause
            self.set_intx(True)

    # ---- registers ----

    def _read_bar(self, offset: int, size: int) -> int:
        if offset < ISR:
            return self.common.read(offset, size)
        if offset < DEVICE:
            return self._read_isr() if offset == ISR else 0
        if offset < NOTIFY:
            return self.device.read_config(offset - DEVICE, size)
        return 0

    def _write_bar(self, offset: int, size: int, value: int) -> None:
        if offset >= NOTIFY:
            self.device.notify((offset - NOTIFY) // NOTIFY_STEP)
        elif offset >= DEVICE:
            self.device.write_config(offset - DEVICE, size, value)
        elif offset < ISR:
            self.common.write(offset, size, value)
            if not self.device.status:
                self._read_isr()

    def _read_isr(self) -> int:
        """Reading says what happened, and takes the interrupt back."""
        seen, self.isr = self.isr, 0
        self.set_intx(False)
        return seen

    # ---- the window through configuration space ----

    def _read_window(self, offset: int, size: int) -> None:
        """Before pci_cfg_data is read: do the access that the other fields describe."""
        if offset + size > _CONFIG_DATA and (place := self._target()) is not None:
            bar, start, length = place
            value = bar.read(start, length)
            self.space[self._window + _CONFIG_DATA, 4] = value & 0xFFFF_FFFF

    def _write_window(self, offset: int, size: int) -> None:
        if offset + size > _CONFIG_DATA and (place := self._target()) is not None:
            bar, start, length = place
            bar.write(start, length, self.space[self._window + _CONFIG_DATA, length])
            self.device.rescheduled()  # configuration space is not where events are looked for

    def _target(self) -> tuple[Bar, int, int] | None:
        """Return (BAR, offset, bytes) of the access, None for one that cannot be."""
        number = self.space[self._window + 4, 1]
        start, length = self.space[self._window + 8, 4], self.space[self._window + 12, 4]
        bar = self.bars.get(number)
        if bar is None or length not in (1, 2, 4) or start % length or start + length > bar.size:
            return None
        return bar, start, length

    def _add_capabilities(self) -> None:
        for kind, start, end, extra in (
            (Structure.COMMON, COMMON, ISR, b""),
            (Structure.NOTIFY, NOTIFY, END, NOTIFY_STEP.to_bytes(4, "little")),
            (Structure.ISR, ISR, DEVICE, b""),
            (Structure.DEVICE, DEVICE, NOTIFY, b""),
        ):
            body = _capability(kind, start, end - start, extra)
            self.space.add_capability(Capability.VENDOR, body)
        self._window = self.space.add_capability(
            Capability.VENDOR,
            _capability(Structure.PCI, 0, 0, bytes(4)),
            b"\0\0\xff\0\0\0" + b"\xff" * 12,
            self._read_window,
            self._write_window,
        )

    # ---- time and state ----

    def next_event(self) -> int | None:
        """Return the device's."""
        return self.device.next_event()

    def fire(self) -> None:
        """Let the device do what is due."""
        self.device.fire()

    def save(self) -> State:
        """Return function, structures and device."""
        core = {f"core_{name}": value for name, value in self.device.save().items()}
        own = save_fields(self, ("isr",)) | {"common": self.common.save()}
        return own | super().save() | core

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        super().restore(state)
        restore_fields(self, ("isr",), state)
        common = state["common"]
        assert isinstance(common, list)
        self.common.restore(common)
        core = {k.removeprefix("core_"): v for k, v in state.items() if k.startswith("core_")}
        self.device.restore(core)


def _capability(kind: Structure, offset: int, length: int, extra: bytes) -> bytes:
    """Return struct virtio_pci_cap behind ID and link: length, type, BAR 0, place, extra bytes."""
    place = offset.to_bytes(4, "little") + length.to_bytes(4, "little")
    return bytes((16 + len(extra), kind, 0, 0, 0, 0)) + place + extra
