"""The readable twin of cext/walk.c: a guest page walk, each table through the EPT.

Every walk here begins at CR3 and asks no cache. Manual: "Hierarchical Paging Structures", "Access
Rights", "Page-Fault Exceptions", "Accessed and Dirty Flags".
"""

from dataclasses import dataclass, replace
from typing import Final

from hwmodel.arch.addr import is_canonical
from hwmodel.arch.events import Vector
from hwmodel.mem.circumstances import ADDRESS, Circumstances, Course, WalkEndedError
from hwmodel.mem.nested import (
    DIRTY,
    XU,
    Mapped,
    PageRights,
    R,
    W,
    X,
    final_purpose,
    structure_purpose,
    translate,
)
from hwmodel.mem.reference import Access, Raised, Reference, Structure, Translated, Verdict, Walk
from hwmodel.mem.rights import Rights, allows, key_denies

P, ACCESSED, DIRTY_GUEST, PS, GLOBAL, NX = 1, 1 << 5, 1 << 6, 1 << 7, 1 << 8, 1 << 63
PF_P, PF_W, PF_U, PF_RSVD, PF_I, PF_PK = 1, 2, 4, 8, 16, 32
_EVERYTHING: Final = Rights(user=True, write=True, nx=False)


@dataclass(frozen=True, slots=True)
class Shape:
    """Where a walk begins: the table, what its entries cover (log2), index bits, entry bytes."""

    table: int
    shift: int
    bits: int = 9
    size: int = 8


def walk(c: Circumstances, course: Course) -> Walk:
    """Translate `course.linear`; flags are set if the course says so."""
    try:
        end = _translate(c, course)
    except WalkEndedError as ended:
        return Walk(tuple(course.references), ended.end)
    return Walk(tuple(course.references), end)


def _translate(c: Circumstances, course: Course) -> Translated:
    if not is_canonical_for(c, course.linear):
        raise WalkEndedError(Raised(Vector.GP, 0))
    if c.cr0.pg:
        gpa, shift, rights = _walk_tables(c, course)
    else:  # every page is a user's and writable, for exit qualifications too
        gpa, shift, rights = course.linear & 0xFFFF_FFFF, 30, Rights(
            user=True, write=True, nx=False, dirty=True, is_global=True
        )  # fmt: skip
    page = PageRights(rights.user, rights.write, rights.nx)
    mapped = translate(c, course, gpa, final_purpose(course.access, page))
    cached = int(rights) | _ept_rights(c, rights, mapped)
    return Translated(gpa, mapped.hpa, min(shift, mapped.shift), cached)


def is_canonical_for(c: Circumstances, linear: int) -> bool:
    """Whether the current mode can use the address."""
    return not c.is_long or is_canonical(linear, 57 if c.cr4.la57 else 48)


def _ept_rights(c: Circumstances, rights: Rights, mapped: Mapped) -> int:
    """What the EPT forbids, in the cached form (cext/mmu.h: ROM, NO_EXEC, NO_READ)."""
    runs = mapped.rights & (XU if c.mode_based and rights.user else X)
    stores = mapped.rights & W and mapped.rights & DIRTY
    return (0 if stores else 32) | (0 if runs else 64) | (0 if mapped.rights & R else 128)


def _shape(c: Circumstances, course: Course) -> Shape:
    if c.is_long:
        return Shape(c.cr3 & ADDRESS, 48 if c.cr4.la57 else 39)
    if not c.cr4.pae:
        return Shape(c.cr3 & 0xFFFF_F000, 22, 10, 4)
    pdpte = c.pdptes[course.linear >> 30 & 3]
    if not pdpte & P:
        raise _page_fault(c, course, 0)
    return Shape(pdpte & ADDRESS, 21)


