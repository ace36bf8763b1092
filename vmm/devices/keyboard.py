"""A PS/2 keyboard: keys become scan codes of set 2, commands are answered (IBM PS/2 Technical
Reference, "Keyboard and Auxiliary Device Controller" and "101- and 102-Key Keyboards").
"""

from collections import deque
from typing import Final

from vmm.devices.keys import EXTENDED, Chord, chords

ACKNOWLEDGE, RESEND, SELF_TEST_PASSED, ECHO = 0xFA, 0xFE, 0xAA, 0xEE
RELEASE, PREFIX = 0xF0, 0xE0
SET_LEDS, CODE_SET, IDENTIFY, SET_RATE = 0xED, 0xF0, 0xF2, 0xF3
ENABLE, DISABLE, DEFAULTS, SEND_AGAIN, RESET = 0xF4, 0xF5, 0xF6, 0xFE, 0xFF
IDENTITY: Final = (0xAB, 0x83)
ROOM: Final = 4096
"""Bytes that wait at most: a real one has 16, but nobody pastes text into it."""
_WITH_ARGUMENT: Final = frozenset({SET_LEDS, CODE_SET, SET_RATE})
_LAST_SET: Final = 3


class Keyboard:
    """What sits at the other end of the controller's wire."""

    def __init__(self) -> None:
        """Powered up: scanning, nothing to say."""
        self._queue: deque[int] = deque()
        self._command = 0  # waits for its argument
        self._last = 0
        self.scanning = True
        self.leds = 0

    def type(self, data: bytes) -> None:
        """Press and release the keys that stand for what a terminal sent."""
        if self.scanning:
            for chord in chords(data):
                self._press(chord)

    def take(self) -> int | None:
        """Return the next byte for the controller, or None."""
        if not self._queue:
            return None
        self._last = self._queue.popleft()
        return self._last

    def receive(self, value: int) -> None:
        """Take a byte that the guest wrote: a command or its argument."""
        command, self._command = self._command, 0
        if command and value < ENABLE:
            self._argument(command, value)
        else:
            self._obey(value)

    def save(self) -> list[int]:
        """State and what waits to be sent."""
        return [self._command, self._last, int(self.scanning), self.leds, *self._queue]

    def restore(self, values: list[int]) -> None:
        """Take over what save() returned."""
        self._command, self._last, scanning, self.leds, *queue = values
        self.scanning, self._queue = bool(scanning), deque(queue)

    def _press(self, chord: Chord) -> None:
        for code in chord:
            self._send(*([PREFIX] if code >= EXTENDED else []), code & 0xFF)
        for code in reversed(chord):
            self._send(*([PREFIX] if code >= EXTENDED else []), RELEASE, code & 0xFF)

    def _send(self, *values: int) -> None:
        if len(self._queue) + len(values) <= ROOM:
            self._queue.extend(values)

    def _obey(self, value: int) -> None:
        if value == ECHO:
            self._send(ECHO)
        elif value == SEND_AGAIN:
            self._queue.appendleft(self._last)
        elif value in _WITH_ARGUMENT:
            self._command = value
            self._send(ACKNOWLEDGE)
        elif value == IDENTIFY:
            self._send(ACKNOWLEDGE, *IDENTITY)
        elif value in (ENABLE, DISABLE, DEFAULTS, RESET):
            self._start_over(value)
        else:
            self._send(RESEND)

    def _start_over(self, value: int) -> None:
        """These drop what waits to be sent."""
        self._queue.clear()
        self.scanning = value != DISABLE
        self._send(ACKNOWLEDGE, *([SELF_TEST_PASSED] if value == RESET else []))

    def _argument(self, command: int, value: int) -> None:
        if command == SET_LEDS:
            self.leds = value & 7
        elif command == CODE_SET and value == 0:
            self._send(ACKNOWLEDGE, 2)
            return
        elif command == CODE_SET and value != 2:
            self._send(ACKNOWLEDGE if value <= _LAST_SET else RESEND)
            return
        self._send(ACKNOWLEDGE)
