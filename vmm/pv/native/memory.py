"""The pressure gauge beside a balloon: how much the host lacks memory, and pages given and taken.

The gauge says 0 to 1 and nothing of other guests; a guest page cache reads it before it grows. The
balloon's target is what the hypervisor wants, once in `PERIOD_NS`, as daemons that manage balloons
work; the gauge follows at once. Without an overcommitted host (`share`) the gauge stands at 0.
"""

from collections.abc import Mapping
from struct import Struct
from typing import TYPE_CHECKING, Final

from hwmodel.mem.ram import PAGE
from vmm.pv.dialect import Hypercall, Processor
from vmm.pv.native.abi import (
    PRESSURE_FULL,
    PRESSURE_PAGE,
    Call,
    Error,
    Feature,
    Notice,
    PageKind,
)
from vmm.pv.native.part import Handler, Part, Room

if TYPE_CHECKING:
    from vmm.memory.overcommit import GuestShare

PERIOD_NS: Final = 100_000_000
_BODY: Final = Struct("<III")
_AT: Final = PRESSURE_PAGE.offsets
_HIGH: Final = 0.5


class Memory(Part):
    """The gauge's page and the balloon's calls."""

    name = "memory"
    features = frozenset({Feature.PRESSURE, Feature.BALLOON})

    def __init__(self, room: Room) -> None:
        """No overcommitted host yet."""
        super().__init__(room)
        self._share: GuestShare | None = None
        self._target = 0
        self._next = 0
        self._told = 0.0

    def join(self, share: "GuestShare") -> None:
        """The VM's memory is the host's, which others use too."""
        self._share = share
        self._next = self.room.machine.clock.ns() + PERIOD_NS
        share.host.changed.append(self._changed)

    def calls(self) -> Mapping[Call, Handler]:
        """Two."""
        return {Call.BALLOON_GIVE: self._give, Call.BALLOON_TAKE: self._take}

    def _give(self, cpu: Processor, call: Hypercall) -> int:
        gpa, memory = call.arguments[0], self.room.machine.memory
        if self.room.pages.collides(gpa, PAGE):
            return -Error.OVERLAP
        at = memory.hpa(gpa, PAGE)
        assert at is not None, "the table of calls had it checked"
        if self._share is not None and not self._share.give(gpa):
            return -Error.BAD_STATE
        memory.discard(at, PAGE)
        cpu.work(1)
        self._publish()
        return 0

    def _take(self, cpu: Processor, call: Hypercall) -> int:
        if self._share is not None and not self._share.take(call.arguments[0]):
            return -Error.LIMIT
        cpu.work(1)
        self._publish()
        return 0

    # ---- the gauge ----

    def page_set(self, _cpu: Processor, kind: PageKind) -> None:
        """Show where it stands."""
        if kind is PageKind.PRESSURE:
            self._publish()

    def _changed(self) -> None:
        pressure = self._share.host.pressure if self._share is not None else 0.0
        self._publish()
        if pressure >= _HIGH > self._told:
            self.room.contract.notify(Notice.PRESSURE)
        self._told = pressure

    def _publish(self) -> None:
        area = self.room.pages.area(PageKind.PRESSURE)
        if area is None:
            return
        pressure, given = 0.0, 0
        if self._share is not None:
            pressure, given = self._share.host.pressure, self._share.given
        body = _BODY.pack(int(pressure * PRESSURE_FULL), self._target, given)
        if area.load(_AT["pressure"], _BODY.size) != body:
            area.update(_AT["version"], _AT["pressure"], body)

    # ---- the balloon's target ----

    def next_event(self) -> int | None:
        """Return when the target is looked at again."""
        if self._share is None:
            return None
        return self.room.machine.clock.cycle_of_tick(1_000_000_000, self._next)

    def fire(self) -> None:
        """Set it."""
        self._next += PERIOD_NS
        assert self._share is not None
        self._target = self._share.target()
        self._publish()
