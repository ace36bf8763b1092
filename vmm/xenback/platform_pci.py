"""Xen's platform PCI device: how a guest that enters as a PC finds Xen's devices.

Facts: Xen, docs/misc/hvm-emulated-unplug.pandoc (the ports); Linux, include/xen/platform_pci.h and
drivers/xen/platform-pci.c. Its memory is room for the grant table, its interrupt pin makes upcalls
for a guest that takes no vector. Nothing is there to be unplugged: disks and network cards are
Xen's from the start.
"""

from collections.abc import Callable
from typing import Final

from vmm.devices.device import State, Untimed
from vmm.devices.pci.bar import Bar, BarKind
from vmm.devices.pci.function import Identity, PciFunction

VENDOR, DEVICE = 0x5853, 0x0001
_CLASS: Final = 0xFF8000
FIRST_PORT, PORTS = 0x10, 4
MAGIC, PROTOCOL = 0x49D2, 1
_COMMAND, _LOG = 0, 2  # offsets of the ports
_PORT_BYTES, _MEMORY_BYTES = 256, 16 << 20
LINE_MAX: Final = 4096


class XenPlatform(Untimed, PciFunction):
    """The PCI function, with a range of ports and 16 MiB of memory where nothing answers."""

    def __init__(self) -> None:
        """Nothing is asserted."""
        bars = {
            0: Bar(_PORT_BYTES, _floats, _drops, BarKind.IO, name="xen-platform"),
            1: Bar(_MEMORY_BYTES, _floats, _drops, prefetchable=True, name="xen-memory"),
        }
        identity = Identity(VENDOR, DEVICE, _CLASS, 1, VENDOR, DEVICE)
        super().__init__("xen-platform", identity, bars)


class PlatformPorts(Untimed):
    """The fixed ports: magic, what is to be unplugged, the log, a driver's name."""

    name = "xen-platform-ports"

    def __init__(self, log: Callable[[bytes], None]) -> None:
        """Lines of the guest's log go to `log`."""
        self._log: Final = log
        self.unplugged = self.product = self.driver = self.flags = 0
        self._line = b""

    def read(self, offset: int, size: int) -> int:
        """Return the magic number, the protocol, or the flags."""
        if (offset, size) == (_COMMAND, 2):
            return MAGIC
        if (offset, size) == (_LOG, 1):
            return PROTOCOL
        return self.flags if (offset, size) == (_COMMAND, 1) else _floats(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Take what belongs to the width of the access."""
        if offset == _COMMAND:
            name = {1: "flags", 2: "unplugged", 4: "driver"}[size]
            setattr(self, name, value)
        elif (offset, size) == (_LOG, 2):
            self.product = value
        elif (offset, size) == (_LOG, 1):
            self._write_log(value)

    def _write_log(self, character: int) -> None:
        self._line += bytes((character,))
        if character == ord("\n") or len(self._line) >= LINE_MAX:
            line, self._line = self._line, b""
            self._log(line)

    def save(self) -> State:
        """Every register, and the line that is not over."""
        kept = (self.unplugged, self.product, self.driver, self.flags)
        return {"version": 1, "registers": list(kept), "line": self._line}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        registers, line = state["registers"], state["line"]
        assert isinstance(registers, list)
        assert isinstance(line, bytes)
        self.unplugged, self.product, self.driver, self.flags = registers
        self._line = line


def _floats(_offset: int, size: int) -> int:
    return (1 << 8 * size) - 1


def _drops(_offset: int, _size: int, _value: int) -> None:
    """Nobody listens."""
