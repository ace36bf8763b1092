"""The user's terminal in raw mode, and the keys that are ours: Ctrl-A x quits, Ctrl-A Ctrl-A is
one Ctrl-A for the guest. Output processing stays on, so that a bare newline still returns.

The terminal is put back on leaving, on any exception, and at exit.
"""

import atexit
import contextlib
import os
import stat
import termios
from collections.abc import Callable
from enum import Enum

ESCAPE = b"\x01"  # Ctrl-A, as in QEMU
_IFLAG, _LFLAG, _CC = 0, 3, 6


class Input(Enum):
    """What standard input is."""

    NONE = "none"  # closed, or a terminal that belongs to another job
    STREAM = "stream"
    TERMINAL = "terminal"


def classify(descriptor: int) -> Input:
    """Return what ``descriptor`` is good for."""
    try:
        if not os.isatty(descriptor):
            mode = os.fstat(descriptor).st_mode
            return Input.NONE if stat.S_ISDIR(mode) else Input.STREAM
        # A background job that touches the terminal is stopped by the kernel: leave it alone.
        return Input.TERMINAL if os.tcgetpgrp(descriptor) == os.getpgrp() else Input.NONE
    except OSError:
        return Input.NONE


class RawTerminal:
    """Raw input on a terminal while the object is open."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._saved = termios.tcgetattr(descriptor)
        atexit.register(self.restore)
        raw = termios.tcgetattr(descriptor)
        raw[_IFLAG] &= ~(
            termios.BRKINT | termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON
        )
        raw[_LFLAG] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        raw[_CC] = list(raw[_CC])
        raw[_CC][termios.VMIN], raw[_CC][termios.VTIME] = 1, 0
        termios.tcsetattr(descriptor, termios.TCSADRAIN, raw)

    def restore(self) -> None:
        """Put the terminal back as it was; harmless when repeated."""
        atexit.unregister(self.restore)
        with contextlib.suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved)


class KeyFilter:
    """Takes our keys out of what is typed; ``quit`` is called for Ctrl-A x."""

    def __init__(self, quit_run: Callable[[], None]) -> None:
        self._quit = quit_run
        self._escaped = False

    def __call__(self, data: bytes) -> bytes:
        """Return what the guest is to read of ``data``."""
        kept = bytearray()
        for key in data:
            if not self._escaped and key == ESCAPE[0]:
                self._escaped = True
                continue
            if self._escaped and key in b"xX":
                self._quit()
            elif self._escaped and key != ESCAPE[0]:
                kept += ESCAPE + bytes([key])  # not a key of ours: the guest gets both
            else:
                kept.append(key)
            self._escaped = False
        return bytes(kept)
