"""The readable twin of cext/ept.c: from guest-physical to machine addresses.

Manual: "EPT Translation Mechanism", "EPT-Induced VM Exits". Nothing is cached here.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.qualification import EptViolation
from hwmodel.mem.circumstances import ADDRESS, Circumstances, Course, WalkEndedError
from hwmodel.mem.reference import Access, Exited, Reference, Structure, Verdict

R, W, X, XU = 1, 2, 4, 1 << 10
LARGE, ACCESSED, DIRTY = 1 << 7, 1 << 8, 1 << 9
NO_MEMORY: Final = 0x102
"""The engine's own stop (INTERNAL): without EPT there is nothing that could exit for it."""
_BAD_TYPES: Final = frozenset({2, 3, 7})
_NEED: Final = {Access.READ: R, Access.WRITE: W, Access.FETCH: X}


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a guest-physical access is for, as the exit qualification tells it."""

    need: int
    """R, W, X."""
    linear_valid: bool = True
    page: "PageRights | None" = None
    """Of the linear address, when its own translation is the purpose."""


class PageRights(NamedTuple):
    """What the guest's own tables say about the page."""

    user: bool
    write: bool
    nx: bool


class Mapped(NamedTuple):
    """Where a guest-physical address lies, with the EPT's rights (R, W, X, XU, DIRTY)."""

    hpa: int
    rights: int
    shift: int


def structure_purpose(c: Circumstances, *, linear_valid: bool = True) -> Purpose:
    """An access to a guest paging structure: with accessed and dirty flags it counts as a write."""
    writes = c.eptp is not None and c.eptp.accessed_dirty
    return Purpose(R | W if writes else R, linear_valid)


def translate(c: Circumstances, course: Course, gpa: int, why: Purpose) -> Mapped:
    """Walk the EPT. Raises WalkEndedError with the exit that ends the walk."""
    if c.eptp is None:
        if gpa | 0xFFF >= len(course.memory) and why.page is not None:  # tables: all ones there
            raise WalkEndedError(Exited(NO_MEMORY, 0, gpa))
        return Mapped(gpa, R | W | X | XU | DIRTY, _identity_shift(course, gpa))
    if c.eptp.walk_length_minus_1 == 3 and gpa >> 48:
        _mark(course, Verdict.EPT_VIOLATION)
        raise _violation(c, gpa, why, 0)
    used, level, rights = _descend(c, course, gpa, why)
    needed = _needed(c, why)
    if rights & needed != needed:
        _mark(course, Verdict.EPT_VIOLATION)
        raise _violation(c, gpa, why, rights)
    entry, shift = course.read(used[-1], 8), 3 + 9 * level
    inside = (1 << shift) - 1
    frame = entry & ADDRESS
    if frame + inside >= len(course.memory):  # machine memory has no bus behind it
        _mark(course, Verdict.MISCONFIGURED)
        raise _misconfiguration(gpa)
    return Mapped(frame | gpa & inside, _note_use(c, course, used, why, rights), shift)


def _descend(
    c: Circumstances, course: Course, gpa: int, why: Purpose
) -> tuple[list[int], int, int]:
    assert c.eptp is not None
    table, rights = c.eptp.frame << 12, -1
    level = c.eptp.walk_length_minus_1 + 1
    used: list[int] = []
    while True:
        at = table + 8 * (gpa >> 3 + 9 * level & 511)
        entry = course.read(at, 8)
        used.append(at)
        course.references.append(Reference(Structure.EPT, level, gpa, at, entry))
        if not entry & (R | W | X | (XU if c.mode_based else 0)):
            _mark(course, Verdict.EPT_VIOLATION)
            raise _violation(c, gpa, why, 0)
        leaf = level == 1 or bool(entry & LARGE and (level == 2 or (level == 3 and c.has_1g)))
        if _is_misconfigured(c, entry, level, leaf):
            _mark(course, Verdict.MISCONFIGURED)
            raise _misconfiguration(gpa)
        rights &= entry
        if leaf:
            _mark(course, Verdict.LEAF)
            return used, level, rights
        table, level = entry & ADDRESS, level - 1


def _is_misconfigured(c: Circumstances, entry: int, level: int, leaf: bool) -> bool:
    """Manual, "EPT Misconfigurations"; execute-only pages exist here."""
    if entry & (R | W) == W or entry & c.beyond:
        return True
    if not leaf:
        large_is_reserved = level >= 4 or (level == 3 and not c.has_1g)
        return bool(entry & (0xF8 if large_is_reserved else 0x78))
    low = (1 << 3 + 9 * level) - 4096 if level > 1 else 0
    return entry >> 3 & 7 in _BAD_TYPES or bool(entry & low)


def _needed(c: Circumstances, why: Purpose) -> int:
    """Fetches from user pages have a right of their own under mode-based execute control."""
    if why.need & X and c.mode_based and why.page is not None and why.page.user:
        return why.need & ~X | XU
    return why.need


def _note_use(c: Circumstances, course: Course, used: list[int], why: Purpose, rights: int) -> int:
    """Set accessed and dirty flags; return the rights, with DIRTY if nothing is left to note."""
    assert c.eptp is not None
    kept = rights & (R | W | X | XU)
    if not c.eptp.accessed_dirty:
        return kept | DIRTY
    for at in used:
        course.note(at, ACCESSED)
    if why.need & W:
        course.note(used[-1], DIRTY)
    dirty = why.need & W or course.read(used[-1], 8) & DIRTY
    return kept | (DIRTY if dirty else 0)


def _violation(c: Circumstances, gpa: int, why: Purpose, rights: int) -> WalkEndedError:
    page = why.page if why.linear_valid else None
    qualification = EptViolation.of(
        read=bool(why.need & R), write=bool(why.need & W), fetch=bool(why.need & X),
        entry_readable=bool(rights & R), entry_writable=bool(rights & W),
        entry_executable=bool(rights & X), entry_user_executable=c.mode_based and bool(rights & XU),
        linear_address_valid=why.linear_valid, final_translation=page is not None,
        linear_is_user=page is not None and page.user,
        page_is_writable=page is not None and page.write, page_is_nx=page is not None and page.nx,
    )  # fmt: skip
    return WalkEndedError(Exited(ExitReason.EPT_VIOLATION, int(qualification), gpa))


def _misconfiguration(gpa: int) -> WalkEndedError:
    return WalkEndedError(Exited(ExitReason.EPT_MISCONFIG, 0, gpa))


def _mark(course: Course, verdict: Verdict) -> None:
    if course.references:
        course.references[-1] = course.references[-1]._replace(verdict=verdict)


def _identity_shift(course: Course, gpa: int) -> int:
    fitting = (shift for shift in (30, 21) if gpa | (1 << shift) - 1 < len(course.memory))
    return next(fitting, 12)


def final_purpose(access: Access, page: PageRights) -> Purpose:
    """The access itself, after the guest's tables have allowed it."""
    return Purpose(_NEED[access], page=page)
