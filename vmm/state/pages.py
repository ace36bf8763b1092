"""Copy-on-write pages: snapshots share every page that did not change between them.

The C engine logs which machine pages the guest may have written (`Pcpu.dirty_log`, one bit each).
`PageKeeper` keeps the last written-down contents; taking a snapshot copies the dirty pages only,
going back to the last one writes the dirty pages only.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from hwmodel.mem.ram import PAGE, Ram
from hwmodel.pcpu import Pcpu
from vmm.memory.guest import GuestMemory

Pages = Mapping[int, bytes | memoryview]
_ZERO: Final = bytes(PAGE)


def _whole_pages(at: int, data: bytes | memoryview) -> tuple[range, Iterator[memoryview]]:
    """Return which pages lie whole within `data`, put at address `at`, and what they hold.

    They are views of it: nothing may write to it later. A kernel has 10,000 of them.
    """
    view, first = memoryview(data).toreadonly(), -at % PAGE
    starts = range(first, max(len(data) - PAGE + 1, first), PAGE)
    numbers = range((at + first) // PAGE, (at + first) // PAGE + len(starts))
    ends = range(first + PAGE, first + PAGE + len(starts) * PAGE, PAGE)
    return numbers, map(view.__getitem__, map(slice, starts, ends))


class PageKeeper:
    """The pages of one VM's RAM; page numbers are machine pages, absent ones are zero."""

    def __init__(self, memory: GuestMemory, pcpu: Pcpu) -> None:
        """Start with all of RAM zero, as it is when mapped."""
        self._view: Final = memory.ram.view
        self._count: Final = memory.size // PAGE
        self._pcpu: Final = pcpu
        self._kept: dict[int, bytes | memoryview] = {}

    def take(self, written: Iterable[tuple[int, bytes | memoryview]] = ()) -> Pages:
        """Return all pages as they are now. `written`: what was just put at which addresses."""
        kept = dict(self._kept)
        known: set[int] = set()
        for at, content in written:  # not read again: copies cost more
            numbers, views = _whole_pages(at, content)
            kept.update(zip(numbers, views, strict=True))
            known.update(numbers)
            self._overlook(numbers)
        for page in self._harvest():
            if page in known:
                continue
            data = bytes(self._view[page * PAGE : (page + 1) * PAGE])
            if data == _ZERO:
                kept.pop(page, None)
            elif kept.get(page) != data:
                kept[page] = data
        self._kept = kept
        return kept

    def put(self, pages: Pages) -> None:
        """Make RAM what `take` returned; only pages that differ are written."""
        changed = set(self._harvest())
        if pages is not self._kept:
            changed.update(p for p in pages if pages[p] is not self._kept.get(p))
            changed.update(p for p in self._kept if p not in pages)
        for page in changed:
            self._view[page * PAGE : (page + 1) * PAGE] = pages.get(page, _ZERO)
            self._pcpu.host_wrote(page * PAGE, PAGE)
        self._kept = dict(pages) if not isinstance(pages, dict) else pages
        for _ in self._harvest():
            pass  # what was just written is known

    def mirror(self, pages: Pages) -> Ram:
        """Return memory that holds `pages`, for `revert`; pages that are zero cost nothing."""
        copy = Ram(self._count * PAGE)
        for page, data in pages.items():
            copy.view[page * PAGE : (page + 1) * PAGE] = data
        return copy

    def revert(self, pages: Pages, mirror: Ram) -> bool:
        """Go back to `pages` by their mirror, in C; False if RAM was not last made those."""
        if pages is not self._kept:
            return False
        self._pcpu.revert(mirror, self._count * PAGE)
        return True

    def _overlook(self, pages: range) -> None:
        """Clear what the log says of `pages`, but for a few at either end."""
        first, end = -(-pages.start // 64), pages.stop // 64
        if first < end:
            self._pcpu.dirty_log[first:end] = memoryview(bytes(8 * (end - first))).cast("Q")

    def _harvest(self) -> Iterator[int]:
        """Yield the dirty pages and clear the log."""
        log = self._pcpu.dirty_log
        found = [(n, word) for n, word in enumerate(log) if word]
        for number, _ in found:
            log[number] = 0
        self._pcpu.harvest_dirty()
        for number, word in found:
            while word:
                low = word & -word
                if (page := number * 64 + low.bit_length() - 1) < self._count:
                    yield page
                word ^= low
