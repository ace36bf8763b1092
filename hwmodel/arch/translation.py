"""What a CPU model remembers of translations: TLBs, paging-structure caches, nested TLB.

The words are those of "Caching Translation Information"; the geometry stands in the model's file.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from hwmodel.arch.sourced import SourcedTable


class Fidelity(IntEnum):
    """How closely the engine follows the geometry: cext/tlb.c says what each costs and shows."""

    LARGE = 0
    """One TLB larger than any processor's: for `--timing fast`."""
    SHARED = 1
    """The second level as the model has it: for `--timing cycle`."""
    SPLIT = 2
    """Both levels, code and data apart."""
    DATA = 3
    """Both levels for data, code as with SHARED: for `--timing detailed`."""


class Kind(IntFlag):
    """What a TLB serves."""

    DATA = 1
    CODE = 2


class PageSize(IntFlag):
    """The page sizes that a TLB holds."""

    SMALL = 1
    LARGE = 2
    HUGE = 4


_KINDS = {"data": Kind.DATA, "code": Kind.CODE, "shared": Kind.DATA | Kind.CODE}
_SIZES = {"4K": PageSize.SMALL, "2M": PageSize.LARGE, "1G": PageSize.HUGE}
STRUCTURES = ("pde", "pdpte", "pml4e", "pml5e")
"""The paging-structure caches, by the entry that they stand for."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """`sets` (a power of two) of `ways`."""

    sets: int
    ways: int


@dataclass(frozen=True, slots=True)
class Tlb:
    """One TLB: its level (1 or 2), what it serves, the page sizes that it holds."""

    level: int
    kinds: Kind
    sizes: PageSize
    geometry: Geometry


@dataclass(frozen=True, slots=True)
class TranslationCaches:
    """Everything a processor caches of its page walks."""

    tlbs: tuple[Tlb, ...]
    structures: tuple[Geometry, ...]
    """In the order of STRUCTURES."""
    nested: Geometry
    """Guest-physical mappings."""

    @classmethod
    def read(cls, file: SourcedTable) -> "TranslationCaches":
        """Take [[tlb]] and [walk_caches] out of a model's file. Raises ModelError."""
        walks = file.section("walk_caches")
        structures = tuple(_geometry(walks.section(name)) for name in STRUCTURES)
        nested = _geometry(walks.section("nested"))
        walks.done()
        tlbs = tuple(_tlb(row) for row in file.rows("tlb"))
        for level in (1, 2):
            for kind in (Kind.DATA, Kind.CODE):
                small = [t for t in tlbs if t.level == level and t.kinds & kind and t.sizes & 1]
                if not small:
                    raise file.error("tlb", f"has no level {level} for {kind.name} and 4K pages")
        return cls(tlbs, structures, nested)


def _tlb(row: SourcedTable) -> Tlb:
    kind, sizes, level = row.text("kind"), row.take("sizes", list), row.integer("level")
    if kind not in _KINDS:
        raise row.error("kind", f"{kind!r} must be one of {', '.join(_KINDS)}")
    if not sizes or any(size not in _SIZES for size in sizes):
        raise row.error("sizes", f"{sizes!r} must name some of {', '.join(_SIZES)}")
    if level not in (1, 2):
        raise row.error("level", f"{level} must be 1 or 2")
    held = PageSize(sum(_SIZES[size] for size in set(map(str, sizes))))
    return Tlb(level, _KINDS[kind], held, _geometry(row))


def _geometry(row: SourcedTable) -> Geometry:
    entries, ways = row.integer("entries"), row.integer("ways")
    row.source()
    row.done()
    if ways < 1 or ways > 255 or entries % ways:
        raise row.error("entries", f"{entries} is no multiple of ways {ways}, or those are none")
    sets = entries // ways
    if sets < 1 or sets & (sets - 1):
        raise row.error("entries", f"{entries} in {ways} ways make {sets} sets, no power of two")
    return Geometry(sets, ways)
