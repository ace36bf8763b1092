"""`explain walk`: every reference of a page walk, what its entry says, and what would serve it.

The walk is the C engine's own, told without effects: it changes no flag, no cache and no counter.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.paging import EptLeaf, EptTable, LargePte, LargePte32, Pte, Pte32, TableEntry
from hwmodel.arch.qualification import EptViolation
from hwmodel.arch.word import Word
from hwmodel.mem.reference import (
    Access,
    Exited,
    Raised,
    Reference,
    ServedBy,
    Structure,
    Translated,
    Verdict,
    Walk,
)
from vmm.vcpu import Vcpu

_PAE: Final = 1 << 5
_GUEST_LEVELS: Final = {48: "PML5E", 39: "PML4E", 30: "PDPTE", 21: "PDE", 22: "PDE", 12: "PTE"}
_EPT_LEVELS: Final = {5: "EPT PML5E", 4: "EPT PML4E", 3: "EPT PDPTE", 2: "EPT PDE", 1: "EPT PTE"}
_SERVED: Final = {
    ServedBy.MEMORY: "memory",
    ServedBy.TLB: "TLB",
    ServedBy.STRUCTURE_CACHE: "paging-structure cache",
    ServedBy.NESTED_TLB: "nested TLB",
}
_VERDICTS: Final = {
    Verdict.GOES_ON: "",
    Verdict.LEAF: "maps the page",
    Verdict.PAGE_FAULT: "#PF",
    Verdict.EPT_VIOLATION: "EPT violation",
    Verdict.MISCONFIGURED: "EPT misconfiguration",
}
_SIZES: Final = {12: "4K", 21: "2M", 22: "4M", 30: "1G"}


@dataclass(frozen=True, slots=True)
class Step:
    """One reference: its number from 1, the entry's name and the entry decoded."""

    number: int
    name: str
    reference: Reference
    decoded: Word
    served_by: str
    verdict: str


@dataclass(frozen=True, slots=True)
class WalkStory:
    """A walk for `access` to a linear or guest-physical `address`, and how it ends."""

    address: int
    is_physical: bool
    access: Access
    user: bool
    steps: tuple[Step, ...]
    end: Translated | Raised | Exited

    @property
    def guest_references(self) -> int:
        """How many entries of the guest's own tables are read."""
        return sum(step.reference.structure is Structure.GUEST for step in self.steps)

    @property
    def reaches(self) -> bool:
        """Whether the access could be made."""
        return isinstance(self.end, Translated)


def walk_story(
    vcpu: Vcpu, address: int, access: Access = Access.READ, *, user: bool | None = None,
    physical: bool = False,
) -> WalkStory:  # fmt: skip
    """Walk for an access of the vCPU as it stands; `user` None: with the rights that it has now."""
    user = vcpu.is_user() if user is None else user
    pcpu, vmcs = vcpu.pcpu, vcpu.vmcs
    walk = (
        pcpu.explain_gpa(vmcs, address, access)
        if physical
        else pcpu.explain_walk(vmcs, address, access, user=user)
    )
    narrow = not vcpu.regs.cr4 & _PAE
    return WalkStory(address, physical, access, user, _steps(walk, narrow=narrow), walk.end)


def _steps(walk: Walk, *, narrow: bool) -> tuple[Step, ...]:
    return tuple(
        Step(
            number, _name(reference), reference, _decode(reference, narrow=narrow),
            _SERVED[reference.served_by], _VERDICTS[reference.verdict],
        )
        for number, reference in enumerate(walk.references, 1)
    )  # fmt: skip


def _name(reference: Reference) -> str:
    if reference.structure is Structure.EPT:
        return _EPT_LEVELS[reference.level]
    return _GUEST_LEVELS[reference.level]


def _decode(reference: Reference, *, narrow: bool) -> Word:
    """The entry as what it is: another table, or a page of its level's size."""
    leaf = reference.verdict is Verdict.LEAF
    if reference.structure is Structure.EPT:
        return EptLeaf(reference.entry) if leaf else EptTable(reference.entry)
    if reference.level == 12:
        return Pte32(reference.entry) if narrow else Pte(reference.entry)
    if leaf:
        return LargePte32(reference.entry) if narrow else LargePte(reference.entry)
    return TableEntry(reference.entry)


def walk_lines(story: WalkStory) -> Iterator[str]:
    """Lines that tell the walk: a reference each, then the end."""
    what = "guest-physical" if story.is_physical else "linear"
    who = "" if story.is_physical else f" by {'a user' if story.user else 'the supervisor'}"
    yield f"{story.access.name.lower()} of {what} {story.address:#x}{who}"
    for step in story.steps:
        reference = step.reference
        deeper = "    " if reference.structure is Structure.EPT else "  "
        verdict = f"  {step.verdict}" if step.verdict else ""
        yield (
            f"{step.number:3}{deeper}{step.name:<9} at {reference.hpa:#x} for {reference.gpa:#x}: "
            f"{step.decoded!r}  [{step.served_by}]{verdict}"
        )
    served = [step for step in story.steps if step.reference.served_by is not ServedBy.MEMORY]
    count = len(story.steps)
    yield (
        f"{count} references: {story.guest_references} of the guest's tables, "
        f"{count - story.guest_references} of the EPT; {len(served)} would be served by caches"
    )
    yield _end(story.end)


def _end(end: Translated | Raised | Exited) -> str:
    if isinstance(end, Translated):
        size = _SIZES.get(end.shift, f"2^{end.shift} bytes")
        return f"guest-physical {end.gpa:#x}, host-physical {end.hpa:#x}, as a page of {size}"
    if isinstance(end, Raised):
        name = {14: "#PF", 13: "#GP", 12: "#SS"}.get(end.vector, f"vector {end.vector}")
        return f"{name} with error code {end.error:#x}{_why(end)}"
    name = ExitReason(end.reason).name if end.reason in set(ExitReason) else f"stop {end.reason:#x}"
    detail = f": {EptViolation(end.qualification)!r}" if end.qualification else ""
    return f"VM exit {name} about guest-physical {end.gpa:#x}{detail}"


def _why(end: Raised) -> str:
    """The error code in words (manual: "Page-Fault Exception (#PF)", figure of the error code)."""
    if end.vector != 14:
        return ""
    causes = ("not present", "protection")[end.error & 1]
    words = [
        causes,
        *(
            word
            for bit, word in (
                (1, "write"), (2, "user"), (3, "reserved bit"), (4, "fetch"), (5, "protection key"),
            )
            if end.error >> bit & 1
        ),
    ]  # fmt: skip
    return f": {', '.join(words)}"
