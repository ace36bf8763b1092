"""The PV console: what the guest says goes out at once, what is typed waits for room."""

from collections.abc import Callable
from typing import Final

from vmm.pv.xen.rings import CONSOLE_IN, CONSOLE_OUT, ring_at
from vmm.pv.xen.shared import Shared


class PvConsole:
    """The back end of one console ring, at a machine address."""

    def __init__(
        self, shared: Shared, page: int, output: Callable[[bytes], None], notify: Callable[[], None]
    ) -> None:
        """`notify` tells the front end that something changed."""
        self._input: Final = ring_at(shared, page, CONSOLE_IN)
        self._output: Final = ring_at(shared, page, CONSOLE_OUT)
        self._say: Final = output
        self._notify: Final = notify
        self.typed = b""
        """Not yet in the ring."""

    def kick(self) -> None:
        """The front end has produced output, or consumed input."""
        if data := self._output.take():
            self._say(data)
            self._notify()
        self._feed()

    def receive(self, data: bytes) -> None:
        """Somebody types."""
        self.typed += data
        self._feed()

    def _feed(self) -> None:
        if self.typed and (count := self._input.put(self.typed)):
            self.typed = self.typed[count:]
            self._notify()
