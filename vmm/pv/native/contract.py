"""The life of a feature: offered, accepted in a version, active, being revoked, revoked.

    NOT_OFFERED   OFFERED --accept--> ACCEPTED --activate--> ACTIVE
                     ^                                          | revoke() by the hypervisor
                     | offer() by the hypervisor                v
                  REVOKED <------------acknowledge---------- REVOKING

A feature works in ACTIVE and in REVOKING: it goes when the guest says so and in no other way,
whatever CPUID says meanwhile. What was accepted and not yet activated goes at once: nobody uses
it. A guest that does not acknowledge within `GRACE_NS` breaks a rule, once; the hypervisor's
promise holds nevertheless, and whoever revoked may stop the guest (`overdue`).
"""

from enum import IntEnum
from typing import Final, TypeVar

from vmm.pv.dialect import Hypercall, Machine, Processor, State
from vmm.pv.native.abi import (
    CONTRACT_PAGE,
    VERSION,
    VERSIONS,
    Error,
    Feature,
    FeatureState,
    Notice,
    PageKind,
)
from vmm.pv.native.pages import SharedPages
from vmm.pv.native.referee import Referee, Rule

GRACE_NS: Final = 100_000_000
"""0.1 s: Linux's own notices of the kind (memory hot-unplug, CPU parking) are of that order."""
_FIXED: Final = 0  # delivery mode
_FIRST_VECTOR: Final = 16
_AT: Final = CONTRACT_PAGE.offsets
S = FeatureState
Number = TypeVar("Number", bound=IntEnum)
_WORKS: Final = frozenset({S.ACTIVE, S.REVOKING})


