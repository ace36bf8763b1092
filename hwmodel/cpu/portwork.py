"""Port I/O that an engine carries out itself: a polled serial port's (cext/portwork.c)."""

from collections.abc import Callable
from typing import Any, Final

from hwmodel.cpu.unicorn import ffi, lib

Hear = Callable[[bytes], None]
SAID: Final = lib.CODE_SAID
"""With an exit's code: there is something to hear first."""


def _drop(_data: bytes) -> None:
    """Nobody listens."""


class PortWork:
    """One engine's. Ports are known by the qualification of their exits, which count and cost.

    Only by the way in that skips what exited, and while nothing traces exits.
    """

    __slots__ = ("_hear", "_native", "_text")

    def __init__(self, engine: Any) -> None:
        """Leave everything to software."""
        self._native: Final = lib.engine_port_work(engine)
        self._text: Final = ffi.buffer(self._native.text)
        self._hear: Hear = _drop

    def answer(self, qualification: int, value: int) -> None:
        """Let a byte IN read `value` without asking; -1: ask."""
        self._native.reads = lib.NO_PORT if value < 0 else qualification
        self._native.value = value & 0xFF

    def collect(self, qualification: int | None, hear: Hear) -> None:
        """Pass on what a byte OUT says some at a time, up to the end of a line; None: no longer.

        A line's last byte, and one that finds no room, are software's: their exits are seen.
        """
        self._native.writes = lib.NO_PORT if qualification is None else qualification
        self._hear = hear

    def pass_on(self) -> None:
        """Say what has been collected."""
        data = self._text[: self._native.said]
        self._native.said = 0
        self._hear(data)
