"""The ledger: every cycle of the clock under one heading, per virtual CPU and per exit reason.

The C engine books (cext/ledger.h says what each heading means); this is the view that tests and
statistics read. The physical CPU's headings sum to its clock. A virtual CPU's are its own part of
that; what it waited for makes up the rest of the clock: steal where it could have run, else idle.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hwmodel.arch.exits import ExitReason
from hwmodel.arch.operations import Operation


class Heading(StrEnum):
    """What cycles were spent on, in the order of `enum ledger_heading`."""

    GUEST = "guest"
    WALK = "walk"
    EXIT = "exit"
    ENTRY = "entry"
    HYPERVISOR = "hypervisor"
    DEVICE = "device"
    INJECTION = "injection"
    STEAL = "steal"
    IDLE = "idle"

    @property
    def number(self) -> int:
        """Its place in the C engine's arrays."""
        return _INDEX[self]


_INDEX = {heading: number for number, heading in enumerate(Heading)}


@dataclass(frozen=True, slots=True)
class ExitCost:
    """Exits of one reason: `count`, and their `cycles` from leaving the guest to its next entry."""

    count: int = 0
    cycles: int = 0


class Exits(Mapping[str, ExitCost]):
    """Costs by the kernel's name of the reason; one that never happened cost nothing."""

    __slots__ = ("_costs",)

    def __init__(self, costs: Mapping[str, ExitCost]) -> None:
        """Only reasons that happened are listed."""
        self._costs = costs

    def __getitem__(self, name: str) -> ExitCost:
        if name not in ExitReason.__members__ and name not in Operation.__members__:
            raise KeyError(f"{name!r} is no exit reason; vm.ledger.exits lists those that happened")
        return self._costs.get(name, ExitCost())

    def __iter__(self) -> Iterator[str]:
        return iter(self._costs)

    def __len__(self) -> int:
        return len(self._costs)

    def __contains__(self, name: object) -> bool:
        return name in self._costs

    def __repr__(self) -> str:
        return repr(dict(self._costs))


@dataclass(frozen=True, slots=True)
class Account:
    """Cycles by heading, and what exits cost."""

    headings: Mapping[Heading, int]
    exits: Exits

    def __getitem__(self, heading: str) -> int:
        """Cycles under a heading, by its name."""
        return self.headings[Heading(heading)]

    @property
    def total(self) -> int:
        """The sum of all headings: the clock."""
        return sum(self.headings.values())

    def share(self, heading: str) -> float:
        """The part of the total under a heading, 0 to 1."""
        return self[heading] / (self.total or 1)

    def as_dict(self) -> dict[str, int]:
        """Return cycles by the heading's name."""
        return {str(heading): cycles for heading, cycles in self.headings.items()}


@dataclass(frozen=True, slots=True)
class Ledger(Account):
    """The physical CPU's account, and one for each virtual CPU; each sums to the clock."""

    vcpus: tuple[Account, ...]


def read_account(native: Any, completed: int = 0) -> Account:
    """Copy a C `struct ledger`; the next entry will book `completed` instructions."""
    headings = {heading: int(native.cycles[heading.number]) for heading in Heading}
    headings[Heading.GUEST] += completed
    counts, cycles = list(native.exits), list(native.exit_cycles)
    costs = {
        reason.name: ExitCost(counts[reason], cycles[reason])
        for reason in (*ExitReason, *Operation)
        if counts[reason]
    }
    return Account(headings, Exits(costs))


def merged(accounts: Sequence[Account]) -> Account:
    """Add the accounts of several physical CPUs: their headings sum to all their clocks."""
    headings = {name: sum(account[name] for account in accounts) for name in Heading}
    names = {name for account in accounts for name in account.exits}
    costs = {
        name: ExitCost(
            sum(account.exits[name].count for account in accounts),
            sum(account.exits[name].cycles for account in accounts),
        )
        for name in sorted(names)
    }
    return Account(headings, Exits(costs))


def whole(
    processor: Account, own: Sequence[Account], waiting: Sequence[int], clock: int | None = None
) -> Ledger:
    """Put accounts together; `waiting`: by virtual CPU, the steal that is not booked yet.

    `clock`: what the machine's clock reads where `processor` stands for several.
    """
    headings = dict(processor.headings)
    if clock is None:
        headings[Heading.GUEST] = sum(account["guest"] for account in own)
        clock = sum(headings.values())
    parts = (_of_vcpu(*part, clock) for part in zip(own, waiting, strict=True))
    return Ledger(headings, processor.exits, tuple(parts))


def _of_vcpu(own: Account, waiting: int, clock: int) -> Account:
    """What it neither used nor was kept from using, it waited for."""
    headings = dict(own.headings)
    headings[Heading.STEAL] += waiting
    headings[Heading.IDLE] = 0
    headings[Heading.IDLE] = clock - sum(headings.values())
    assert headings[Heading.IDLE] >= 0, "a virtual CPU was charged for more than there was"
    return Account(headings, own.exits)
