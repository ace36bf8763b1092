"""How many references a walk makes, and what each exit says of it.

nm + n + m: Bhargava et al. 2008, "Accelerating Two-Dimensional Page Walks", section 1 and figure 1;
qualifications: "Exit Qualification for EPT Violations".
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.paging import EptPointer
from hwmodel.arch.registers import Cr0, Cr4, Efer
from hwmodel.mem.circumstances import Circumstances
from hwmodel.mem.ram import PAGE
from hwmodel.mem.reference import Access, Exited, Raised, ServedBy, Structure, Translated
from tests.twin.walking import EPT_TABLES, Case, Walker

ROOT, LINEAR = 0x4000, 0x7F_1234_5678
BIT = {"read": 1, "write": 2, "fetch": 4, "valid": 1 << 7, "translation": 1 << 8, "user": 1 << 9}
WRITABLE, NX = 1 << 10, 1 << 11


@pytest.fixture(name="walker")
def _walker() -> Iterator[Walker]:
    made = Walker()
    yield made
    made.close()


def ept(depth: int, levels: int, leaf: int = 0x37) -> list[tuple[int, int, int]]:
    """Entries that map from 0 on in `depth` steps: small pages where it equals `levels`."""
    entries = [
        (EPT_TABLES + n * PAGE, 8, EPT_TABLES + (n + 1) * PAGE | 7) for n in range(depth - 1)
    ]
    last = EPT_TABLES + (depth - 1) * PAGE
    if depth == levels:
        return entries + [(last + 8 * n, 8, n * PAGE | leaf) for n in range(48)]
    return [*entries, (last, 8, leaf | 0x80)]


def guest(depth: int, levels: int, leaf: int = 0x5000 | 7) -> list[tuple[int, int, int]]:
    """Entries that map LINEAR in `depth` steps of 4-level or 5-level paging."""
    entries = []
    for n in range(depth):
        shift = 12 + 9 * (levels - 1 - n)
        last = n == depth - 1
        value = ROOT + (n + 1) * 0x1000 | 7 if not last else leaf if shift == 12 else 0x87
        entries.append((ROOT + n * 0x1000 + (LINEAR >> shift & 511) * 8, 8, value))
    return entries


def circumstances(guest_levels: int = 4, ept_levels: int = 4, **changes: Any) -> Circumstances:
    pointer = EptPointer.of(
        memory_type=6, walk_length_minus_1=ept_levels - 1, frame=EPT_TABLES // PAGE
    )
    return replace(
        Circumstances(
            Cr0.of(pe=1, pg=1, wp=1), ROOT, Cr4.of(pae=1, la57=guest_levels == 5),
            Efer.of(lme=1, lma=1, nxe=1), pointer,
        ),
        **changes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("guest_levels", "guest_depth", "ept_levels", "ept_depth", "references"),
    [
        (4, 4, 4, 4, 24), (5, 5, 5, 5, 35), (4, 3, 4, 4, 19), (4, 4, 4, 3, 19), (4, 3, 4, 3, 15),
        (4, 2, 4, 4, 14), (5, 5, 4, 4, 29), (4, 4, 5, 5, 29), (4, 3, 5, 5, 23), (5, 4, 4, 4, 24),
    ],
)  # fmt: skip
def test_two_dimensional_walks(
    walker: Walker, guest_levels: int, guest_depth: int, ept_levels: int, ept_depth: int,
    references: int,
) -> None:  # fmt: skip
    entries = ept(ept_depth, ept_levels) + guest(guest_depth, guest_levels)
    case = Case(tuple(entries), circumstances(guest_levels, ept_levels), LINEAR, Access.READ, False)
    walker.put(case)
    made = walker.engine(case)
    if guest_depth == guest_levels:
        assert isinstance(made.end, Translated)
        assert made.end.gpa == 0x5000 | LINEAR & 0xFFF
    n, m = guest_depth, ept_depth
    assert n * m + n + m == references
    if isinstance(made.end, Translated):
        assert len(made.references) == references
    else:  # a large page of the guest's reaches beyond what this EPT maps: its last step is missing
        assert len(made.references) >= references - m + 1
    assert made == walker.twin(case)


def test_without_ept_only_the_guests_entries_are_read(walker: Walker) -> None:
    case = Case(tuple(guest(4, 4)), circumstances(eptp=None), LINEAR, Access.READ, True)
    walker.put(case)
    assert [r.structure for r in walker.engine(case).references] == [Structure.GUEST] * 4


def test_order_and_levels(walker: Walker) -> None:
    """Figure 1: the EPT of each table before its entry, the EPT of the page last."""
    case = Case(tuple(ept(4, 4) + guest(4, 4)), circumstances(), LINEAR, Access.READ, False)
    walker.put(case)
    made = walker.engine(case).references
    assert [r.level for r in made if r.structure is Structure.GUEST] == [39, 30, 21, 12]
    assert [r.level for r in made[:5]] == [4, 3, 2, 1, 39]
    assert {r.gpa for r in made[20:]} == {0x5678}
    assert {r.served_by for r in made} == {ServedBy.MEMORY}


def test_looking_changes_nothing_and_tells_what_is_cached(walker: Walker) -> None:
    case = Case(tuple(ept(4, 4) + guest(4, 4)), circumstances(), LINEAR, Access.READ, False)
    walker.put(case)
    walker.engine(case)  # the first one after a change of registers forgets what was cached
    before, counters = walker.contents(case), walker.pcpu.mmu_counters()
    walker.engine(case)
    assert walker.contents(case) == before
    assert walker.pcpu.mmu_counters() == counters
    walker.engine(case, effects=True)
    served = [r.served_by for r in walker.engine(case).references]
    assert served == [ServedBy.STRUCTURE_CACHE] * 19 + [ServedBy.MEMORY] + [ServedBy.NESTED_TLB] * 4
    assert walker.pcpu.read(walker.vmcs, LINEAR, 1) == b"\0"
    assert {r.served_by for r in walker.engine(case).references} == {ServedBy.TLB}


def test_hot_caches_leave_one_reference(walker: Walker) -> None:
    case = Case(tuple(ept(4, 4) + guest(4, 4)), circumstances(), LINEAR, Access.READ, False)
    walker.put(case)
    walker.engine(case, effects=True)
    hot = walker.engine(case, effects=True)
    assert [(r.structure, r.level) for r in hot.references] == [(Structure.GUEST, 12)]


def exit_of(walker: Walker, case: Case) -> Exited:
    walker.put(case)
    end = walker.engine(case).end
    assert isinstance(end, Exited)
    assert walker.twin(case).end == end
    return end


@pytest.mark.parametrize(
    ("leaf", "access", "user", "page", "qualification"),
    [
        (0x30, Access.READ, False, 3, BIT["read"] | WRITABLE),
        (0x35, Access.WRITE, True, 7, BIT["write"] | 5 << 3 | BIT["user"] | WRITABLE),
        (0x33, Access.FETCH, True, 5, BIT["fetch"] | 3 << 3 | BIT["user"]),
        (0x34, Access.READ, False, 1 | 1 << 63, BIT["read"] | 4 << 3 | NX),
    ],
)
def test_violations_of_the_page(
    walker: Walker, leaf: int, access: Access, user: bool, page: int, qualification: int
) -> None:
    entries = [*ept(4, 4), *guest(4, 4, 0x9000 | page)]
    entries.append((EPT_TABLES + 3 * PAGE + 8 * 9, 8, 0x9000 | leaf))
    end = exit_of(walker, Case(tuple(entries), circumstances(), LINEAR, access, user))
    assert end == Exited(
        ExitReason.EPT_VIOLATION, qualification | BIT["valid"] | BIT["translation"], 0x9678
    )


@pytest.mark.parametrize("accessed_dirty", [False, True])
def test_violations_of_a_table(walker: Walker, accessed_dirty: bool) -> None:
    """With accessed and dirty flags the access counts as a write, and says it is both."""
    c = circumstances()
    assert c.eptp is not None
    c = replace(c, eptp=c.eptp.replace(accessed_dirty=accessed_dirty))
    entries = [*ept(4, 4), *guest(4, 4), (EPT_TABLES + 3 * PAGE + 8 * 5, 8, 0x30)]
    end = exit_of(walker, Case(tuple(entries), c, LINEAR, Access.READ, False))
    at = 0x5000 + (LINEAR >> 30 & 511) * 8
    expected = BIT["read"] | BIT["valid"] | (BIT["write"] if accessed_dirty else 0)
    assert end == Exited(ExitReason.EPT_VIOLATION, expected, at)


def test_a_read_only_table_is_enough_until_a_flag_is_to_be_set(walker: Walker) -> None:
    entries = [*ept(4, 4), *guest(4, 4), (EPT_TABLES + 3 * PAGE + 8 * 7, 8, 0x7000 | 0x31)]
    case = Case(tuple(entries), circumstances(), LINEAR, Access.READ, False)
    walker.put(case)
    assert isinstance(walker.engine(case).end, Translated)
    end = walker.engine(case, effects=True).end
    at = 0x7000 + (LINEAR >> 12 & 511) * 8
    assert end == Exited(ExitReason.EPT_VIOLATION, 3 | 1 << 3 | BIT["valid"], at)


@pytest.mark.parametrize(
    "leaf", [0x32, 0x36, 0x17, 0x1F, 0x3F, 0x37 | 1 << 46], ids=lambda leaf: f"{leaf:#x}"
)
def test_misconfigurations(walker: Walker, leaf: int) -> None:
    """Write without read; memory types 2, 3 and 7; an address bit that does not exist."""
    entries = [*ept(4, 4), *guest(4, 4), (EPT_TABLES + 3 * PAGE + 8 * 5, 8, leaf)]
    end = exit_of(walker, Case(tuple(entries), circumstances(), LINEAR, Access.READ, False))
    assert end.reason == ExitReason.EPT_MISCONFIG
    assert end.qualification == 0


def test_mode_based_execute_control(walker: Walker) -> None:
    """Bit 10 is for user pages, bit 2 for supervisor pages; bit 6 of the qualification tells."""
    entries = [*ept(4, 4, 0x33 | 1 << 10), *guest(4, 4)]
    for n in range(3):
        at, size, value = entries[n]
        entries[n] = at, size, value | 1 << 10
    c = circumstances(mode_based=True)
    case = Case(tuple(entries), c, LINEAR, Access.FETCH, True)
    walker.put(case)
    assert isinstance(walker.engine(case).end, Translated)
    page = guest(4, 4, 0x5000 | 3)
    end = exit_of(walker, Case((*entries[:-4], *page), c, LINEAR, Access.FETCH, False))
    expected = BIT["fetch"] | 3 << 3 | 1 << 6 | BIT["valid"] | BIT["translation"] | WRITABLE
    assert end.qualification == expected


@pytest.mark.parametrize(
    ("page", "access", "user", "changes", "error"),
    [
        (0, Access.READ, False, {}, 0),
        (0, Access.WRITE, True, {}, 6),
        (3, Access.READ, True, {}, 5),
        (5, Access.WRITE, True, {}, 7),
        (5, Access.WRITE, False, {}, 3),
        (7 | 1 << 63, Access.FETCH, True, {}, 0x15),
        (7 | 1 << 51, Access.READ, True, {}, 0xD),
        (7, Access.FETCH, False, {"cr4": Cr4.of(pae=1, smep=1)}, 0x11),
        (7, Access.READ, False, {"cr4": Cr4.of(pae=1, smap=1)}, 1),
        (7 | 2 << 59, Access.READ, True, {"cr4": Cr4.of(pae=1, pke=1), "pkru": 1 << 4}, 0x25),
        (7 | 2 << 59, Access.WRITE, False, {"cr4": Cr4.of(pae=1, pke=1), "pkru": 2 << 4}, 0x23),
        (3 | 2 << 59, Access.READ, False, {"cr4": Cr4.of(pae=1, pks=1), "pkrs": 1 << 4}, 0x21),
    ],
)
def test_page_fault_codes(
    walker: Walker, page: int, access: Access, user: bool, changes: dict[str, Any], error: int
) -> None:
    """Manual: "Page-Fault Error Code"."""
    entries = [*ept(4, 4), *guest(4, 4, 0x5000 | page)]
    case = Case(tuple(entries), circumstances(**changes), LINEAR, access, user)
    walker.put(case)
    assert walker.engine(case).end == Raised(14, error)
    assert walker.twin(case).end == Raised(14, error)


def test_tables_that_loop(walker: Walker) -> None:
    """Every level the same entry, which leads to itself: the page is the table."""
    loop = sum(256 << shift for shift in (12, 21, 30, 39)) | 0xFFFF << 48
    case = Case(((0x4000 + 256 * 8, 8, 0x4007),), circumstances(eptp=None), loop, Access.READ, True)
    walker.put(case)
    end = walker.engine(case).end
    assert isinstance(end, Translated)
    assert end.gpa == 0x4000
