"""Checkpoints: where a run can be taken up again so that nobody notices, in bounded memory.

Pages are shared between checkpoints (copy on write). When they take more than the limit, the one
goes whose neighbours are closest for its age: the present stays dense, the past gets thinner.
"""

from bisect import bisect_left
from dataclasses import dataclass
from sys import getsizeof
from typing import Final

from hwmodel.mem.ram import PAGE
from hwmodel.vmx.exit import Exit
from vmm.debug import shadow_state
from vmm.debug.driver import Driver, Turn
from vmm.debug.moment import Moment
from vmm.state import snapshot as state
from vmm.state.snapshot import Snapshot

Pieces = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A VM at one moment, with what an ordinary snapshot leaves out.

    `private`: machine memory that is not the guest's (its EPT); `engine`: caches and counts;
    `shadows`: what is known of shadow tables; `turn`: (vCPU, ends, until) of a turn that is not
    over; `looks`: by vCPU, whether events are looked for; `said`, `tape`: how far output and the
    tape of inputs were.
    """

    moment: Moment
    snapshot: Snapshot
    private: Pieces
    engine: Pieces
    shadows: bytes
    turn: tuple[int, int, int] | None
    open_exit: bytes | None
    looks: tuple[tuple[bool, bool], ...]
    said: int
    tape: int


def take(driver: Driver, before: Checkpoint | None) -> Checkpoint:
    """Write down where the VM stands; it goes on as if nothing had happened."""
    vm, turn = driver.vm, driver.turn
    snapshot = state.take(vm.keeper, vm.vcpus, vm.board, vm.scheduler.save(), flush=False)
    return Checkpoint(
        driver.now,
        snapshot,
        _pieces(vm.memory.ram.view[vm.memory.size :], before.private if before else ()),
        _pieces(memoryview(driver.stops.keep()), before.engine if before else ()),
        shadow_state.take(vm),
        None if turn is None else (turn.vcpu.index, turn.ends, turn.until),
        None if driver.open_exit is None else driver.open_exit.save(),
        tuple((vcpu.look_for_events, vcpu.gave_turn) for vcpu in vm.vcpus),
        vm.console.said,
        driver.tape.position,
    )


def put(driver: Driver, checkpoint: Checkpoint) -> None:
    """Go back, or forward, to a checkpoint of this VM."""
    vm = driver.vm
    vm.restore(checkpoint.snapshot)
    _spread(checkpoint.private, vm.memory.ram.view[vm.memory.size :])
    driver.stops.put_back(b"".join(checkpoint.engine))
    shadow_state.put(vm, checkpoint.shadows)
    for vcpu, (looks, gave) in zip(vm.vcpus, checkpoint.looks, strict=True):
        vcpu.look_for_events, vcpu.gave_turn = looks, gave
        vcpu.cpuid_answers.clear()
    turn = checkpoint.turn
    driver.turn = None if turn is None else Turn(vm.vcpus[turn[0]], turn[1], turn[2])
    saved = checkpoint.open_exit
    driver.open_exit = None if saved is None else Exit.load(saved)
    vm.console.said, driver.tape.position = checkpoint.said, checkpoint.tape


def _pieces(view: memoryview, before: Pieces) -> Pieces:
    """Cut bytes into pieces; those that are as before are shared."""
    pieces = []
    for number, at in enumerate(range(0, len(view), PAGE)):
        part = view[at : at + PAGE]
        old = before[number] if number < len(before) else None
        pieces.append(old if old is not None and part == old else bytes(part))
    return tuple(pieces)


def _spread(pieces: Pieces, view: memoryview) -> None:
    at = 0
    for piece in pieces:
        if view[at : at + len(piece)] != piece:
            view[at : at + len(piece)] = piece
        at += len(piece)


class Checkpoints:
    """Those of one run, in order."""

    def __init__(self, driver: Driver, limit: int) -> None:
        """`limit` is in bytes; the first checkpoint is here."""
        self._driver: Final = driver
        self.limit = limit
        self._list = [take(driver, None)]
        self._edits: set[Moment] = set()
        """Where the user changed something: those checkpoints are not derived, and stay."""
        self._costs = [_cost(self._list[0], None)]

    def __len__(self) -> int:
        return len(self._list)

    @property
    def size(self) -> int:
        """Bytes that all of them take."""
        return sum(self._costs)

    @property
    def first(self) -> Checkpoint:
        """The earliest moment that can be gone back to."""
        return self._list[0]

    @property
    def moments(self) -> list[Moment]:
        """Where they are."""
        return [checkpoint.moment for checkpoint in self._list]

    def take(self) -> None:
        """Take one here, unless there is one."""
        now = self._driver.now
        place = bisect_left(self._list, now, key=lambda c: c.moment)
        if place < len(self._list) and self._list[place].moment == now:
            return
        made = take(self._driver, self._list[place - 1])
        self._list.insert(place, made)
        self._costs.insert(place, 0)
        self._recount(place)
        while self.size > self.limit and len(self._list) > 2:
            self._thin()

    def take_edit(self) -> None:
        """Take one here, in place of what was here before the user changed something."""
        now = self._driver.now
        place = bisect_left(self._list, now, key=lambda c: c.moment)
        if place < len(self._list) and self._list[place].moment == now:
            self._list[place] = take(self._driver, self._list[place - 1] if place else None)
            self._recount(place)
        else:
            self.take()
        self._edits.add(now)

    def next_edit(self, moment: Moment) -> Checkpoint | None:
        """Return the checkpoint of the first change behind a moment."""
        later = [edit for edit in self._edits if edit > moment]
        return self.before(min(later)) if later else None

    def last(self, steps: int, cycle: int, exits: int) -> Checkpoint:
        """Return the latest one with fewer steps, cycles and exits than these, or the first."""
        for checkpoint in reversed(self._list):
            m = checkpoint.moment
            if m.steps < steps and m.cycle < cycle and m.exits < exits:
                return checkpoint
        return self._list[0]

    def last_instruction(self, number: int) -> Checkpoint:
        """Return the latest one before so many instructions retired, or the first."""
        unbooked = len(self._driver.vm.vcpus)  # at most one each
        for checkpoint in reversed(self._list):
            if checkpoint.snapshot.instructions + unbooked < number:
                return checkpoint
        return self._list[0]

    def before(self, moment: Moment) -> Checkpoint:
        """Return the latest one no later than a moment."""
        place = bisect_left(self._list, moment.key, key=lambda c: c.moment.key)
        if place < len(self._list) and self._list[place].moment == moment:
            return self._list[place]
        return self._list[max(0, place - 1)]

    def back_from(self, moment: Moment) -> list[Checkpoint]:
        """Return all that are earlier than a moment, the latest first."""
        return [c for c in reversed(self._list) if c.moment < moment]

    def put(self, checkpoint: Checkpoint) -> None:
        """Go there."""
        put(self._driver, checkpoint)

    def forget_after(self, moment: Moment) -> None:
        """The future is not what it was: the user changed something here."""
        keep = max(1, bisect_left(self._list, moment.key, key=lambda c: c.moment.key))
        del self._list[keep:], self._costs[keep:]
        self._edits = {edit for edit in self._edits if edit < moment}

    def _thin(self) -> None:
        newest = self._list[-1].moment.steps
        steps = [c.moment.steps for c in self._list]
        ages = [newest - s + 1 for s in steps]
        others = [n for n in range(1, len(steps) - 1) if self._list[n].moment not in self._edits]
        if not others:
            self.limit = self.size  # nothing but the user's own changes: they take what they take
            return
        gone = min(others, key=lambda n: (steps[n + 1] - steps[n - 1]) / ages[n])
        del self._list[gone], self._costs[gone]
        self._recount(gone)

    def _recount(self, place: int) -> None:
        for number in (place, place + 1):
            if number < len(self._list):
                self._costs[number] = _cost(self._list[number], self._list[number - 1])


def _cost(checkpoint: Checkpoint, before: Checkpoint | None) -> int:
    """Return the bytes that a checkpoint has for itself."""
    pages = checkpoint.snapshot.pages
    old = before.snapshot.pages if before else {}
    own = sum(old.get(number) is not page for number, page in pages.items())
    pieces = checkpoint.private + checkpoint.engine
    shared = before.private + before.engine if before else (None,) * len(pieces)
    own += sum(piece is not other for piece, other in zip(pieces, shared, strict=True))
    return own * PAGE + getsizeof(pages) + len(checkpoint.shadows)
