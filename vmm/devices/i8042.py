"""The keyboard controller, with a keyboard and no mouse; guests also ask it for A20 and a reset.

Offsets: 0 data (port 0x60), 4 status and command (port 0x64). Whatever waits at the keyboard comes
as soon as the output buffer is free. IBM PS/2 Technical Reference, "Keyboard and Auxiliary Device
Controller".
"""

from collections.abc import Callable

from vmm.devices.device import IrqLine, State, Untimed
from vmm.devices.keyboard import RELEASE, Keyboard
from vmm.devices.keys import SET_1
from vmm.devices.saved import restore_fields, save_fields

OUTPUT_FULL, SYSTEM_FLAG, COMMAND_LAST, NOT_INHIBITED = 0x01, 0x04, 0x08, 0x10
A20_BIT, RUN_BIT = 0x02, 0x01
"""Output port: bit 1 opens A20, bit 0 low holds the processor in reset."""
INTERRUPTS, KEYBOARD_OFF, TRANSLATE = 0x01, 0x10, 0x40
"""Mode: bit 0 lets the keyboard interrupt, bit 4 stops its clock, bit 6 makes set 2 into set 1."""

READ_MODE, WRITE_MODE, SELF_TEST, KEYBOARD_TEST = 0x20, 0x60, 0xAA, 0xAB
DISABLE_KEYBOARD, ENABLE_KEYBOARD = 0xAD, 0xAE
AUX_TEST, READ_OUTPUT, WRITE_OUTPUT, ECHO_KEYBOARD, WRITE_AUX = 0xA9, 0xD0, 0xD1, 0xD2, 0xD4
NO_DEVICE, TEST_PASSED, SELF_TEST_PASSED = 0x01, 0x00, 0x55
"""Interface test result 1 is "clock line stuck low": nothing is plugged in."""
_WITH_DATA = frozenset({WRITE_MODE, WRITE_OUTPUT, ECHO_KEYBOARD, WRITE_AUX})

_SAVED = ("_mode", "_output_port", "_data", "_full", "_command", "_tested", "_released", "_wrote")


class KeyboardController(Untimed):
    """The 8042's commands, its one output buffer, and the translation."""

    def __init__(
        self, reset: Callable[[], None], irq: IrqLine = lambda _level: None, name: str = "i8042"
    ) -> None:
        """`reset` is called for command 0xfe and for an output port with bit 0 clear."""
        self.name = name
        self.keyboard = Keyboard()
        self._reset = reset
        self._irq = irq
        self._mode = INTERRUPTS | TRANSLATE  # as firmware leaves it
        self._output_port = A20_BIT | RUN_BIT
        self._data = 0
        self._full = False
        self._tested = True
        self._released = False  # the keyboard's last byte was the release prefix
        self._wrote = False  # the last write was a command
        self._command = 0  # waits for its data byte

    @property
    def a20(self) -> bool:
        """What the guest last asked for; the address line itself is always open."""
        return bool(self._output_port & A20_BIT)

    def type(self, data: bytes) -> None:
        """Somebody types."""
        self.keyboard.type(data)
        self._fetch()

    def read(self, offset: int, _size: int) -> int:
        """Return status, or take the byte in the output buffer."""
        if offset == 4:
            full = OUTPUT_FULL if self._full else 0
            tested = SYSTEM_FLAG if self._tested else 0
            return NOT_INHIBITED | full | tested | (COMMAND_LAST if self._wrote else 0)
        value, self._full = self._data, False
        self._irq(False)
        self._fetch()
        return value

    def write(self, offset: int, _size: int, value: int) -> None:
        """Give a command (offset 4), its data byte, or a byte for the keyboard (offset 0)."""
        value &= 0xFF
        self._wrote = offset == 4
        if offset == 4:
            self._give_command(value)
        elif offset == 0:
            command, self._command = self._command, 0
            self._take_data(command, value)
        self._fetch()

    def save(self) -> State:
        """Mode, output port, the pending answer, and the keyboard."""
        return save_fields(self, _SAVED) | {"keyboard": self.keyboard.save()}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        restore_fields(self, _SAVED, state)
        keyboard = state["keyboard"]
        assert isinstance(keyboard, list)
        self.keyboard.restore(keyboard)

    def _give_command(self, value: int) -> None:
        self._command = value if value in _WITH_DATA else 0
        if value == READ_MODE:
            self._answer(self._mode)
        elif value == SELF_TEST:
            self._tested = True
            self._answer(SELF_TEST_PASSED)
        elif value in (KEYBOARD_TEST, AUX_TEST):
            self._answer(TEST_PASSED if value == KEYBOARD_TEST else NO_DEVICE)
        elif value in (DISABLE_KEYBOARD, ENABLE_KEYBOARD):
            off = KEYBOARD_OFF if value == DISABLE_KEYBOARD else 0
            self._mode = self._mode & ~KEYBOARD_OFF | off
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
        elif command == 0:
            self._mode &= ~KEYBOARD_OFF  # a byte for the keyboard starts its clock
            self.keyboard.receive(value)

    def _answer(self, value: int) -> None:
        """Put a byte into the output buffer, over what is there; an edge if it may interrupt."""
        self._data, self._full = value, True
        if self._mode & INTERRUPTS:
            self._irq(False)
            self._irq(True)

    def _fetch(self) -> None:
        """Let the keyboard fill a free output buffer; the release prefix becomes bit 7."""
        while not self._full and not self._mode & KEYBOARD_OFF:
            value = self.keyboard.take()
            if value is None:
                return
            if not self._mode & TRANSLATE:
                self._answer(value)
            elif value == RELEASE:
                self._released = True
            else:
                pressed = SET_1.get(value, value)
                self._answer(pressed | 0x80 if self._released else pressed)
                self._released = False
