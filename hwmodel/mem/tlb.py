"""The readable twin of cext/tlb.c for `Fidelity.SHARED` and `SPLIT`: what is held, and for whom.

Entries belong to a context (VPID, PCID, EPT root; `Owner` here) or, if global, to all PCIDs of one.
A flush of a context lets its entries die where they stand: their ways are used again in their turn,
since replacement goes round a set and asks only for ways that were emptied one by one.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from hwmodel.arch.translation import Fidelity, Kind, Tlb

Owner = Hashable


class Found(Enum):
    """Where a translation was."""

    INNER = "inner"
    SECOND_LEVEL = "second level"
    NOWHERE = "nowhere"


@dataclass(slots=True)
class _Entry:
    page: int
    owner: Owner
    generation: int


@dataclass(slots=True)
class _Structure:
    """One TLB of small pages: `sets` lists of at most `ways` entries, and whose turn it is."""

    shape: Tlb
    entries: list[list[_Entry | None]] = field(default_factory=list)
    turn: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        geometry = self.shape.geometry
        self.entries = [[None] * geometry.ways for _ in range(geometry.sets)]
        self.turn = [0] * geometry.sets

    def put(self, entry: _Entry) -> None:
        number = entry.page % self.shape.geometry.sets
        ways = self.entries[number]
        if None in ways:
            ways[ways.index(None)] = entry
            return
        ways[self.turn[number]] = entry
        self.turn[number] = (self.turn[number] + 1) % len(ways)


class ModelTlb:
    """The TLBs of a CPU model, for pages of 4 KiB."""

    def __init__(self, tlbs: tuple[Tlb, ...], fidelity: Fidelity) -> None:
        """Start empty. `fidelity` is SHARED (the second level alone) or SPLIT."""
        small = [tlb for tlb in tlbs if tlb.sizes & 1]
        split = fidelity is Fidelity.SPLIT
        self._inner: Final = [_Structure(t) for t in small if t.level == (1 if split else 2)]
        self._outer: Final = [_Structure(t) for t in small if split and t.level == 2]
        self._generations: Final[dict[Owner, int]] = {}

    def touch(
        self, page: int, owners: tuple[Owner, Owner], kind: Kind, *, is_global: bool
    ) -> Found:
        """Look a linear page number up for `owners` (the context, its globals); fill on a miss."""
        inner = self._serving(self._inner, kind)
        if self._find(inner, page, owners):
            return Found.INNER
        for outer in self._outer:
            if held := self._find(outer, page, owners):
                inner.put(_Entry(page, held.owner, held.generation))
                return Found.SECOND_LEVEL
        owner = owners[1] if is_global else owners[0]
        for structure in (*self._outer, inner):
            structure.put(_Entry(page, owner, self._generations.setdefault(owner, 0)))
        return Found.NOWHERE

    def drop(self, page: int, owners: tuple[Owner, ...]) -> None:
        """Empty the ways that hold one page for any of these owners (INVLPG, INVVPID type 0)."""
        for structure in (*self._inner, *self._outer):
            ways = structure.entries[page % structure.shape.geometry.sets]
            for n, entry in enumerate(ways):
                if entry and entry.page == page and entry.owner in owners and self._lives(entry):
                    ways[n] = None

    def flush(self, owner: Owner) -> None:
        """Let all that an owner has die."""
        self._generations[owner] = self._generations.get(owner, 0) + 1

    def _serving(self, structures: list[_Structure], kind: Kind) -> _Structure:
        return next(s for s in structures if s.shape.kinds & kind)

    def _lives(self, entry: _Entry) -> bool:
        return entry.generation == self._generations.get(entry.owner, 0)

    def _find(self, structure: _Structure, page: int, owners: tuple[Owner, ...]) -> _Entry | None:
        ways = structure.entries[page % structure.shape.geometry.sets]
        for entry in ways:
            if entry and entry.page == page and entry.owner in owners and self._lives(entry):
                return entry
        return None
