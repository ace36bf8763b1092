"""A shadow page: one table that the processor walks, and what it was made from."""

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Page:
    """A table of 512 entries at machine address `at`.

    It stands for the guest's table in frame `frame` (a machine address) with entries of `size`
    bytes; `part` is which quarter or half of a 32-bit table it is. Where the guest has a large page
    there is no table of it: then `frame` is None, and the page maps what lies from `base` on.
    """

    at: int
    level: int
    key: tuple[int, ...]
    frame: int | None
    size: int = 8
    part: int = 0
    base: int = 0
    seen: dict[int, int] = field(default_factory=dict)
    """By index: the guest's entry that the shadow entry was made from."""
    parents: set[tuple["Page", int]] = field(default_factory=set)
    pins: int = 0
    """How many virtual CPUs have it as a root."""

    def guest_index(self, index: int) -> int:
        """Return which of the guest's entries an entry was made from."""
        if self.size == 8:
            return index
        return self.part * 512 + index if self.level == 1 else self.part * 256 + index // 2
