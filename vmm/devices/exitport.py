"""The two ports by which a guest ends its run: 0xf4 with a status, 0x8900 with a word."""

from collections.abc import Callable

from vmm.devices.device import State, Stateless, Untimed
from vmm.devices.saved import restore_fields, save_fields

SHUTDOWN = b"Shutdown"


class ExitPort(Stateless):
    """QEMU's isa-debug-exit: a value of 1, 2 or 4 bytes written here is the guest's verdict."""

    def __init__(self, debug_exit: Callable[[int], None], name: str = "exitport") -> None:
        """`debug_exit` gets the value as written, before it becomes an exit status."""
        self.name = name
        self._debug_exit = debug_exit

    def read(self, _offset: int, size: int) -> int:
        """Reads have no meaning here and float."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """End the run with this value."""
        if offset == 0:
            self._debug_exit(value & ((1 << 8 * size) - 1))


class ShutdownPort(Untimed):
    """Bochs' shutdown port: the letters of "Shutdown", one by one, power the machine off."""

    def __init__(self, poweroff: Callable[[], None], name: str = "shutdown") -> None:
        """`poweroff` is called at the last letter."""
        self.name = name
        self._poweroff = poweroff
        self._matched = 0

    def read(self, _offset: int, size: int) -> int:
        """Reads have no meaning here and float."""
        return (1 << 8 * size) - 1

    def write(self, _offset: int, _size: int, value: int) -> None:
        """Take one letter; a wrong one starts the word again (and may be its first letter)."""
        letter = value & 0xFF
        if letter == SHUTDOWN[self._matched]:
            self._matched += 1
        else:
            self._matched = int(letter == SHUTDOWN[0])
        if self._matched == len(SHUTDOWN):
            self._matched = 0
            self._poweroff()

    def save(self) -> State:
        """How many letters have matched."""
        return save_fields(self, ("_matched",))

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, ("_matched",), state)
