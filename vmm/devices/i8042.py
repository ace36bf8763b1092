"""The keyboard controller without a keyboard: what a guest asks it for is A20 and a reset.

Offsets: 0 data (port 0x60), 4 status and command (port 0x64).
"""

from collections.abc import Callable

from vmm.devices.device import State, Untimed
from vmm.devices.saved import restore_fields, save_fields

OUTPUT_FULL, SYSTEM_FLAG = 0x01, 0x04
A20_BIT, RUN_BIT = 0x02, 0x01
"""Output port: bit 1 opens A20, bit 0 low holds the processor in reset."""

READ_MODE, WRITE_MODE, SELF_TEST, KEYBOARD_TEST = 0x20, 0x60, 0xAA, 0xAB
AUX_TEST, READ_OUTPUT, WRITE_OUTPUT, ECHO_KEYBOARD = 0xA9, 0xD0, 0xD1, 0xD2
NO_DEVICE = 0x01
"""Interface test result "clock line stuck low": nothing is plugged in."""

_SAVED = ("_mode", "_output_port", "_data", "_full", "_command", "_tested")


class KeyboardController(Untimed):
    """The 8042's commands; nothing ever sits at the other end of its wires."""

    def __init__(self, reset: Callable[[], None], name: str = "i8042") -> None:
        """`reset` is called for command 0xfe and for an output port with bit 0 clear."""
        self.name = name
        self._reset = reset
        self._mode = 0
        self._output_port = A20_BIT | RUN_BIT
        self._data = 0
        self._full = self._tested = False
        self._command = 0  # waits for its data byte

    @property
    def a20(self) -> bool:
        """What the guest last asked for; the address line itself is always open."""
        return bool(self._output_port & A20_BIT)

    def read(self, offset: int, _size: int) -> int:
        """Return status or the answer of the last command."""
        if offset == 4:
            return (OUTPUT_FULL if self._full else 0) | (SYSTEM_FLAG if self._tested else 0)
        self._full = False
        return self._data

    def write(self, offset: int, _size: int, value: int) -> None:
        """Give a command (offset 4) or its data byte (offset 0)."""
        value &= 0xFF
        if offset == 4:
            self._give_command(value)
        elif offset == 0:
            command, self._command = self._command, 0
            self._take_data(command, value)

    def save(self) -> State:
        """Mode, output port and the pending answer."""
        return save_fields(self, _SAVED)

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, _SAVED, state)

    def _give_command(self, value: int) -> None:
        self._command = value if value in (WRITE_MODE, WRITE_OUTPUT, ECHO_KEYBOARD) else 0
        if value == READ_MODE:
            self._answer(self._mode)
        elif value == SELF_TEST:
            self._tested = True
            self._answer(0x55)
        elif value in (KEYBOARD_TEST, AUX_TEST):
            self._answer(NO_DEVICE)
        elif value == READ_OUTPUT:
            self._answer(self._output_port)
        elif value >= 0xF0 and not value & RUN_BIT:
            self._reset()  # pulse output bits 3..0: a low bit 0 is the reset line

    def _take_data(self, command: int, value: int) -> None:
        if command == WRITE_MODE:
            self._mode = value
        elif command == WRITE_OUTPUT:
            self._output_port = value
            if not value & RUN_BIT:
                self._reset()
        elif command == ECHO_KEYBOARD:
            self._answer(value)

    def _answer(self, value: int) -> None:
        self._data, self._full = value, True
