"""Reads the marks of guest_kernel/bench/marks.h, and takes the time at each."""

from collections.abc import Callable


class MarkReader:
    """Feed it what the guest writes; `seconds` are those of one repetition, by name.

    `clock` returns CPU seconds of whoever runs the guest.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._line = bytearray()
        self._open: tuple[str, int, float] | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes in any portions; the time is taken at the end of a line."""
        for byte in data:
            if byte != 0x0A:
                self._line.append(byte)
            elif self._line.startswith(b"@"):
                self._mark(self._line[1:].decode("ascii", "replace").split())
                self._line.clear()
            else:
                self._line.clear()

    @property
    def measuring(self) -> str | None:
        """What is being repeated now."""
        return self._open[0] if self._open else None

    def _mark(self, words: list[str]) -> None:
        now = self._clock()
        if self._open:
            name, count, began = self._open
            self.seconds[name] = (now - began) / count
        self._open = (words[0], int(words[1]), self._clock()) if len(words) == 2 else None
