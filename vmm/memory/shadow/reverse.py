"""Who maps a frame writable, and which frames hold the guest's tables: both by machine address."""

from collections.abc import Container
from typing import Final

from vmm.memory.shadow.page import Page
from vmm.memory.shadow.paging import W


class ReverseMap:
    """From frames to shadow entries, so that a frame can be write-protected."""

    def __init__(self, entries: memoryview) -> None:
        """Nothing is mapped; `entries` is machine memory in words of 8 bytes."""
        self._entries: Final = entries
        self._writable: dict[int, set[int]] = {}
        self._stale = False
        self.tables: dict[int, list[Page]] = {}
        """The guest's tables that are shadowed, by frame."""

    def is_tracked(self, frame: int) -> bool:
        """Whether a shadowed table lies in a frame."""
        return frame in self.tables

    def is_writable(self, frame: int, out_of_step: Container[int]) -> bool:
        """Whether a mapping may write without anybody hearing of it."""
        return frame not in self.tables or frame in out_of_step

    def add(self, frame: int, at: int) -> None:
        """Say that the entry at `at` maps `frame` writable."""
        self._writable.setdefault(frame, set()).add(at)

    def remove(self, frame: int, at: int) -> None:
        """The entry is gone; a TLB may know of it until the next flush of everything."""
        self._writable.get(frame, set()).discard(at)
        self._stale = True

    def track(self, frame: int, page: Page) -> bool:
        """A table lies in `frame` from now on; returns whether every TLB must be flushed."""
        pages = self.tables.setdefault(frame, [])
        pages.append(page)
        return len(pages) == 1 and self.protect(frame)

    def untrack(self, frame: int, page: Page) -> bool:
        """One shadow less; returns whether it was the last."""
        pages = self.tables[frame]
        pages.remove(page)
        if not pages:
            del self.tables[frame]
        return not pages

    def protect(self, frame: int) -> bool:
        """Take W from every mapping of a frame; returns whether every TLB must be flushed."""
        places = self._writable.pop(frame, ())
        for at in places:
            self._entries[at >> 3] &= ~W & (1 << 64) - 1
        must, self._stale = bool(places) or self._stale, False
        return must
