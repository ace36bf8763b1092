"""The shadow tables of one VM: what the processor walks where there is no EPT.

A shadow page stands for one table of the guest. Tables that are shadowed are write-protected; the
first write to one makes it writable and *out of step*: it is compared with what was seen of it when
the guest does what would empty a TLB (`sync`, `sync_address`). Until then what is stale here is as
stale as a TLB entry may be. A table that stays as it is for a while is protected again.
"""

from dataclasses import dataclass
from typing import Any, Final

from hwmodel.arch.paging import InvVpid
from hwmodel.mem.ram import PAGE
from hwmodel.pcpu import Pcpu
from vmm.memory.guest import GuestMemory
from vmm.memory.shadow.guest_walk import Found, GuestWalker, Step
from vmm.memory.shadow.page import Page
from vmm.memory.shadow.paging import ADDRESS, NX, A, D, P, Paging, U, W
from vmm.memory.shadow.reverse import ReverseMap

_LEVEL_OF: Final = {48: 5, 39: 4, 30: 3, 21: 2, 22: 2, 12: 1}
_LINK: Final = P | A
_KEY: Final = 15 << 59
_QUIET: Final = 4  # comparisons without a difference, then a table is protected again


def pages_for_shadows(memory: int) -> int:
    """Return how many pages shadow tables may take of a VM with `memory` bytes: 1/16 of it."""
    return max(512, memory // PAGE // 16)


@dataclass(slots=True)
class OutOfStep:
    """A table that may be written: as it was at the last comparison, and since when it is so."""

    image: bytes = b""
    quiet: int = 0
    """Comparisons without a difference."""
    fresh: bool = True
    """Whether entries have been made from it since: what it holds now may not be what they saw."""


class NoRoomError(Exception):
    """No page is left for shadow tables; inside this folder only."""


class ShadowTables:
    """Shadow pages in machine memory that no guest reaches, for every root of every vCPU."""

    def __init__(self, memory: GuestMemory, pcpu: Pcpu) -> None:
        """Nothing is mapped."""
        self._memory: Final = memory
        self._pcpu: Final = pcpu
        self._pages: Final = range(memory.shadow_base, memory.ram.size, PAGE)
        self.entries: Final = memory.ram.view.cast("Q")
        """Machine memory in words of 8 bytes."""
        self.walker: Final = GuestWalker(memory)
        self.generation = 0
        """Changes when every root is gone."""
        self.forget()

    def forget(self) -> None:
        """Drop every shadow page."""
        self.generation += 1
        self._free = list(reversed(self._pages))
        self._by_key: dict[tuple[int, ...], Page] = {}
        self._by_place: dict[int, Page] = {}
        self._reverse = ReverseMap(self.entries)
        self._out_of_step: dict[int, OutOfStep] = {}
        self.unseen = False
        """Whether a virtual CPU has run, since the last comparison, where no write is seen."""
        self._flush()

    def state(self) -> list[object]:
        """Return what is known of shadow pages, for a copy: their bytes are machine memory."""
        return [
            self.generation, self._free, self._by_key, self._by_place, self._reverse,
            self._out_of_step, self.unseen,
        ]  # fmt: skip

    def set_state(self, state: list[Any]) -> None:
        """Take over a copy of what `state` returned."""
        self.generation, self._free, self._by_key, self._by_place = state[:4]
        self._reverse, self._out_of_step, self.unseen = state[4:]

    def _flush(self) -> None:
        self._pcpu.invvpid(InvVpid.ALL_CONTEXTS, 0)

    # ---- pages ----

    def _page(self, key: tuple[int, ...], page_of: Page) -> Page:
        if not self._free:
            raise NoRoomError
        page_of.at = self._free.pop()
        self._memory.ram.view[page_of.at : page_of.at + PAGE] = bytes(PAGE)
        self._by_key[key] = self._by_place[page_of.at] = page_of
        return page_of

    def table(self, frame: int, level: int, size: int = 8, part: int = 0) -> Page:
        """Return the shadow of the guest's table in `frame`; it is protected from now on."""
        key = (frame, level, size, part)
        page = self._by_key.get(key)
        if page is None:
            page = self._page(key, Page(0, level, key, frame, size, part))
            if self._reverse.track(frame, page):
                self._flush()
        return page

    def empty(self, level: int) -> Page:
        """Return a page that maps nothing, for a root that lies where no memory is."""
        key = (-1, level)
        return self._by_key.get(key) or self._page(key, Page(0, level, key, None))

    def pdptes(self, parts: tuple[int, ...]) -> Page:
        """Return the page that holds PAE's four entries, which name `parts`."""
        key = (-2, *parts)
        return self._by_key.get(key) or self._page(key, Page(0, 3, key, None))

    def _large(self, base: int, level: int, key_bits: int) -> Page:
        """Return the page that maps guest-physical memory from `base` on, in a large page."""
        key = (base, level, key_bits)
        page = self._by_key.get(key)
        if page is None:
            page = self._page(key, Page(0, level, key, None, base=base))
            if level == 1:
                self._fill(page, key_bits)
        return page

    def _fill(self, page: Page, key_bits: int) -> None:
        for index in range(512):
            gpa = page.base + index * PAGE
            hpa = self._memory.hpa(gpa, PAGE)
            if hpa is None or gpa in self._memory.absent:
                continue
            at = page.at + 8 * index
            free = self._reverse.is_writable(hpa, self._out_of_step)
            self.entries[at >> 3] = hpa | key_bits | P | A | D | U | (W if free else 0)
            if free:
                self._reverse.add(hpa, at)

    def _drop(self, page: Page) -> None:
        """Give a page back; the caller flushes before it is used again."""
        for parent, index in page.parents:
            self.entries[parent.at + 8 * index >> 3] = 0
            parent.seen.pop(index, None)
        page.parents.clear()
        for index in list(page.seen):
            self._zap(page, index)
        if page.frame is not None and self._reverse.untrack(page.frame, page):
            self._out_of_step.pop(page.frame, None)
        del self._by_key[page.key], self._by_place[page.at]
        self._free.append(page.at)

    def _zap(self, page: Page, index: int) -> None:
        at = page.at + 8 * index
        entry = self.entries[at >> 3]
        self.entries[at >> 3] = 0
        page.seen.pop(index, None)
        if page.level > 1:
            self._by_place[entry & ADDRESS].parents.discard((page, index))
        elif entry & W:
            self._reverse.remove(entry & ADDRESS, at)

    # ---- mapping ----

    def map(self, root: Page, linear: int, found: Found, write: bool) -> bool:
        """Map what the guest's tables say of `linear`; False: it leads to no memory."""
        hpa = self._memory.hpa(found.gpa & -PAGE, PAGE)
        if hpa is None or found.gpa & -PAGE in self._memory.absent:
            return False
        page = root
        for step in found.steps:
            if page.level == 1:
                self._set_leaf(page, linear, step, hpa, write)
                return True
            child = self._child(page, linear, step, found)
            self._link(page, linear, child, step, step is found.steps[-1])
            page = child
        self._inside_large(page, linear, found, hpa, write)
        return True

    def _child(self, page: Page, linear: int, step: Step, found: Found) -> Page:
        level = page.level - 1
        if step is not found.steps[-1]:
            if step.shift == 22:
                frame = self._place(step.entry & 0xFFFF_F000)
                return self.table(frame, level, 4, linear >> 21 & 1)
            return self.table(self._place(step.entry & page_mask(page)), level, page.size)
        return self._below(page, found)

    def _below(self, page: Page, found: Found) -> Page:
        base = found.gpa & -(PAGE << 9 * (page.level - 1))
        return self._large(base, page.level - 1, found.rights.key << 59)

    def _place(self, gpa: int) -> int:
        hpa = self._memory.hpa(gpa, PAGE)
        assert hpa is not None, "the walk went through it"
        return hpa

    def _link(self, page: Page, linear: int, child: Page, step: Step, leaf: bool) -> None:
        index = linear >> 3 + 9 * page.level & 511
        at = page.at + 8 * index
        rights = step.entry & (U | W | NX if page.size == 8 else U | W)
        if leaf and not step.entry & D:
            rights &= ~W
        entry, old = child.at | _LINK | rights, self.entries[at >> 3]
        if old and old & ADDRESS != child.at:
            self._zap(page, index)
            self._flush()
        self.entries[at >> 3] = entry
        self._saw(page, index, step.entry)
        child.parents.add((page, index))

    def _saw(self, page: Page, index: int, entry: int) -> None:
        page.seen[index] = entry
        if page.frame in self._out_of_step:
            self._out_of_step[page.frame].fresh = True

    def _inside_large(
        self, page: Page, linear: int, found: Found, hpa: int, write: bool
    ) -> None:  # fmt: skip
        while page.level > 1:
            child = self._below(page, found)
            index = linear >> 3 + 9 * page.level & 511
            self.entries[page.at + 8 * index >> 3] = child.at | _LINK | U | W
            page.seen[index] = 0
            child.parents.add((page, index))
            page = child
        at = page.at + 8 * (linear >> 12 & 511)
        if not self.entries[at >> 3]:
            self.entries[at >> 3] = hpa | found.rights.key << 59 | P | A | D | U
        if write and not self.entries[at >> 3] & W:
            self._write_to(hpa, at)

    def _set_leaf(self, page: Page, linear: int, step: Step, hpa: int, write: bool) -> None:
        index = linear >> 12 & 511
        at = page.at + 8 * index
        if self.entries[at >> 3]:
            self._zap(page, index)
        entry = hpa | P | A | D | step.entry & (U | NX | _KEY if page.size == 8 else U)
        self._saw(page, index, step.entry)
        self.entries[at >> 3] = entry
        may_write = write or self._reverse.is_writable(hpa, self._out_of_step)
        if may_write and step.entry & W and step.entry & D:
            self._write_to(hpa, at)

    def _write_to(self, frame: int, at: int) -> None:
        """Let an entry write to a frame; a table there is out of step from now on."""
        if self._reverse.is_tracked(frame):
            self._out_of_step.setdefault(frame, OutOfStep())
        self.entries[at >> 3] |= W
        self._reverse.add(frame, at)

    # ---- keeping in step ----

    def wrote(self, at: int, size: int) -> None:
        """Memory was written by others than the processor: tables there are out of step."""
        for frame in range(at & -PAGE, at + size, PAGE):
            if self._reverse.is_tracked(frame):
                self._out_of_step[frame] = OutOfStep()

    def suspect_all(self) -> None:
        """Somebody wrote memory unseen: every table may be out of step."""
        for frame in self._reverse.tables:
            self._out_of_step[frame] = OutOfStep()

    def sync(self) -> None:
        """Compare every table that is out of step with what was seen of it."""
        if self.unseen:
            self.unseen = False
            self.suspect_all()
        dropped = False
        for frame, state in list(self._out_of_step.items()):
            data = bytes(self._memory.ram.view[frame : frame + PAGE])
            changed = data != state.image
            if changed or state.fresh:
                dropped |= self._compare(frame, data)
            if changed or state.quiet < _QUIET:
                state.image, state.fresh = data, False
                state.quiet = 0 if changed else state.quiet + 1
            elif self._out_of_step.pop(frame, None):
                dropped |= self._reverse.protect(frame)
        if dropped:
            self._flush()

    def _compare(self, frame: int, data: bytes) -> bool:
        dropped = False
        for page in list(self._reverse.tables.get(frame, ())):
            entries = memoryview(data).cast("Q" if page.size == 8 else "I")
            for index, seen in list(page.seen.items()):
                if entries[page.guest_index(index)] != seen:
                    self._zap(page, index)
            if not page.seen and not page.pins:
                self._drop(page)
                dropped = True
        return dropped

    def sync_address(self, root: Page, linear: int) -> bool:
        """Compare the entries that map `linear`; False: it lies in a large page, or may have."""
        page = root
        while True:
            index = linear >> 3 + 9 * page.level & 511
            entry = self.entries[page.at + 8 * index >> 3]
            if not entry or page.frame is None:
                return page.level == 1 and page.frame is not None
            now = self.walker.entry_at(
                page.frame + page.guest_index(index) * page.size, page.size
            )  # fmt: skip
            if now != page.seen[index]:
                self._zap(page, index)
                return page.level == 1
            if page.level == 1:
                return True
            page = self._by_place[entry & ADDRESS]


def page_mask(page: Page) -> int:
    """Return the address bits of an entry that names a table."""
    return ADDRESS if page.size == 8 else 0xFFFF_F000


def is_pae(paging: Paging) -> bool:
    """Whether the guest has PDPTEs in registers."""
    return paging.entry_size == 8 and not paging.is_long


def shadow_tables_of(memory: GuestMemory, pcpu: Pcpu) -> ShadowTables | None:
    """Return tables that hear of what happens to `memory`; None if it has no room for any."""
    if memory.shadow_base == memory.ram.size:
        return None
    tables = ShadowTables(memory, pcpu)
    memory.written.append(tables.wrote)
    memory.remapped.append(tables.forget)
    return tables
