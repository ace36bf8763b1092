"""When a run looks for input from the host, and when it waits for it.

While the guest is busy: every POLL_CYCLES. While it is idle: where somebody may type or a host
socket is open, time passes at the pace of the host, and input ends the wait; else it jumps.
"""

from collections.abc import Callable, Sequence
from typing import Final

from vmm.devices.device import Clock
from vmm.host.sources import Descriptor, Door, HostSources, wait

POLL_CYCLES: Final = 1 << 20
IDLE_CYCLES: Final = 25_000_000  # 10 ms: no longer is one wait, so that a signal is seen
FRUITLESS_MAX: Final = 100  # times that a wait may end early and the guest notice nothing

WaitIdle = Callable[[float, Sequence[Descriptor]], bool]
"""Sleeps at most so many seconds; True if something came before."""


def nothing() -> bytes:
    """Nobody types."""
    return b""


class HostInput:
    """The terminal and the other sources of one run."""

    def __init__(
        self,
        clock: Clock,
        sources: HostSources,
        typed: Callable[[], bytes],
        wait_idle: WaitIdle | None,
        deliver: Door,
    ) -> None:
        """`typed` returns what came from the terminal, which goes to `deliver`; `wait_idle` is
        None where nobody sits at a terminal.
        """
        self._clock: Final = clock
        self._sources: Final = sources
        self._typed: Final = typed
        self._wait_idle: Final = wait_idle
        self._terminal: Final = sources.door("terminal", deliver)
        self._fruitless = 0
        self.is_driven = False
        """Whether somebody else decides when to look (vmm/debug/driver.py)."""

    def limit(self) -> int | None:
        """Return the cycle at which to look for input while the guest is busy; None: never."""
        return self._clock.now + POLL_CYCLES if self.is_watched() else None

    def idle_limit(self) -> int | None:
        """Return the cycle at which to look at the latest while it is idle; None: never."""
        return self._clock.now + IDLE_CYCLES if self.is_watched() else None

    def take(self) -> bool:
        """Hand over what has come; say whether the guest can notice. Not where a driver does."""
        return not self.is_driven and self.collect()

    def collect(self) -> bool:
        """Hand over what has come; say whether the guest can notice."""
        if data := self._typed():
            self._terminal(data)
        return self._sources.poll() or bool(data)

    def may_come(self) -> bool:
        """Whether an idle guest can expect anything from outside."""
        tape = self._sources.tape
        if tape is not None and tape.is_playing:
            return tape.peek() is not None
        return self._wait_idle is not None or self._sources.expects()

    def idle(self, target: int | None) -> bool:
        """As `wait`, but where a driver waits itself."""
        return not self.is_driven and self.wait(target)

    def wait(self, target: int | None) -> bool:
        """The guest has nothing to do until cycle `target`; True: no time passed, look again."""
        descriptors = self._sources.descriptors()
        woken = False
        if self._wait_idle is not None or descriptors:
            cycles = IDLE_CYCLES if target is None else target - self._clock.now
            seconds = cycles / self._clock.frequency
            woken = (self._wait_idle or wait)(seconds, descriptors)
        if self.collect():
            self._fruitless = 0
            return True
        self._fruitless = self._fruitless + 1 if woken else 0
        return woken and self._fruitless < FRUITLESS_MAX

    def is_watched(self) -> bool:
        """Whether the host is to be asked now and then."""
        playing = self._sources.tape is not None and self._sources.tape.is_playing
        return not playing and (self._typed is not nothing or bool(self._sources))
