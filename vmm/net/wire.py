"""A cable between two VMs of one process, in virtual time: the same frames at the same cycles.

A frame sent at cycle t of one VM arrives at cycle t + latency of the other. That is exact as long
as neither VM is ahead of the other by more than the latency: `run_together` (vmm.together) sees to
it; clocks of different frequency meet in nanoseconds.
"""

from collections import deque
from typing import Final

from vmm.net.backend import Abilities, Port

DEFAULT_LATENCY_NS: Final = 50_000
BACKLOG_FRAMES: Final = 4096  # under way to a VM that does not run; what comes then is dropped
_NS: Final = 1_000_000_000


class WireEnd:
    """One end; `port` is None until it is plugged in."""

    abilities = Abilities(trusted=True)

    def __init__(self, latency_ns: int, *, is_right: bool) -> None:
        """Use `Wire`."""
        self.dropped = 0
        self.is_right: Final = is_right
        self.latency_ns: Final = latency_ns
        self.port: Port | None = None
        self._peer: WireEnd | None = None
        self._coming: deque[tuple[int, bytes]] = deque()

    def join(self, peer: "WireEnd") -> None:
        """Make `peer` the other end."""
        self._peer = peer

    def plug_in(self, port: Port) -> None:
        """Deliver to `port` from now on, in its clock's time."""
        self.port = port

    def send(self, frame: bytes) -> None:
        """Put a frame on the wire, as long as the other end is plugged in."""
        peer = self._peer
        if self.port is None or peer is None or peer.port is None:
            self.dropped += 1
            return
        peer.arrive(self.port.clock.ns() + self.latency_ns, frame)

    def next_event(self) -> int | None:
        """Return the cycle at which the next frame arrives."""
        if not self._coming or self.port is None:
            return None
        return self.port.clock.cycle_of_tick(_NS, self._coming[0][0])

    def fire(self) -> None:
        """Deliver what has arrived."""
        port = self.port
        while port and (event := self.next_event()) is not None and event <= port.clock.now:
            port.deliver(self._coming.popleft()[1])

    def poll(self) -> bool:
        """Nothing comes from the host."""
        return False

    def descriptors(self) -> list[tuple[int, int]]:
        """Nothing is waited for on the host."""
        return []

    def expects(self) -> bool:
        """Whether somebody is at the other end."""
        return self._peer is not None and self._peer.port is not None

    def close(self) -> None:
        """Unplug this end."""
        self.port = None
        self._coming.clear()

    def arrive(self, at_ns: int, frame: bytes) -> None:
        """Take a frame from the other end, due at `at_ns`."""
        if self.port is None or len(self._coming) >= BACKLOG_FRAMES:
            self.dropped += 1
            return
        self._coming.append((at_ns, frame))
        self.port.rescheduled()


class Wire:
    """A cable: `VM(..., net=wire.left)` and `VM(..., net=wire.right)`."""

    def __init__(self, latency_ns: int = DEFAULT_LATENCY_NS) -> None:
        """`latency_ns` is the time from one end to the other, at least 1."""
        self.latency_ns: Final = max(1, latency_ns)
        self.left: Final = WireEnd(self.latency_ns, is_right=False)
        self.right: Final = WireEnd(self.latency_ns, is_right=True)
        self.left.join(self.right)
        self.right.join(self.left)
