"""The memory balloon (virtio 1.2, "Traditional Memory Balloon Device").

Pages that the guest puts into the balloon, or reports as free, are given back to the host: they
cost nothing until they are touched again, and read as zero then.
"""

from enum import IntEnum
from itertools import pairwise
from struct import Struct
from typing import Final

from vmm.devices.device import State
from vmm.virtio.chain import Buffer, Chain
from vmm.virtio.device import Context, VirtioDevice
from vmm.virtio.features import bits

INFLATE, DEFLATE, STATS = 0, 1, 2
QUEUES: Final = 5  # 3 or 4 is for reporting: drivers differ on whether a missing queue has a number
QUEUE_SIZE: Final = 128
PAGE: Final = 4096
NUMBERS_MAX: Final = 1 << 18  # page numbers of one request that are looked at: 1 GiB
STATISTICS_MAX: Final = 64  # entries of one report
_STATISTIC: Final = Struct("<HQ")
NO_POLL: Final = -1


class BalloonFeature(IntEnum):
    """Feature bits of the balloon."""

    STATS_VQ = 1
    DEFLATE_ON_OOM = 2
    REPORTING = 5


STATISTICS: Final = (
    *("swap_in", "swap_out", "major_faults", "minor_faults", "free", "total", "available"),
    *("caches", "hugetlb_allocations", "hugetlb_failures"),
)
"""Names by tag (linux/virtio_balloon.h); bytes or counts."""


class Balloon(VirtioDevice):
    """`vm.balloon`: set `target`, watch `actual` and `statistics`. All sizes are bytes."""

    device_id = 5

    def __init__(
        self,
        name: str,
        context: Context,
        *,
        target: int = 0,
        deflate_on_oom: bool = True,
        reporting: bool = True,
        poll_ns: int = 0,
        packed: bool = False,
    ) -> None:
        """`poll_ns` asks for statistics so often in virtual time; 0: when they are asked for."""
        offered = bits(BalloonFeature.STATS_VQ)
        offered |= bits(BalloonFeature.DEFLATE_ON_OOM) if deflate_on_oom else 0
        offered |= bits(BalloonFeature.REPORTING) if reporting else 0
        super().__init__(
            name,
            context,
            queue_sizes=(QUEUE_SIZE,) * QUEUES,
            features=offered,
            config=(target // PAGE).to_bytes(4, "little") + bytes(12),
            packed=packed,
        )
        self.released = 0  # bytes given back to the host so far, by balloon and reports
        self.statistics: dict[str, int] = {}
        self._poll_ns: Final = poll_ns
        self._held: Chain | None = None  # the driver's statistics buffer, until the next poll
        self._poll_at = NO_POLL

    # ---- for the user ----

    @property
    def target(self) -> int:
        """How many bytes the guest is to put into the balloon."""
        return int.from_bytes(self.config[:4], "little") * PAGE

    @target.setter
    def target(self, size: int) -> None:
        pages = max(0, min(size // PAGE, 0xFFFF_FFFF))
        self.config[:4] = pages.to_bytes(4, "little")
        self.config_changed()
        self.rescheduled()

    @property
    def actual(self) -> int:
        """How many bytes the guest says are in the balloon."""
        return int.from_bytes(self.config[4:8], "little") * PAGE

    def poll_statistics(self) -> None:
        """Ask the guest for new statistics; they are in `statistics` when it has answered."""
        queue = self.queues[STATS]
        if self._held is not None:
            queue.push(self._held, 0)
            self._held = None
            self.interrupt(queue)
            self.rescheduled()

    # ---- for the driver ----

    def on_queue(self, index: int) -> None:
        """Pages went in or came out, statistics or free pages are reported."""
        queue = self.queues[index]
        while self.live and (chain := queue.pop()):
            if index == STATS:
                self._take_statistics(chain)
                continue
            if index == INFLATE:
                self._inflate(chain.readable)
            elif index != DEFLATE:
                self._release(chain.writable)
            queue.push(chain, 0)
        self.interrupt(queue)

    def on_reset(self) -> None:
        """The balloon is empty again."""
        self._held, self._poll_at = None, NO_POLL
        self.statistics.clear()
        self.config[4:8] = bytes(4)

    def on_queue_reset(self, index: int) -> None:
        """The driver has its statistics buffer back."""
        if index == STATS:
            self._held, self._poll_at = None, NO_POLL

    def write_config(self, offset: int, size: int, value: int) -> None:
        """The driver says how much is in the balloon."""
        if offset >= 4 and offset + size <= 8:
            self.config[offset : offset + size] = value.to_bytes(size, "little")

    def next_event(self) -> int | None:
        """Return when statistics are asked for."""
        return None if self._poll_at == NO_POLL else self._poll_at

    def fire(self) -> None:
        """Ask for statistics."""
        self._poll_at = NO_POLL
        self.poll_statistics()

    def save_device(self) -> State:
        """Return statistics and the buffer that waits for the next ones."""
        return {
            "statistics": [self.statistics.get(name, -1) for name in STATISTICS],
            "held": [] if self._held is None else self._held.save(),
            "poll_at": self._poll_at,
            "released": self.released,
        }

    def restore_device(self, state: State) -> None:
        """Take over what save_device() returned."""
        values, held = state["statistics"], state["held"]
        poll_at, released = state["poll_at"], state["released"]
        assert isinstance(values, list)
        assert isinstance(held, list)
        assert isinstance(poll_at, int)
        assert isinstance(released, int)
        pairs = zip(STATISTICS, values, strict=True)
        self.statistics = {name: value for name, value in pairs if value >= 0}
        self._held = self.queues[STATS].restore_chain(held) if held else None
        self._poll_at, self.released = poll_at, released

    def _take_statistics(self, chain: Chain) -> None:
        """Read a report, and keep its buffer: giving it back asks for the next one."""
        report = chain.readable.read(0, STATISTICS_MAX * _STATISTIC.size)
        whole = len(report) // _STATISTIC.size * _STATISTIC.size
        for tag, value in _STATISTIC.iter_unpack(report[:whole]):
            if tag < len(STATISTICS):
                self.statistics[STATISTICS[tag]] = value
        if self._held is not None:
            self.queues[STATS].push(self._held, 0)
        self._held = chain
        if self._poll_ns:
            self._poll_at = self.context.clock.now + self.context.clock.cycles_of_ns(self._poll_ns)

    def _inflate(self, numbers: Buffer) -> None:
        """Release the pages whose numbers the driver lists; runs of them at once."""
        data = numbers.read(0, 4 * NUMBERS_MAX)
        whole = len(data) // 4 * 4
        pages = sorted({int.from_bytes(data[at : at + 4], "little") for at in range(0, whole, 4)})
        breaks = [at + 1 for at, (one, two) in enumerate(pairwise(pages)) if two != one + 1]
        for start, end in pairwise([0, *breaks, len(pages)]):
            if start < end:
                self._release_pages(pages[start], end - start)

    def _release_pages(self, first: int, count: int) -> None:
        """Release `count` guest pages; those that are no RAM are left out."""
        memory = self.context.memory
        at = memory.hpa(first * PAGE, count * PAGE)
        if at is not None:
            self.released += memory.discard(at, count * PAGE)
        elif count > 1:
            half = count // 2
            self._release_pages(first, half)
            self._release_pages(first + half, count - half)

    def _release(self, pieces: Buffer) -> None:
        """Release the whole pages of a report."""
        for at, size in pieces.segments:
            self.released += self.context.memory.discard(at, size)
