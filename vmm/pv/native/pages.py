"""The pages that guest and hypervisor share: where each is, and that no two lie on each other."""

from typing import Final

from vmm.memory.guest import GuestMemory
from vmm.pv.dialect import State
from vmm.pv.native.abi import NOWHERE, PAGES, Error, PageKind
from vmm.pv.shared import SharedArea

Owner = tuple[str, int]
"""A kind of page, and the number of the virtual CPU (0 for the whole VM) or device."""


class SharedPages:
    """Every range of guest memory that the contract speaks of, by owner."""

    def __init__(self, memory: GuestMemory) -> None:
        """Nothing is shared."""
        self._memory: Final = memory
        self._areas: Final[dict[Owner, SharedArea]] = {}

    def share(self, owner: Owner, gpa: int, size: int, align: int) -> int:
        """Take a range in place of the owner's old one; 0, or a negative error and no change."""
        if gpa % align:
            return -Error.MISALIGNED
        area = SharedArea(self._memory, gpa, size)
        if not area.is_memory():
            return -Error.BAD_ADDRESS
        if self.collides(gpa, size, owner):
            return -Error.OVERLAP
        self._areas[owner] = area
        return 0

    def collides(self, gpa: int, size: int, but: Owner | None = None) -> bool:
        """Whether a range lies on one that is shared, other than that of one owner."""
        return any(
            other != but and gpa < taken.gpa + taken.size and taken.gpa < gpa + size
            for other, taken in self._areas.items()
        )

    def take_back(self, owner: Owner) -> None:
        """The owner's range is the guest's alone again."""
        self._areas.pop(owner, None)

    def take_back_kind(self, name: str) -> None:
        """All ranges of a kind are the guest's alone again."""
        for owner in [owner for owner in self._areas if owner[0] == name]:
            del self._areas[owner]

    def forget_processor(self, index: int) -> None:
        """INIT of a virtual CPU: its own pages are shared no more; the VM's with the first's."""
        for kind, row in PAGES.items():
            if row.per_cpu or index == 0:
                self.take_back((kind.name, index))

    def set_page(self, index: int, kind: PageKind, gpa: int) -> int:
        """SET_PAGE: share the page of a kind, or take it back."""
        row = PAGES[kind]
        owner = kind.name, index if row.per_cpu else 0
        if gpa == NOWHERE:
            self.take_back(owner)
            return 0
        return self.share(owner, gpa, row.layout.size, row.layout.align)

    def area(self, kind: PageKind, index: int = 0) -> SharedArea | None:
        """Where a page of a kind is, None if it is not shared."""
        return self._areas.get((kind.name, index))

    def of(self, owner: Owner) -> SharedArea | None:
        """Where an owner's range is."""
        return self._areas.get(owner)

    def save(self) -> State:
        """Who shares what."""
        return {"areas": [[*owner, area.gpa, area.size] for owner, area in self._areas.items()]}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        areas = state["areas"]
        assert isinstance(areas, list)
        self._areas.clear()
        for name, index, gpa, size in areas:
            self._areas[name, index] = SharedArea(self._memory, gpa, size)
