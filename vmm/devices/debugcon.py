"""The debug console at port 0xe9 (Bochs and QEMU): a byte written is a byte shown."""

from collections.abc import Callable

from vmm.devices.device import Stateless

PRESENT = 0xE9
"""What a read returns, so that a guest can find the port (Bochs' manual, "port 0xE9 hack")."""


class DebugConsole(Stateless):
    """Offset 0: write shows a byte, read returns 0xe9."""

    def __init__(self, output: Callable[[bytes], None], name: str = "debugcon") -> None:
        """`output` gets each byte as it is written."""
        self.name = name
        self._output = output

    def read(self, _offset: int, _size: int) -> int:
        """Return the signature byte."""
        return PRESENT

    def write(self, _offset: int, _size: int, value: int) -> None:
        """Show the low byte."""
        self._output(bytes([value & 0xFF]))