class Contract:
    """The state of every feature of one VM, its contract page, and its vectors."""

    def __init__(
        self, machine: Machine, pages: SharedPages, referee: Referee, offered: frozenset[Feature]
    ) -> None:
        """Offer some features."""
        self._machine: Final = machine
        self._pages: Final = pages
        self._referee: Final = referee
        self._first: Final = {f: S.OFFERED if f in offered else S.NOT_OFFERED for f in Feature}
        self.state: Final = dict(self._first)
        self.versions: Final[dict[Feature, int]] = {}
        self.vectors: Final[dict[Notice, int]] = {}
        self.deadlines: Final[dict[Feature, int]] = {}
        """Cycles by which a revocation is to be acknowledged."""
        self.generation = 1
        self._active: set[Feature] = set()
        self._cpus: list[Processor] = []
        referee.checks.append(self._check)

    def attach(self, processors: list[Processor]) -> None:
        """Meet the virtual CPUs."""
        self._cpus = processors

    def works(self, feature: Feature | None) -> bool:
        """Whether a feature's calls and pages work now; what belongs to none always does."""
        return feature is None or feature in self._active

    def _move(self, feature: Feature, state: FeatureState) -> None:
        self.state[feature] = state
        (self._active.add if state in _WORKS else self._active.discard)(feature)
        self.deadlines.pop(feature, None)

    # ---- the guest's side ----

    def accept(self, _cpu: Processor, call: Hypercall) -> int:
        """CONTRACT_ACCEPT: an offered feature, in a version that we speak."""
        feature, version = _feature(call.arguments[0]), call.arguments[1]
        if feature is None or self.state[feature] is S.NOT_OFFERED:
            return -Error.NOT_OFFERED
        if self.state[feature] not in (S.OFFERED, S.ACCEPTED):
            return -Error.BAD_STATE
        oldest, newest = VERSIONS[feature]
        if not oldest <= version <= newest:
            return -Error.BAD_VERSION
        self._move(feature, S.ACCEPTED)
        self.versions[feature] = version
        self.publish()
        return 0

    def activate(self, _cpu: Processor, call: Hypercall) -> int:
        """CONTRACT_ACTIVATE: all of the mask, or nothing."""
        mask = call.arguments[0]
        wanted = [feature for feature in Feature if mask >> feature & 1]
        if not mask or mask >> len(Feature):
            return -Error.BAD_ARGUMENT
        if any(self.state[feature] is not S.ACCEPTED for feature in wanted):
            return -Error.BAD_STATE
        for feature in wanted:
            self._move(feature, S.ACTIVE)
        self.publish()
        return 0

    def acknowledge(self, _cpu: Processor, call: Hypercall) -> int:
        """CONTRACT_ACKNOWLEDGE: the feature goes now."""
        feature = _feature(call.arguments[0])
        if feature is None or self.state[feature] is not S.REVOKING:
            return -Error.BAD_STATE
        self._move(feature, S.REVOKED)
        self.publish()
        return 0

    def tell(self, _cpu: Processor, call: Hypercall) -> int:
        """CONTRACT_STATE."""
        feature = _feature(call.arguments[0])
        return -Error.BAD_ARGUMENT if feature is None else int(self.state[feature])

    def set_vector(self, _cpu: Processor, call: Hypercall) -> int:
        """SET_VECTOR: of an interrupt for a notice."""
        notice, vector = call.arguments[:2]
        if notice >= len(Notice) or (vector and not _FIRST_VECTOR <= vector <= 0xFF):
            return -Error.BAD_ARGUMENT
        self.vectors[Notice(notice)] = vector
        return 0

    # ---- the hypervisor's side ----

    def offer(self, feature: Feature) -> bool:
        """Offer a feature that is not, or no longer; whether that was so."""
        if self.state[feature] not in (S.NOT_OFFERED, S.REVOKED):
            return False
        self._move(feature, S.OFFERED)
        self.publish()
        return True

    def revoke(self, feature: Feature) -> FeatureState:
        """Withdraw an offer, or begin to revoke what is active; return where it stands then."""
        state = self.state[feature]
        if state in (S.OFFERED, S.ACCEPTED):
            self._move(feature, S.REVOKED)
        elif state is S.ACTIVE:
            self._move(feature, S.REVOKING)
            clock = self._machine.clock
            self.deadlines[feature] = clock.now + clock.cycles_of_ns(GRACE_NS)
        self.publish()
        if self.state[feature] is S.REVOKING:
            self.notify(Notice.REVOCATION)
        return self.state[feature]

    def begin_life(self, life: int) -> None:
        """The guest goes on from a snapshot: tell it so, by a number that no other one has."""
        self.generation = (self.generation << 16 ^ life) + 1 & (1 << 64) - 1
        self.publish()
        self.notify(Notice.GENERATION)

    def overdue(self) -> list[Feature]:
        """The features whose revocation the guest did not acknowledge in time."""
        now = self._machine.clock.now
        return [feature for feature, at in self.deadlines.items() if at <= now]

    def notify(self, notice: Notice) -> None:
        """Interrupt the first virtual CPU, if it gave a vector."""
        if (vector := self.vectors.get(notice, 0)) and self._cpus:
            self._cpus[0].interrupt(_FIXED, vector)

    def publish(self) -> None:
        """Write the contract page."""
        if (area := self._pages.area(PageKind.CONTRACT)) is not None:
            area.update(_AT["version"], _AT["abi"], self.page_bytes())

    def page_bytes(self) -> bytes:
        """What the contract page holds behind its version."""
        masks = (
            frozenset({S.ACCEPTED}) | _WORKS, _WORKS, frozenset({S.REVOKING}),
            frozenset({S.REVOKED}),
        )  # fmt: skip
        words = [self._mask(mask) for mask in masks] + [self.generation]
        versions = bytes(
            self.versions.get(feature, 0) if self.state[feature] in masks[0] else 0
            for feature in Feature
        )
        head = VERSION.to_bytes(4, "little") + b"".join(w.to_bytes(8, "little") for w in words)
        return head + versions.ljust(64, b"\0")

    def _mask(self, states: frozenset[FeatureState]) -> int:
        return sum(1 << feature for feature, state in self.state.items() if state in states)

    # ---- the referee ----

    def _check(self, cpu: Processor) -> None:
        """Both sides, at every exit: the page, the promise, the guest's acknowledgement."""
        area = self._pages.area(PageKind.CONTRACT)
        if area is not None:
            wanted = self.page_bytes()
            if area.read(_AT["version"], 4) & 1:
                self._referee.report(Rule.ODD_VERSION, cpu, "contract")
            if area.load(_AT["abi"], len(wanted)) != wanted:
                self._referee.report(Rule.WRITES_SHARED, cpu, "contract")
                self.publish()
        works = {feature for feature, state in self.state.items() if state in _WORKS}
        if works != self._active:
            names = ", ".join(feature.name for feature in sorted(works ^ self._active))
            self._referee.report(Rule.WITHDRAWN, cpu, names)
            self._active = works
        for feature in self.overdue():
            self.deadlines[feature] = 1 << 62
            self._referee.report(Rule.LATE_ACKNOWLEDGEMENT, cpu, feature.name)

    # ---- state ----

    def reset(self, index: int) -> None:
        """Power-up of the VM is that of its first virtual CPU: everything is as first offered."""
        if index == 0:
            self.state.update(self._first)
            self._active.clear()
            self.versions.clear()
            self.vectors.clear()
            self.deadlines.clear()

    def save(self) -> State:
        """Everything but the pages, which are memory."""
        return {
            "state": [int(self.state[feature]) for feature in Feature],
            "versions": [[int(f), v] for f, v in self.versions.items()],
            "vectors": [[int(n), v] for n, v in self.vectors.items()],
            "deadlines": [[int(f), at] for f, at in self.deadlines.items()],
            "generation": self.generation,
        }

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        states, generation = state["state"], state["generation"]
        assert isinstance(states, list)
        assert isinstance(generation, int)
        self.state.update(zip(Feature, map(FeatureState, states), strict=True))
        self._active = {feature for feature, one in self.state.items() if one in _WORKS}
        _refill(self.versions, Feature, state["versions"])
        _refill(self.deadlines, Feature, state["deadlines"])
        _refill(self.vectors, Notice, state["vectors"])
        self.generation = generation


def _refill(table: dict[Number, int], kind: type[Number], rows: object) -> None:
    assert isinstance(rows, list)
    table.clear()
    table.update((kind(key), value) for key, value in rows)


def _feature(number: int) -> Feature | None:
    return Feature(number) if number < len(Feature) else None
