"""The two doors to configuration space: ports 0xcf8 and 0xcfc, and the memory window (ECAM)."""

from vmm.devices.device import State, Stateless, Untimed
from vmm.devices.pci.root import PciRoot
from vmm.devices.resetport import Latch
from vmm.devices.saved import restore_fields, save_fields

ENABLE = 1 << 31
ADDRESS, RESET, DATA = 0, 1, 4
_WRITABLE = ENABLE | 0xFF_FFFC
_ECAM_SHIFT = 12


class ConfigPorts(Untimed):
    """Mechanism #1 (PCI 3.0, "Software Generation of Configuration Transactions").

    Offset 0 (port 0xcf8) is the address register, as a doubleword only; the byte at offset 1 is the
    south bridge's reset control, which lies in between; offsets 4..7 (0xcfc) are the data.
    """

    def __init__(self, root: PciRoot, reset: Latch, name: str = "pci-ports") -> None:
        """`reset` answers at port 0xcf9."""
        self.name = name
        self._root = root
        self._reset = reset
        self._address = 0

    def read(self, offset: int, size: int) -> int:
        """Return the address, the reset control, or data of the chosen function."""
        if offset == ADDRESS and size == 4:
            return self._address
        if offset == RESET and size == 1:
            return self._reset.read(0, 1)
        place = self._place() if offset >= DATA else None
        if place is None:
            return (1 << 8 * size) - 1
        return self._root.read(place, self._register(offset), size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Choose a register, reset, or write data."""
        if offset == ADDRESS and size == 4:
            self._address = value & _WRITABLE
        elif offset == RESET and size == 1:
            self._reset.write(0, 1, value)
        elif offset >= DATA and (place := self._place()) is not None:
            self._root.write(place, self._register(offset), size, value)

    def save(self) -> State:
        """The address and the reset control."""
        return save_fields(self, ("_address",)) | {"reset": self._reset.save()["value"]}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, ("_address",), state)
        self._reset.restore({"version": 1, "value": state["reset"]})

    def _place(self) -> int | None:
        """The chosen slot and function; None off bus 0 or while the enable bit is clear."""
        bus = self._address >> 16 & 0xFF
        return self._address >> 8 & 0xFF if self._address & ENABLE and not bus else None

    def _register(self, offset: int) -> int:
        return self._address & 0xFC | offset - DATA


class Ecam(Stateless):
    """Enhanced configuration access (PCI Express, "PCI Express Enhanced Configuration Access
    Mechanism"): 4 KiB for each function of bus 0, all but the first 256 bytes of it all ones.
    """

    SIZE = 256 << _ECAM_SHIFT

    def __init__(self, root: PciRoot, name: str = "pci-ecam") -> None:
        """A window on `root`."""
        self.name = name
        self._root = root

    def read(self, offset: int, size: int) -> int:
        """Read a register."""
        return self._root.read(offset >> _ECAM_SHIFT, offset & 0xFFF, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Write a register."""
        self._root.write(offset >> _ECAM_SHIFT, offset & 0xFFF, size, value)