def _walk_tables(c: Circumstances, course: Course) -> tuple[int, int, Rights]:
    shape = _shape(c, course)
    table, shift, rights = shape.table, shape.shift, _EVERYTHING
    used: list[tuple[int, int, bool]] = []
    while True:
        gpa = table + (course.linear >> shift & (1 << shape.bits) - 1) * shape.size
        place = translate(c, course, gpa, structure_purpose(c))
        entry = course.read(place.hpa, shape.size)
        course.references.append(Reference(Structure.GUEST, shift, gpa, place.hpa, entry))
        if not entry & P:
            raise _page_fault(c, course, 0)
        leaf = _is_leaf(c, entry, shift, shape.size)
        if entry & _reserved(c, shift, shape.size, leaf):
            raise _page_fault(c, course, PF_P | PF_RSVD)
        rights = rights.below(entry, shape.size)
        used.append((gpa, place.hpa, bool(place.rights & W)))
        if leaf:
            break
        table = entry & (ADDRESS if shape.size == 8 else 0xFFFF_F000)
        shift -= shape.bits
    _mark(course, Verdict.LEAF)
    return _leaf(c, course, entry, shift, shape.size, rights, used)


def _leaf(
    c: Circumstances, course: Course, entry: int, shift: int, size: int, rights: Rights,
    used: list[tuple[int, int, bool]],
) -> tuple[int, int, Rights]:  # fmt: skip
    """Check the rights, set the flags, return the guest-physical address."""
    key = entry >> 59 & 15 if size == 8 else 0
    rights = Rights(rights.user, rights.write, rights.nx, key)
    if not allows(c, rights, course.access, course.user):
        denied = key_denies(c, rights, course.access, course.user)
        raise _page_fault(c, course, PF_P | (PF_PK if denied else 0))
    writes = course.access is Access.WRITE
    for gpa, hpa, writable in used:
        last = hpa == used[-1][1] and gpa == used[-1][0]
        _set_flags(
            c, course, gpa, hpa, writable, ACCESSED | (DIRTY_GUEST if last and writes else 0)
        )
    dirty = writes or bool(entry & DIRTY_GUEST)
    is_global = bool(entry & GLOBAL and c.cr4.pge)
    rights = Rights(rights.user, rights.write, rights.nx, key, dirty, is_global)
    return _address(entry, shift, size) | course.linear & (1 << shift) - 1, shift, rights


def _set_flags(
    c: Circumstances, course: Course, gpa: int, hpa: int, writable: bool, flags: int
) -> None:
    """Store accessed and dirty flags; the EPT may object to the store."""
    if not course.effects or course.read(hpa, 4) & flags == flags:
        return
    if not writable:
        translate(c, course, gpa, replace(structure_purpose(c), need=R | W))
    course.note(hpa, flags)


def _is_leaf(c: Circumstances, entry: int, shift: int, size: int) -> bool:
    if shift == 12:
        return True
    if not entry & PS or shift >= 39:
        return False
    return size == 8 or c.cr4.pse


def _reserved(c: Circumstances, shift: int, size: int, leaf: bool) -> int:
    """Manual, "Paging-Structure Entry Formats": the bits that must be 0."""
    if size == 4:
        beyond_pse36 = (c.beyond >> 32 & 0xFF) << 13  # address bits 39:32 stand in 20:13
        return 1 << 21 | beyond_pse36 if leaf and shift == 22 else 0
    mask = c.beyond | (0 if c.efer.nxe else NX)
    if not c.is_long:
        mask |= 0x7FF << 52
    if shift >= 39 or (shift == 30 and not c.has_1g):
        mask |= PS
    if leaf and shift > 12:
        mask |= (1 << shift) - (1 << 13)  # address bits below the page; PAT is bit 12
    return mask


def _address(entry: int, shift: int, size: int) -> int:
    if size == 4 and shift == 22:
        return entry & 0xFFC0_0000 | (entry >> 13 & 0xFF) << 32
    return entry & (ADDRESS if size == 8 else 0xFFFF_F000) & -(1 << shift)


def _page_fault(c: Circumstances, course: Course, cause: int) -> WalkEndedError:
    fetches = course.access is Access.FETCH and (c.efer.nxe or c.cr4.smep)
    writes = course.access is Access.WRITE
    error = cause | writes * PF_W | course.user * PF_U | fetches * PF_I
    _mark(course, Verdict.PAGE_FAULT)
    return WalkEndedError(Raised(Vector.PF, error))


def _mark(course: Course, verdict: Verdict) -> None:
    if course.references:
        course.references[-1] = course.references[-1]._replace(verdict=verdict)
