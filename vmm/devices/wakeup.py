"""The multiprocessor wake-up mailbox (ACPI 6.4, "Multiprocessor Wakeup Structure").

    offset 0  command, 16 bits: 1 wakes    4  APIC ID    8  64-bit address to start at

Firmware would let the other processors spin on a page of RAM. Here they sleep and the page is a
device: a command to a processor that waits starts it, and the command reads as zero again; one to
any other stays, as nobody takes it. The upper half of the page is the firmware's.
"""

from collections.abc import Callable

from vmm.devices.device import State, Untimed
from vmm.devices.saved import restore_fields, save_fields

SIZE, OS_HALF = 0x1000, 0x800
COMMAND, APIC_ID, ADDRESS = 0, 4, 8
NOTHING, WAKE = 0, 1

WakeUp = Callable[[int, int], bool]
"""wake(APIC ID, address): start a processor in 64-bit mode there; False if it does not wait."""


class WakeupMailbox(Untimed):
    """One page, shared by all processors."""

    def __init__(self, wake: WakeUp, name: str = "wakeup") -> None:
        """`wake` starts a processor."""
        self.name = name
        self._wake = wake
        self._bytes = bytearray(OS_HALF)

    def read(self, offset: int, size: int) -> int:
        """Return what was written, and a command until somebody takes it."""
        return int.from_bytes(self._bytes[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Keep the bytes; look at the command if it is among them."""
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        data = data[: max(OS_HALF - offset, 0)]
        self._bytes[offset : offset + len(data)] = data
        if offset < COMMAND + 2 and self._number(COMMAND, 2) == WAKE:
            self._obey()

    def save(self) -> State:
        """The page."""
        return save_fields(self, ("_bytes",))

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, ("_bytes",), state)

    def _obey(self) -> None:
        if self._wake(self._number(APIC_ID, 4), self._number(ADDRESS, 8)):
            self._bytes[COMMAND : COMMAND + 2] = NOTHING.to_bytes(2, "little")

    def _number(self, offset: int, size: int) -> int:
        return int.from_bytes(self._bytes[offset : offset + size], "little")
