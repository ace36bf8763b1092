"""The time page: `get_time` reads it, with the TSC, and never exits.

A reader computes, between two readings of the same even version,

    ns = page.ns + ((ticks << shift) * mul >> 32)      ticks = tsc - page.tsc, shift to the right
                                                       where it is negative

All pages tell of one moment (`_since`), each by its own processor's TSC: so no two processors
differ. When the TSC gets another rate (a change of frequency, a snapshot that goes on on another
machine) all pages get a new moment, whose time is the clock's: the scale rounds down, so that no
page ever ran ahead of it, and time does not go back.
"""

from collections.abc import Mapping
from struct import Struct
from typing import Final

from vmm.pv.dialect import Hooks, Processor, State
from vmm.pv.native.abi import TIME_PAGE, TIME_STABLE, Call, Feature, PageKind
from vmm.pv.native.part import Handler, Part, Room
from vmm.pv.native.referee import Rule
from vmm.pv.pvclock import Scale

_BODY: Final = Struct("<IQQIb")
_AT: Final = TIME_PAGE.offsets
_MASK64: Final = (1 << 64) - 1
_ALLOWED_NS: Final = 1000
_DRIFT: Final = 31
"""The referee's measure: a page may be so late, and by 2^-31 of the time since its moment, which is
what a 32-bit `mul` can be off by (half a ns a second); it is never early."""


class TimePages(Part):
    """One page for each virtual CPU."""

    name = "time_page"
    features = frozenset({Feature.TIME_PAGE})

    def __init__(self, room: Room) -> None:
        """Time counts from power-on."""
        super().__init__(room)
        self._since = 0, 0  # the machine's TSC, and ns
        self._scale = self._rate()
        self._latest = 0
        self.hooks = Hooks(tsc_changed=self._write, rate_changed=self._rate_changed)
        room.referee.checks.append(self._check)

    def _rate(self) -> Scale:
        clock = self.room.machine.clock
        return Scale.of(clock.tsc_hz or clock.frequency)

    def calls(self) -> Mapping[Call, Handler]:
        """None: that is the point."""
        return {}

    def page_set(self, cpu: Processor, kind: PageKind) -> None:
        """Write it."""
        if kind is PageKind.TIME:
            self._write(cpu)

    def _rate_changed(self) -> None:
        """The TSC counts at another rate from now on."""
        clock = self.room.machine.clock
        self._since, self._scale = (clock.tsc(), clock.ns()), self._rate()
        for cpu in self.room.cpus:
            self._write(cpu)

    def _write(self, cpu: Processor) -> None:
        area = self.room.pages.area(PageKind.TIME, cpu.index)
        if area is not None:
            area.update(_AT["version"], _AT["flags"], self._body(cpu))

    def _body(self, cpu: Processor) -> bytes:
        (tsc, ns), scale = self._since, self._scale
        return _BODY.pack(TIME_STABLE, tsc + cpu.tsc_offset() & _MASK64, ns, scale.mul, scale.shift)

    def now(self) -> int:
        """Return what a reader computes now, in ns."""
        (tsc, ns), clock = self._since, self.room.machine.clock
        return ns + self._scale.ns(clock.tsc() - tsc)

    def _check(self, cpu: Processor) -> None:
        """The page is what was written; its time does not go back, and is the clock's."""
        area = self.room.pages.area(PageKind.TIME, cpu.index)
        if area is None:
            return
        report = self.room.referee.report
        if area.read(_AT["version"], 4) & 1:
            report(Rule.ODD_VERSION, cpu, "time")
        if area.load(_AT["flags"], _BODY.size) != self._body(cpu):
            report(Rule.WRITES_SHARED, cpu, "time")
            self._write(cpu)
        now, real = self.now(), self.room.machine.clock.ns()
        allowed = _ALLOWED_NS + (real - self._since[1] >> _DRIFT)
        if now < self._latest or not real - allowed <= now <= real:
            report(Rule.TIME_BACKWARDS, cpu, f"{now} ns, after {self._latest}; clock {real}")
        self._latest = now

    def save(self) -> State:
        """The moment; the scale is the machine's."""
        return {"since": list(self._since), "rate": [self._scale.mul, self._scale.shift]}

    def restore(self, state: State) -> None:
        """Take over what save() returned; on a machine of another rate, from now on at that."""
        since, rate = state["since"], state["rate"]
        assert isinstance(since, list)
        assert isinstance(rate, list)
        self._since, self._scale = (since[0], since[1]), Scale(*rate)
        self._latest = 0
