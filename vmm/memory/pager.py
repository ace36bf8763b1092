"""Guest memory that the hypervisor swapped out, and the disk that it comes back from.

Pages that are out are not in the guest's memory map, so that an access exits; their bytes stay
where they are, since a disk of ours would hold the same. Whoever needs one asks for it
(`request`), it arrives `latency` cycles later, and those in `arrived` hear of it.
"""

from collections.abc import Callable
from typing import Final, Protocol

from hwmodel.mem.ram import PAGE
from vmm.errors import UsageError
from vmm.memory.guest import GuestMemory

LATENCY: Final = 250_000  # cycles; 0.1 ms at 2.5 GHz, a read of a data-centre NVMe disk
ZEROING: Final = 2_500  # cycles; 1 us, a page at 4 GB/s
ALL_ONES: Final = (1 << 64) - 1


Listener = Callable[[int], None]
"""Hears the guest-physical address of a page that is back."""


class Clock(Protocol):
    """Reads the machine's cycles."""

    @property
    def now(self) -> int:
        """Cycles since power-on."""


class Pager:
    """The swapped-out pages of one VM, by guest-physical address. It is timed as a device is."""

    name = "pager"

    def __init__(self, clock: Clock, memory: GuestMemory, latency: int = LATENCY) -> None:
        """Nothing is out."""
        self._clock: Final = clock
        self._memory: Final = memory
        self._due: dict[int, int] = {}
        self.latency = latency
        self.fresh: set[int] = set()
        """Pages that are out and were never in: they need no disk, only zeros."""
        self.arrived: list[Listener] = []

    def swap_out(self, gpa: int, size: int) -> None:
        """Take the pages of [gpa, gpa+size) out. Raises UsageError if they are not all RAM.

        What is out stays out, and on its way if somebody waits for it.
        """
        first = gpa & -PAGE
        pages = range(first, gpa + size, PAGE)
        if size <= 0 or self._memory.hpa(first, pages[-1] + PAGE - first) is None:
            raise UsageError(f"{size} bytes at guest-physical {gpa:#x} are not RAM")
        self._memory.take_out(set(pages) - self._memory.absent)

    def request(self, page: int) -> None:
        """Begin to bring a page back, unless that is under way."""
        latency = ZEROING if page in self.fresh else self.latency
        self._due.setdefault(page, self._clock.now + latency)

    def bring_back(self, page: int) -> None:
        """Have a page back at once: for the hypervisor's own accesses."""
        self._memory.put_back({page} & self._memory.absent)
        self._due.pop(page, None)
        for listener in self.arrived:
            listener(page)

    def next_event(self) -> int | None:
        """Return the cycle at which the next page arrives."""
        return min(self._due.values(), default=None)

    def fire(self) -> None:
        """Bring back what has arrived, the earliest first."""
        due = sorted((cycle, page) for page, cycle in self._due.items())
        for cycle, page in due:
            if cycle <= self._clock.now and page in self._due:
                self.bring_back(page)

    def read(self, _offset: int, size: int) -> int:
        """No register."""
        return ALL_ONES >> 64 - 8 * size

    def write(self, _offset: int, _size: int, _value: int) -> None:
        """No register."""

    def save(self) -> dict[str, object]:
        """What is out, and what is on its way."""
        due = [[page, cycle] for page, cycle in sorted(self._due.items())]
        return {
            "version": 1,
            "absent": sorted(self._memory.absent),
            "due": due,
            "fresh": sorted(self.fresh),
        }

    def restore(self, state: dict[str, object]) -> None:
        """Take over what save() returned."""
        absent, due = state["absent"], state["due"]
        assert isinstance(absent, list)
        assert isinstance(due, list)
        self._due = dict(due)
        fresh = state.get("fresh", [])
        assert isinstance(fresh, list)
        self.fresh = set(fresh)
        self._memory.set_absent(set(absent))
