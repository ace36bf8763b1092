"""What the guest says, on its way out: once, however often the guest is made to say it."""

from collections.abc import Callable
from typing import Final

Sink = Callable[[bytes], None]


class Console:
    """The guest's serial lines, debug port and terminal, to `sink`.

    A run that went back says the same again: what has been shown already is not shown twice.
    """

    __slots__ = ("_shown", "_sink", "said", "transcript")

    def __init__(self, sink: Sink) -> None:
        """Everything is passed on, and nothing kept, until `keep`."""
        self._sink: Final = sink
        self.transcript: bytearray | None = None
        self.said = 0
        """Bytes up to the present, which may be in the past."""
        self._shown = 0

    def keep(self) -> None:
        """Keep what is said from now on: the run may go back."""
        if self.transcript is None:
            self.transcript = bytearray()
            self._shown = self.said = 0

    def write(self, data: bytes) -> None:
        """Take what the guest says."""
        if self.transcript is None:
            self._sink(data)
            return
        new = data[max(0, self._shown - self.said) :]
        self.said += len(data)
        if new:
            self.transcript += new
            self._shown = self.said
            self._sink(new)

    def text(self) -> bytes:
        """Return what was said up to the present."""
        return bytes(self.transcript[: self.said]) if self.transcript is not None else b""
