"""More guest memory than the host has: several VMs share a number of page frames, and swap.

Each VM brings a range of its memory that the host backs on demand. A page is fresh (never touched,
or given away), resident, or swapped out. When all frames are taken, the oldest resident page of the
VM that has most of them goes to the swap disk (first in, first out: the host does not see which
pages a guest uses, as Waldspurger, "Memory Resource Management in VMware ESX Server" (2002), says
of page replacement at large). An access to what is out waits for the pager.

`pressure` is how much all guests together want, 0..1, half at exactly what there is; it moves in
`STEPS`, so that it tells nothing of a single page of another guest.
"""

from typing import TYPE_CHECKING, Final

from hwmodel.mem.ram import PAGE
from vmm.memory.guest import GuestMemory
from vmm.memory.pager import Pager

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS: Final = 16
LEAST, FULL = 0.85, 1.15
"""Demand, as a share of the frames, where the pressure begins, and where it is 1."""


class HostMemory:
    """The frames of the host."""

    def __init__(self, frames: int) -> None:
        """`frames` pages of 4 KiB."""
        self.frames: Final = frames
        self.guests: Final[list[GuestShare]] = []
        self.changed: Final[list[Callable[[], None]]] = []
        """Called when the pressure is another one."""
        self.pressure = 0.0

    def admit(self, memory: GuestMemory, pager: Pager, gpa: int, size: int) -> "GuestShare":
        """Back [gpa, gpa+size) of a VM on demand from now on: all of it is fresh."""
        guest = GuestShare(self, memory, pager, gpa, size)
        self.guests.append(guest)
        return guest

    def demand(self) -> int:
        """Return how many pages all guests want to have."""
        return sum(guest.wanted() for guest in self.guests)

    def look(self) -> None:
        """Something changed: make room, and say so."""
        while sum(len(guest.resident) for guest in self.guests) > self.frames:
            max(self.guests, key=lambda guest: len(guest.resident)).swap_oldest()
        share = self.demand() / self.frames
        part = min(max((share - LEAST) / (FULL - LEAST), 0.0), 1.0)
        pressure = round(part * STEPS) / STEPS
        if pressure != self.pressure:
            self.pressure = pressure
            for listener in self.changed:
                listener()


class GuestShare:
    """One VM's pages."""

    def __init__(
        self, host: HostMemory, memory: GuestMemory, pager: Pager, gpa: int, size: int
    ) -> None:
        """All are fresh, so all are out."""
        self.host: Final = host
        self._memory: Final = memory
        self._pager: Final = pager
        self.range: Final = range(gpa, gpa + size, PAGE)
        self.resident: Final[dict[int, None]] = {}
        """In the order in which they came."""
        self.swapped: Final[set[int]] = set()
        self.swapped_in = self.swapped_out = self.given = 0
        pager.fresh |= set(self.range)
        pager.swap_out(gpa, size)
        pager.arrived.append(self._arrived)

    def wanted(self) -> int:
        """Return how many pages hold something."""
        return len(self.resident) + len(self.swapped)

    def _arrived(self, page: int) -> None:
        if page not in self.range:
            return
        if page in self.swapped:
            self.swapped.remove(page)
            self.swapped_in += 1
        self._pager.fresh.discard(page)
        self.resident[page] = None
        self.host.look()

    def swap_oldest(self) -> None:
        """Send a page to the disk."""
        page = next(iter(self.resident))
        del self.resident[page]
        self.swapped.add(page)
        self.swapped_out += 1
        self._pager.swap_out(page, PAGE)

    def give(self, page: int) -> bool:
        """The guest gives a page away; False if it is none of those, or was given already."""
        if page not in self.range or page in self._pager.fresh:
            return False
        self.resident.pop(page, None)
        self.swapped.discard(page)
        self._pager.fresh.add(page)
        self._pager.swap_out(page, PAGE)
        self.given += 1
        self.host.look()
        return True

    def take(self, page: int) -> bool:
        """The guest wants to use a page again that it gave; False while the host has no room."""
        if page not in self.range or self.host.pressure >= 1:
            return False
        self.given -= page in self._pager.fresh
        return True

    def target(self) -> int:
        """Return how many pages this guest should give, if all shrink alike."""
        demand, frames = self.host.demand(), self.host.frames
        if demand + self.given <= frames:
            return 0
        return max(0, self.wanted() + self.given - frames // len(self.host.guests))
