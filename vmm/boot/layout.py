"""Guest memory while a boot plan is made: who has claimed what, and where there is room.

Image segments are claimed where they are linked and are refused when they do not fit; what the
loader adds (information structures, modules, page tables) takes the first gap. The information
goes to low memory from 64 KiB upwards, where GRUB puts it, so that a guest which takes everything
after its own end for a heap does not run over it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from vmm.boot.memmap import HIGH_START, HOLE_END, HOLE_START, LOW_END, usable
from vmm.boot.plan import Content, Placement
from vmm.config import MIB, size_text
from vmm.errors import UsageError

INFO_START = 0x10000
PAGE = 4096


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """A range that is taken; ``name`` is what messages call it."""

    start: int
    end: int
    name: str


class Layout:
    """Claims and placements in ``memory`` bytes of guest memory."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._claims: list[Claim] = []
        self._placements: list[Placement] = []

    def load(self, gpa: int, data: Content, name: str, size: int | None = None) -> None:
        """Claim ``size`` bytes at ``gpa`` (default: the data's length) and put ``data`` there."""
        self._claim(gpa, len(data) if size is None else size, name)
        if data:
            self._placements.append(Placement(gpa, data, name))

    def put(self, data: bytes, name: str, *, start: int = INFO_START, align: int = 16) -> int:
        """Put loader-made ``data`` into the first gap from ``start``; return its address."""
        gpa = self.find(len(data), name, start=start, align=align)
        self.load(gpa, data, name)
        return gpa

    def find(
        self,
        size: int,
        name: str,
        *,
        start: int = INFO_START,
        end: int = HOLE_END,
        align: int = 16,
    ) -> int:
        """Return the lowest gap for ``size`` bytes in [start, end), or refuse for want of room."""
        for low, high in self._gaps():
            gpa = max(low, start) + -max(low, start) % align
            if gpa + size <= min(high, end):
                return gpa
        raise self.no_room(size, name)

    def find_high(self, size: int, *, start: int = INFO_START, end: int, align: int) -> int | None:
        """Return the highest gap for ``size`` bytes in [start, end), or None."""
        for low, high in reversed(list(self._gaps())):
            gpa = (min(high, end) - size) // align * align
            if gpa >= max(low, start):
                return gpa
        return None

    def no_room(self, size: int, name: str) -> UsageError:
        """Return the error for something that fits nowhere."""
        return UsageError(
            f"no room for the {name} ({size_text(size)}) in a memory of {size_text(self._memory)}; "
            f"give --memory {_enough(self._memory + size)}"
        )

    def reserve(self, size: int, name: str, *, align: int = 16) -> int:
        """Claim a gap that stays zero; return its address."""
        gpa = self.find(size, name, align=align)
        self._claim(gpa, size, name)
        return gpa

    def top(self) -> int:
        """Return the first address after all that is claimed below 3 GiB, at least 1 MiB."""
        ends = (claim.end for claim in self._claims if claim.end <= HOLE_START)
        return max([HIGH_START, *ends])

    def placements(self) -> tuple[Placement, ...]:
        """Return what has been put, sorted by address."""
        return tuple(sorted(self._placements, key=lambda placement: placement.gpa))

    def _claim(self, gpa: int, size: int, name: str) -> None:
        if size == 0:
            return
        claim = Claim(gpa, gpa + size, name)
        self._check_fits(claim)
        for other in self._claims:
            if claim.start < other.end and other.start < claim.end:
                raise UsageError(
                    f"{name} at {gpa:#x}-{claim.end:#x} overlaps {other.name} at "
                    f"{other.start:#x}-{other.end:#x}; link them apart"
                )
        self._claims.append(claim)
        self._claims.sort()

    def _check_fits(self, claim: Claim) -> None:
        if any(r.start <= claim.start and claim.end <= r.end for r in usable(self._memory)):
            return
        where = f"{claim.name} at {claim.start:#x}-{claim.end:#x}"
        if claim.start < HIGH_START and claim.end > LOW_END:
            raise UsageError(f"{where} reaches into the reserved 0x9fc00-0x100000; link it at 1M")
        if claim.start < HOLE_END and claim.end > HOLE_START:
            raise UsageError(f"{where} reaches into the hole from 3G to 4G; link it below 3G")
        needed = claim.end if claim.end <= HOLE_START else claim.end - HOLE_END + HOLE_START
        raise UsageError(
            f"{where} does not fit a memory of {size_text(self._memory)}; "
            f"give --memory {_enough(needed)} or link it lower"
        )

    def _gaps(self) -> Iterator[tuple[int, int]]:
        for region in usable(self._memory):
            low = region.start
            for claim in self._claims:
                if claim.end > low and claim.start < region.end:
                    if claim.start > low:
                        yield low, claim.start
                    low = claim.end
            if low < region.end:
                yield low, region.end


def _enough(size: int) -> str:
    """Return a memory size, in whole MiB, that holds ``size`` bytes."""
    return size_text((size + 2 * MIB - 1) // MIB * MIB)
