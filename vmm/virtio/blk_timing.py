"""How long a disk takes: one queue for the medium, and a latency that requests may share."""

from dataclasses import dataclass
from typing import Final

from vmm.devices.device import Clock


@dataclass(frozen=True, slots=True)
class DiskTiming:
    """Nanoseconds and bytes a second of one kind of disk; 0 bytes a second is no limit.

    `parallel`: the latencies of requests under way together overlap, as in an SSD; else the next
    one starts when the one before has ended, as under a disk's one arm.
    """

    read_ns: int
    write_ns: int
    flush_ns: int
    read_rate: int
    write_rate: int
    parallel: bool = True


TIMINGS: Final = {
    # Intel SSD DC P4510 2 TB, product specification: latency 77 us read, 18 us write, sequential
    # 3200 and 2000 MB/s. Its cache survives a power loss: a flush is a write of nothing.
    "ssd": DiskTiming(77_000, 18_000, 18_000, 3_200_000_000, 2_000_000_000),
    # Seagate Exos 7E8 (ST8000NM000A), product manual: average latency 4.16 ms, seek 8.5 ms read and
    # 9.5 ms write, 249 MB/s sustained. A flush waits for the medium to come round.
    "hdd": DiskTiming(12_660_000, 13_660_000, 4_160_000, 249_000_000, 249_000_000, parallel=False),
    "none": DiskTiming(0, 0, 0, 0, 0),
}


class Medium:
    """Says when each request is done."""

    def __init__(self, timing: DiskTiming, clock: Clock) -> None:
        """`clock` gives the rate of cycles."""
        self._timing: Final = timing
        self._clock: Final = clock
        self.busy_until = 0

    def done_at(self, now: int, size: int, *, write: bool) -> int:
        """Return the cycle at which a transfer of `size` bytes that starts now is done."""
        timing = self._timing
        rate = timing.write_rate if write else timing.read_rate
        transfer = size * self._clock.frequency // rate if rate else 0
        return self._occupy(now, transfer, timing.write_ns if write else timing.read_ns)

    def flushed_at(self, now: int) -> int:
        """Return the cycle at which a flush that starts now is done."""
        return self._occupy(now, 0, self._timing.flush_ns)

    def _occupy(self, now: int, transfer: int, latency_ns: int) -> int:
        latency = self._clock.cycles_of_ns(latency_ns)
        self.busy_until = max(now, self.busy_until) + transfer
        if not self._timing.parallel:
            self.busy_until += latency
            return self.busy_until
        return self.busy_until + latency
