"""What a page walk did: each memory reference, and how it ended.

The C engine's record (`Pcpu.explain_walk`) and the readable walk of this folder have the same form,
so that one can be held against the other, and `explain` can print either.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class Access(IntEnum):
    """What the walk is for."""

    READ = 0
    WRITE = 1
    FETCH = 2


class Structure(IntEnum):
    """Whose entry a reference reads."""

    GUEST = 0
    EPT = 1


class ServedBy(IntEnum):
    """What would have saved a reference, had the walk been a real one."""

    MEMORY = 0
    TLB = 1
    STRUCTURE_CACHE = 2
    NESTED_TLB = 3


class Verdict(IntEnum):
    """What the walk made of the entry."""

    GOES_ON = 0
    LEAF = 1
    PAGE_FAULT = 2
    EPT_VIOLATION = 3
    MISCONFIGURED = 4


class Reference(NamedTuple):  # not a dataclass: the bulk runs make a billion of them
    """One entry that was read, at host-physical `hpa`.

    `level`: of a guest's entry, log2 of what it covers (12, 21, 22, 30, 39, 48); of an EPT entry 1
    to 5. `gpa`: where the guest's entry stands, or which address the EPT is to translate.
    """

    structure: Structure
    level: int
    gpa: int
    hpa: int
    entry: int
    verdict: Verdict = Verdict.GOES_ON
    served_by: ServedBy = ServedBy.MEMORY


@dataclass(frozen=True, slots=True)
class Translated:
    """The walk ended in a page; `shift` is log2 of the size of the mapping, `rights` as cached."""

    gpa: int
    hpa: int
    shift: int
    rights: int


@dataclass(frozen=True, slots=True)
class Raised:
    """It ended in an exception, which the guest or an intercept gets."""

    vector: int
    error: int


@dataclass(frozen=True, slots=True)
class Exited:
    """It ended in a VM-exit about the guest-physical address `gpa`."""

    reason: int
    qualification: int
    gpa: int


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk and its end."""

    references: tuple[Reference, ...]
    end: Translated | Raised | Exited
