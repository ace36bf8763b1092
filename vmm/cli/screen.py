"""The guest's text screen on the user's terminal: drawn again when it has changed, ten times a
second at most, in the terminal's second buffer; what was there before comes back at the end.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from vmm.observe.screen import Screen

PERIOD_SECONDS: Final = 0.1
_OPEN, _CLOSE = "\x1b[?1049h\x1b[2J", "\x1b[0m\x1b[?25h\x1b[?1049l"
_ANSI: Final = (0, 4, 2, 6, 1, 5, 3, 7)
"""VGA's colours count blue as 1 and red as 4, ECMA-48's the other way round."""
_STDOUT: Final = 1


class ScreenView:
    """Draws what `capture` returns. With `live` false it draws nothing."""

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self._capture: Callable[[], Screen] | None = None
        self._drawn: Screen | None = None
        self._next = 0.0

    @contextmanager
    def on(self, capture: Callable[[], Screen]) -> Iterator[None]:
        """Take the terminal for as long as the guest runs."""
        if not self.live:
            yield
            return
        self._capture = capture
        _write(_OPEN)
        try:
            yield
        finally:
            _write(_CLOSE)
            self._capture = None

    def between(self, poll: Callable[[], bytes]) -> Callable[[], bytes]:
        """Return a `poll` that also draws."""

        def draw_and_poll() -> bytes:
            self._refresh()
            return poll()

        return draw_and_poll

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._capture is None or now < self._next:
            return
        self._next = now + PERIOD_SECONDS
        screen = self._capture()
        if screen != self._drawn:
            self._drawn = screen
            _write(paint(screen))


def paint(screen: Screen) -> str:
    """Return the control sequences that draw `screen` (ECMA-48)."""
    parts = ["\x1b[?25l\x1b[H"]
    for number, row in enumerate(screen.cells):
        parts.append(f"\x1b[{number + 1};1H")
        last = -1
        for character, attribute in row:
            if attribute != last:
                parts.append(_colours(attribute))
                last = attribute
            parts.append(character)
    if screen.cursor is not None:
        row_number, column = screen.cursor
        parts.append(f"\x1b[{row_number + 1};{column + 1}H\x1b[?25h")
    return "".join(parts)


def _colours(attribute: int) -> str:
    """Foreground with intensity, background, blinking left out."""
    front = (90 if attribute & 8 else 30) + _ANSI[attribute & 7]
    return f"\x1b[0;{front};{40 + _ANSI[attribute >> 4 & 7]}m"


def _write(text: str) -> None:
    data = text.encode()
    while data:
        data = data[os.write(_STDOUT, data) :]
