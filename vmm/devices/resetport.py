"""Two ports that reset the machine, and one that shows where a boot stands."""

from collections.abc import Callable

from vmm.devices.device import State, Untimed
from vmm.devices.saved import restore_fields, save_fields

RESET_CPU = 0x04
"""0xcf9 bit 2: its rising edge resets; bit 1 chooses how hard, which is one to us."""
FAST_RESET, A20_OPEN = 0x01, 0x02


class Latch(Untimed):
    """A byte that reads back as written: the POST port 0x80 (and delay loops)."""

    def __init__(self, name: str = "post") -> None:
        """A latch of zero."""
        self.name = name
        self._value = 0

    def read(self, _offset: int, _size: int) -> int:
        """Return the byte last written."""
        return self._value

    def write(self, _offset: int, _size: int, value: int) -> None:
        """Keep the byte."""
        self._value = value & 0xFF

    def save(self) -> State:
        """The byte."""
        return save_fields(self, ("_value",))

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, ("_value",), state)


class ResetControl(Latch):
    """Port 0xcf9 of Intel's south bridges (data sheets, "Reset Control Register")."""

    def __init__(self, reset: Callable[[], None], name: str = "cf9") -> None:
        """`reset` is called when bit 2 rises."""
        super().__init__(name)
        self._reset = reset

    def write(self, _offset: int, _size: int, value: int) -> None:
        """Keep bits 3..1; a rising bit 2 resets."""
        rises = value & ~self._value & RESET_CPU
        self._value = value & 0x0E
        if rises:
            self._value &= ~RESET_CPU
            self._reset()


class Port92(Latch):
    """Port 0x92 of the PS/2: A20 (always open here) and the fast reset."""

    def __init__(self, reset: Callable[[], None], name: str = "port92") -> None:
        """`reset` is called when bit 0 rises."""
        super().__init__(name)
        self._value = A20_OPEN
        self._reset = reset

    def write(self, _offset: int, _size: int, value: int) -> None:
        """Keep the byte with A20 open; a rising bit 0 resets."""
        rises = value & ~self._value & FAST_RESET
        self._value = value & 0xFF | A20_OPEN
        if rises:
            self._value &= ~FAST_RESET
            self._reset()
