"""QEMU's firmware configuration ports, as much of them as guests without firmware ask for.

Offset 0 is the 16-bit selector (port 0x510), offset 1 the data port (0x511), from which an item is
read byte by byte, little-endian. An item that does not exist, and the end of one, read as zero.
QEMU's documentation, "QEMU Firmware Configuration (fw_cfg) Device".
"""

from enum import IntEnum

from vmm.devices.device import State, Untimed
from vmm.devices.saved import restore_fields, save_fields


class Item(IntEnum):
    """Selector values."""

    SIGNATURE = 0x00
    ID = 0x01
    RAM_SIZE = 0x03
    NO_GRAPHIC = 0x04
    CPU_COUNT = 0x05
    MAX_CPUS = 0x0F
    MAX_RAM = 0x11
    """kvm-unit-tests' own: the memory that it may use."""
    IRQ0_OVERRIDE = 0x8002


TRADITIONAL_INTERFACE = 1
"""ID bit 0; bit 1 would be the DMA interface."""


class FwCfg(Untimed):
    """Selector and data port."""

    def __init__(self, cpus: int, memory: int, name: str = "fwcfg") -> None:
        """`cpus` is the number of processors, `memory` the RAM in bytes."""
        self.name = name
        self._selector = 0
        self._position = 0
        self._items = {
            Item.SIGNATURE: b"QEMU",
            Item.ID: TRADITIONAL_INTERFACE.to_bytes(4, "little"),
            Item.RAM_SIZE: memory.to_bytes(8, "little"),
            Item.NO_GRAPHIC: (1).to_bytes(2, "little"),
            Item.CPU_COUNT: cpus.to_bytes(2, "little"),
            Item.MAX_CPUS: cpus.to_bytes(2, "little"),
            Item.MAX_RAM: memory.to_bytes(8, "little"),
            Item.IRQ0_OVERRIDE: b"\x01",
        }

    def read(self, offset: int, _size: int) -> int:
        """Return the next byte of the selected item (offset 1)."""
        if offset != 1:
            return 0
        content = self._content()
        byte = content[self._position] if self._position < len(content) else 0
        self._position += 1
        return byte

    def write(self, offset: int, size: int, value: int) -> None:
        """Select an item (offset 0, two bytes); data cannot be written."""
        if offset == 0 and size == 2:
            self._selector, self._position = value & 0xFFFF, 0

    def save(self) -> State:
        """Selector and position."""
        return save_fields(self, ("_selector", "_position"))

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, ("_selector", "_position"), state)

    def _content(self) -> bytes:
        return next((data for item, data in self._items.items() if item == self._selector), b"")
