"""Every check of a VM entry, in the manual's order: the readable twin of the C engine's.

`examine` says what an entry would do and why; `explain entry` prints it. Nothing here is on the way
of an entry, and nothing imports the C module.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from hwmodel.arch.qualification import EntryFailure
from hwmodel.arch.vmcs import Field
from hwmodel.vmx import check_guest
from hwmodel.vmx.check_controls import CONTROL_CHECKS
from hwmodel.vmx.check_guest import CONTROL_REGISTER_CHECKS, EVENT_CHECKS
from hwmodel.vmx.check_host import HOST_CHECKS
from hwmodel.vmx.check_segments import SEGMENT_CHECKS
from hwmodel.vmx.entry_view import EntryView

Rule = Callable[[EntryView], bool]


class Stage(Enum):
    """Which part of an entry a check belongs to, and so how its failure is told."""

    CONTROLS = "VM-instruction error 7"
    HOST = "VM-instruction error 8"
    GUEST = "exit INVALID_STATE"


@dataclass(frozen=True, slots=True)
class Check:
    """One check; `qualification` is that of INVALID_STATE when it fails."""

    name: str
    stage: Stage
    rule: Rule
    qualification: EntryFailure = EntryFailure.OTHER

    @property
    def text(self) -> str:
        """What is checked, in one sentence."""
        return (self.rule.__doc__ or "").strip()


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: the fields it looked at, with their values."""

    check: Check
    passes: bool
    seen: dict[Field, int]


_QUALIFICATIONS: Final[dict[Rule, EntryFailure]] = {
    check_guest.blocking_sti_excludes_nmi: EntryFailure.NMI_BLOCKED_BY_STI,
    check_guest.link_pointer_address: EntryFailure.VMCS_LINK_POINTER,
    check_guest.link_pointer_revision: EntryFailure.VMCS_LINK_POINTER,
    check_guest.link_pointer_is_another: EntryFailure.VMCS_LINK_POINTER,
    check_guest.pdptes_reserved: EntryFailure.PDPTE,
}
_STAGES: Final[tuple[tuple[Stage, tuple[Rule, ...]], ...]] = (
    (Stage.CONTROLS, CONTROL_CHECKS),
    (Stage.HOST, HOST_CHECKS),
    (Stage.GUEST, CONTROL_REGISTER_CHECKS + SEGMENT_CHECKS + EVENT_CHECKS),
)
CHECKS: Final = tuple(
    Check(rule.__name__, stage, rule, _QUALIFICATIONS.get(rule, EntryFailure.OTHER))
    for stage, rules in _STAGES
    for rule in rules
)


def examine(view: EntryView) -> Iterator[Finding]:
    """Make every check in order, also those after one that fails."""
    for check in CHECKS:
        view.seen = {}
        passes = check.rule(view)
        yield Finding(check, passes, dict(view.seen))


def first_failure(view: EntryView) -> Check | None:
    """Return the check that an entry fails by; None if it succeeds."""
    return next((check for check in CHECKS if not check.rule(view)), None)
