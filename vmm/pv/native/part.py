"""What the parts of the native dialect share: the room they stand in, and what each may do.

A part serves one or several features: it has hypercalls, may want to hear of moments of a virtual
CPU, may have events of its own, and writes its state down. `parts.PARTS` lists them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmm.pv.dialect import Hooks, Hypercall, Machine, Processor, State
from vmm.pv.native.abi import Call, Feature, PageKind

if TYPE_CHECKING:
    from vmm.pv.native.contract import Contract
    from vmm.pv.native.pages import SharedPages
    from vmm.pv.native.referee import Referee

Handler = Callable[[Processor, Hypercall], int]
"""Carries out a call whose feature is active and whose addresses are RAM; returns its result."""


@dataclass(slots=True)
class Room:
    """What every part knows. `cpus` are the virtual CPUs, by number, once they are attached."""

    machine: Machine
    contract: "Contract"
    pages: "SharedPages"
    referee: "Referee"
    cpus: list[Processor]
    options: frozenset[str]
    """See `offer`."""
    call: Callable[[Processor, Hypercall], int]
    """Carry out a call as if the guest had made it: for a call within a call."""


class Part:
    """A part that does nothing; the real ones override what they need."""

    name = ""
    features: frozenset[Feature] = frozenset()
    hooks: Hooks = Hooks()

    def __init__(self, room: Room) -> None:
        """Stand in `room`."""
        self.room: Final = room

    def calls(self) -> Mapping[Call, Handler]:
        """The hypercalls that it carries out."""
        return {}

    def page_set(self, cpu: Processor, kind: PageKind) -> None:
        """A page was shared, or taken back, that may be this part's: write it."""

    def released(self, feature: Feature) -> None:
        """The guest let a feature go: forget what it asked for."""

    def next_event(self) -> int | None:
        """Return the cycle at which it has something to do, or None."""
        return None

    def fire(self) -> None:
        """Do what is due."""

    def begin_life(self, life: int) -> None:
        """The guest goes on from a snapshot as number `life`."""

    def reset(self, index: int) -> None:
        """Power-up or INIT of a virtual CPU."""

    def save(self) -> State:
        """Return the whole state."""
        return {}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
