"""What a guest is told about its turns, and how it keeps one while it holds a lock.

The preemption page says whether this processor has lost its turn, so that others need not spin for
it; the guest says there how many locks it holds. A turn that ends in the midst of that goes on for
`BOOST_NS`, once; `yields` asks the guest to give the rest back when it has let go. A guest that
always holds a lock has a longer turn each time, and waits for longer in exchange.
"""

from struct import pack
from typing import Final

from vmm.pv.dialect import Hooks, Processor, State
from vmm.pv.native.abi import PREEMPTION_PAGE, STEAL_PAGE, Feature, PageKind
from vmm.pv.native.part import Part, Room
from vmm.pv.shared import SharedArea

BOOST_NS: Final = 100_000
"""Critical sections last microseconds (Friebel and Biemueller, Xen Summit 2008); a slice 30 ms."""


class Turns(Part):
    """The preemption page and the steal page of every virtual CPU."""

    name = "turns"
    features = frozenset({Feature.PREEMPTION_NOTICE, Feature.HOLDER_BOOST, Feature.STEAL_TIME})

    def __init__(self, room: Room) -> None:
        """Nobody has had a turn."""
        super().__init__(room)
        count = room.machine.cpus
        self._stolen, self._ran, self._since = [0] * count, [0] * count, [0] * count
        self._preemptions, self._boosts = [0] * count, [0] * count
        self._boosted = [False] * count
        self.hooks = Hooks(
            scheduled=self._scheduled, descheduled=self._descheduled, turn_over=self._turn_over
        )

    def _scheduled(self, cpu: Processor) -> None:
        index, now = cpu.index, self.room.machine.clock.now
        self._stolen[index] += cpu.waited()
        self._since[index] = now
        self._boosted[index] = False
        self._publish(index, preempted=False)

    def _descheduled(self, cpu: Processor) -> None:
        index = cpu.index
        self._ran[index] += self.room.machine.clock.now - self._since[index]
        if not cpu.is_asleep():
            self._preemptions[index] += 1
        self._publish(index, preempted=True)

    def _turn_over(self, cpu: Processor) -> int:
        """Return for how many cycles more it may go on: it holds a lock."""
        page = self._page(PageKind.PREEMPTION, Feature.HOLDER_BOOST, cpu.index)
        if page is None or self._boosted[cpu.index]:
            return 0
        if not page.read(PREEMPTION_PAGE.offsets["holding"], 4):
            return 0
        self._boosted[cpu.index] = True
        self._boosts[cpu.index] += 1
        page.write(PREEMPTION_PAGE.offsets["yields"], 4, 1)
        return self.room.machine.clock.cycles_of_ns(BOOST_NS)

    def _page(self, kind: PageKind, feature: Feature, index: int) -> SharedArea | None:
        return self.room.pages.area(kind, index) if self.room.contract.works(feature) else None

    def page_set(self, cpu: Processor, kind: PageKind) -> None:
        """A page was shared: write it."""
        if kind in (PageKind.PREEMPTION, PageKind.STEAL):
            self._publish(cpu.index, preempted=False)

    def _publish(self, index: int, *, preempted: bool) -> None:
        clock = self.room.machine.clock
        if page := self._page(PageKind.PREEMPTION, Feature.PREEMPTION_NOTICE, index):
            words = pack("<IQQ", preempted, self._preemptions[index], self._boosts[index])
            page.update(0, PREEMPTION_PAGE.offsets["preempted"], words)
        if page := self._page(PageKind.STEAL, Feature.STEAL_TIME, index):
            times = (self._stolen[index], self._ran[index])
            data = pack("<QQ", *map(clock.ns_of_cycles, times))
            page.update(0, STEAL_PAGE.offsets["stolen_ns"], data)

    def save(self) -> State:
        """The sums; the pages are part of memory."""
        return {
            "stolen": list(self._stolen), "ran": list(self._ran), "since": list(self._since),
            "preemptions": list(self._preemptions), "boosts": list(self._boosts),
            "boosted": list(self._boosted),
        }  # fmt: skip

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        lists = (
            ("stolen", self._stolen), ("ran", self._ran), ("since", self._since),
            ("preemptions", self._preemptions), ("boosts", self._boosts),
        )  # fmt: skip
        for name, numbers in lists:
            saved = state[name]
            assert isinstance(saved, list)
            numbers[:] = saved
        boosted = state["boosted"]
        assert isinstance(boosted, list)
        self._boosted[:] = boosted
