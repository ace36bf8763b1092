"""The breakpoints of a session, and their way into the engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

from hwmodel.cpu.stops import Hit, Mode, Watch
from vmm.debug.condition import Condition
from vmm.debug.driver import Driver
from vmm.debug.moment import Moment
from vmm.debug.stop import AnyStop, CodeStop, DataStop, ExitStop
from vmm.errors import UsageError
from vmm.vm import VM


class StopList:
    """Breakpoints, watchpoints and exit breakpoints, by number. No limit, no memory patched."""

    def __init__(self, vm: VM) -> None:
        """None yet."""
        self._vm: Final = vm
        self._stops: dict[int, AnyStop] = {}
        self._numbers: Final = count(1)
        self._in_engine: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[AnyStop]:
        return iter(self._stops.values())

    def __getitem__(self, number: int) -> AnyStop:
        if number not in self._stops:
            raise UsageError(f"there is no breakpoint {number}; `info` lists them")
        return self._stops[number]

    def _add(self, stop: AnyStop) -> AnyStop:
        self._stops[stop.number] = stop
        return stop

    def add_code(self, address: int, *, physical: bool) -> AnyStop:
        """Add a breakpoint."""
        if physical:
            self._hpa(address, 1)
        return self._add(CodeStop(next(self._numbers), address, physical))

    def add_data(self, address: int, size: int, kinds: Watch, *, physical: bool) -> AnyStop:
        """Add a watchpoint."""
        if size <= 0:
            raise UsageError(f"a watchpoint of {size} bytes watches nothing; give at least 1")
        if physical:
            self._hpa(address, size)
        return self._add(DataStop(next(self._numbers), address, size, kinds, physical))

    def add_exit(self, text: str, *, after: bool) -> AnyStop:
        """Add an exit breakpoint."""
        return self._add(ExitStop(next(self._numbers), Condition.parse(text), after))

    def remove(self, number: int) -> None:
        """Remove any."""
        del self._stops[self[number].number]

    def is_after(self, number: int) -> bool:
        """Whether the one that was hit stops behind the handler."""
        stop = self._stops.get(number)
        return isinstance(stop, ExitStop) and stop.after

    def address_of(self, hit: Hit) -> int:
        """Return the address of a hit as its breakpoint has it: linear or guest-physical."""
        stop = self._stops.get(hit.id)
        if isinstance(stop, DataStop) and stop.physical:
            return stop.address + hit.address - self._hpa(stop.address, stop.size)
        return hit.address

    @contextmanager
    def only_data(self, address: int, size: int, *, physical: bool) -> Iterator[None]:
        """For a while, have nothing but one watchpoint for writes."""
        kept, self._stops = self._stops, {}
        try:
            self.add_data(address, size, Watch.WRITE, physical=physical)
            yield
        finally:
            self._stops = kept

    # ---- into the engine ----

    def pass_here(self, now: Moment) -> None:
        """Breakpoints at the present instruction have been seen: going on does not hit them."""
        self._vm.pcpu.stops.passed(now.steps)

    def arm(self, driver: Driver, mode: Mode, *, backwards: bool = False) -> None:
        """Have the engine stop, or record, from now on.

        `backwards`: the VM was put to a checkpoint, and every hit is wanted, whatever its count.
        """
        engine = driver.stops
        stops = [stop for stop in self if stop.enabled] if mode is not Mode.OFF else []
        signature = tuple(f"{stop.number} {stop} {backwards}" for stop in stops)
        renew = mode is not Mode.OFF and signature != self._in_engine
        if renew:
            engine.clear()
            for stop in stops:
                self._put(driver, stop, backwards=backwards)
            self._in_engine = signature
        if backwards:
            engine.passed(None)
        driver.watches_handlers = any(isinstance(stop, DataStop) for stop in stops)
        engine.arm(mode, renew=renew)

    def note_counts(self, driver: Driver) -> None:
        """The engine has stopped: how often has each condition been met?"""
        for stop in self:
            if isinstance(stop, ExitStop) and stop.enabled:
                stop.count = driver.stops.count(stop.number)

    def counts(self, number: int) -> bool:
        """A hit was met backwards: count it, and say whether it stops."""
        stop = self._stops.get(number)
        if not isinstance(stop, ExitStop):
            return True
        stop.count += 1
        self._in_engine = ()
        return stop.condition.stops_at(stop.count)

    def _put(self, driver: Driver, stop: AnyStop, *, backwards: bool) -> None:
        engine = driver.stops
        match stop:
            case CodeStop():
                at = self._hpa(stop.address, 1) if stop.physical else stop.address
                engine.at_code(stop.number, at, physical=stop.physical)
            case DataStop():
                at = self._hpa(stop.address, stop.size) if stop.physical else stop.address
                engine.at_data(stop.number, at, stop.size, stop.kinds, physical=stop.physical)
            case ExitStop():
                condition = stop.condition
                when = () if backwards else condition.when
                engine.at_exit(stop.number, condition.reasons, condition.match, when, stop.count)

    def _hpa(self, gpa: int, size: int) -> int:
        at = self._vm.memory.hpa(gpa, size)
        if at is None:
            raise UsageError(
                f"{size} bytes at guest-physical {gpa:#x} are no memory; accesses there are exits: "
                f"break on gpa in {gpa:#x}..{gpa + size:#x}"
            )
        return at
