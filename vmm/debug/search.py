"""Finding the latest moment before now: what reverse execution is made of.

From a checkpoint on, the run is repeated up to now with nothing stopping it and the last hit kept;
if there was none, from the checkpoint before that up to this one; and so on.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from hwmodel.cpu.stops import Hit, Kind, Mode
from vmm.debug.checkpoints import Checkpoint
from vmm.debug.driver import Goal
from vmm.debug.moment import Moment
from vmm.vcpu import Vcpu

if TYPE_CHECKING:
    from vmm.debug.session import Session

Found = tuple[Moment, Hit]
Reader = Callable[[Vcpu], int]


class Search:
    """One search, from the session's present backwards; it leaves the session anywhere."""

    def __init__(self, session: "Session") -> None:
        """Nothing happens yet."""
        self._session: Final = session
        self._driver: Final = session.driver
        self._now: Final = session.now

    def _stretches(self, mode: Mode) -> Iterator[tuple[Checkpoint, Moment]]:
        """Stand at each checkpoint before now, the latest first; yield it and its stretch's end."""
        session, end = self._session, self._now
        for checkpoint in session.checkpoints.back_from(self._now):
            session.checkpoints.put(checkpoint)
            session.stops.arm(self._driver, mode, backwards=True)
            yield checkpoint, end
            end = checkpoint.moment

    def last_hit(self) -> Found | None:
        """Return the latest moment before now at which a breakpoint stops."""
        stops = self._session.stops
        for hit in self._hits():
            if not stops.counts(hit.id):
                continue
            moment = _moment(hit)
            if stops.is_after(hit.id):
                moment = self._behind_handler(moment)
            if moment < self._now:
                return moment, hit
        return None

    def _hits(self) -> Iterator[Hit]:
        """Yield what was hit before now, the latest first."""
        session = self._session
        for start, end in self._stretches(Mode.RECORD):
            more = True
            while more:
                self._driver.advance(Goal(moment=end))
                hits, more = self._driver.stops.hits()
                yield from (hit for hit in reversed(hits) if _moment(hit) < end)
                if more:
                    end = _moment(hits[0])
                    session.checkpoints.put(start)
                    session.stops.arm(self._driver, Mode.RECORD, backwards=True)

    def _behind_handler(self, moment: Moment) -> Moment:
        self._session.goto(moment)
        self._driver.advance(Goal(handled=moment.exits))
        return self._session.now

    def step_of(self, index: int, count: int) -> Moment | None:
        """Return the moment `count` steps of one virtual CPU before now."""
        made: list[tuple[int, int]] = []  # (steps before, after) of its stretches, latest last

        def hear(vcpu: Vcpu, before: int, after: int) -> None:
            if vcpu.index == index and after > before:
                made.append((before, after))

        self._driver.stepped.append(hear)
        try:
            for _, end in self._stretches(Mode.OFF):
                self._driver.advance(Goal(moment=end))
                while made:
                    before, after = made.pop()
                    if after - before >= count:
                        self._session.goto_step(after - count)
                        return self._session.now
                    count -= after - before
        finally:
            self._driver.stepped.remove(hear)
        return None

    def last_change(self, read: Reader) -> Moment | None:
        """Return the first moment, at an exit or behind its handler, that had the present value.

        `read` gives the value of a virtual CPU's; the one is meant that runs now.
        """
        index = self._session.vcpu.index
        last: list[tuple[Moment, int]] = []
        changed: list[Moment] = []

        def hear(vcpu: Vcpu) -> None:
            if vcpu.index != index:
                return
            value, now = read(vcpu), self._driver.now
            if last and last[0][1] != value:
                changed.append(now)
            last[:] = [(now, value)]

        self._driver.seen.append(hear)
        try:
            for _, end in self._stretches(Mode.OFF):
                last[:] = [(self._session.now, read(self._session.vm.vcpus[index]))]
                changed.clear()
                self._driver.advance(Goal(moment=end))
                earlier = [moment for moment in changed if moment <= self._now]
                if earlier:
                    return earlier[-1]
        finally:
            self._driver.seen.remove(hear)
        return None


def _moment(hit: Hit) -> Moment:
    return Moment(hit.cycle, hit.steps, hit.exits, hit.kind is Kind.EXIT)
