"""Xen's own pages of an HVM guest, and where the guest has them: shared_info, grants, rings.

They lie behind the guest's memory; a guest maps shared_info and the grant table where it likes
(XENMEM_add_to_physmap), store and console are where a toolstack puts them.
"""

from typing import Final

from hwmodel.mem.ram import PAGE
from vmm.memory.guest import GuestMemory
from vmm.pv.xen.grants import MAX_FRAMES, STATUS_FRAMES

SHARED_INFO, STORE, CONSOLE, GRANTS = range(4)
HVM_PAGES: Final = GRANTS + MAX_FRAMES + STATUS_FRAMES
STORE_GFN, CONSOLE_GFN = 0xFEFFC, 0xFEFFF
"""As Xen's toolstack has them (tools/libs/guest/xg_dom_x86.c, special pages)."""
INFO_BYTES: Final = 64
INFOS: Final = 32
"""struct shared_info has a struct vcpu_info for so many."""


class Places:
    """The frames of one guest: of Xen's, by number, and the guest's."""

    def __init__(self, memory: GuestMemory, cpus: int) -> None:
        """Nothing is mapped yet."""
        self._memory: Final = memory
        self.base: Final = memory.last_private(HVM_PAGES)
        self.mapped: dict[int, int] = {}
        """Guest frame to number of Xen's page."""
        self.infos = [self.page(SHARED_INFO) + INFO_BYTES * n for n in range(min(cpus, INFOS))]
        self.infos += [0] * (cpus - len(self.infos))

    def page(self, number: int) -> int:
        """Return the machine address of one of Xen's pages."""
        return self.base + number * PAGE

    def map(self, number: int, gfn: int) -> bool:
        """Let the guest have a page there, and nowhere else; False if tables are used up."""
        for old in [g for g, n in self.mapped.items() if n == number and g != gfn]:
            self.unmap(old)
        try:
            self._memory.map_device_page(gfn * PAGE, self.page(number))
        except MemoryError:
            return False
        self.mapped[gfn] = number
        return True

    def unmap(self, gfn: int) -> bool:
        """Take a page away; what RAM was there is there again. False if there was none."""
        if self.mapped.pop(gfn, None) is None:
            return False
        self._memory.map_device_page(gfn * PAGE, self._memory.hpa(gfn * PAGE, PAGE))
        return True

    def remap(self, wanted: dict[int, int]) -> None:
        """Map exactly these."""
        for gfn in list(self.mapped):
            self.unmap(gfn)
        for gfn, number in wanted.items():
            self.map(number, gfn)

    def hpa(self, gfn: int) -> int | None:
        """Return where a frame of the guest's RAM is in machine memory."""
        return self._memory.hpa(gfn * PAGE, PAGE)

    def contents(self) -> bytes:
        """Return what is in Xen's pages."""
        return bytes(self._memory.ram.view[self.base : self.base + HVM_PAGES * PAGE])

    def fill(self, contents: bytes) -> None:
        """Take over what contents() returned."""
        self._memory.ram.view[self.base : self.base + len(contents)] = contents
        self._memory.wrote(self.base, len(contents))

    # ---- what event channels and grants ask ----

    def vcpu_info(self, vcpu: int) -> int:
        """Return where a struct vcpu_info is; vCPUs without one share the last page's end."""
        return self.infos[vcpu] or self.page(HVM_PAGES) - INFO_BYTES

    def hold(self, gfn: int, *, writable: bool) -> bool:  # noqa: ARG002 - RAM is always both
        """Whether a frame is the guest's RAM: what a back end may use."""
        return self.hpa(gfn) is not None

    def drop(self, gfn: int, *, writable: bool) -> None:
        """Nothing is counted."""

    def address(self, gfn: int) -> int:
        """Return the machine address of a frame that is held."""
        at = self.hpa(gfn)
        assert at is not None
        return at

    def maps(self, first: int, count: int) -> bool:
        """Whether the guest has one of these pages, by machine frame, somewhere."""
        start = first - self.base // PAGE
        return any(start <= number < start + count for number in self.mapped.values())
