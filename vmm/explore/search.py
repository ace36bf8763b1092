"""Which schedules are tried, in which order: at random, or all with few preemptions.

Most bugs of concurrency need few preemptions in the right places (Musuvathi and Qadeer, "Iterative
Context Bounding", PLDI 2007). So all schedules without one come first, then all with one, and so
on. A place that matters is before an instruction that may touch what others see: one with a memory
operand that is not on the stack, an exit, an atomic one. Between two such places the order of the
processors makes no difference, as long as stacks are private.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from capstone import CS_ARCH_X86, CS_MODE_64, CS_OP_MEM, Cs
from capstone.x86 import X86_REG_EBP, X86_REG_ESP, X86_REG_RBP, X86_REG_RSP

from vmm.explore.run import Attempt, End, Stage
from vmm.explore.schedule import Point, Schedule
from vmm.vcpu import Vcpu

_STACK: Final = (X86_REG_RSP, X86_REG_ESP, X86_REG_RBP, X86_REG_EBP)
_OUTSIDE: Final = frozenset({
    "vmcall", "vmmcall", "hlt", "out", "in", "outsb", "outsd", "wrmsr", "rdmsr", "sti", "cli",
    "int",
})  # fmt: skip
_STRINGS: Final = ("movs", "stos", "lods", "cmps", "scas")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a search came to: the schedules tried, and the first that broke the guest."""

    tried: int
    found: Attempt | None
    complete: bool
    """Whether every schedule within the bound was tried."""


class Places:
    """Which instructions matter, by address; looked up once each."""

    def __init__(self, *, every: bool) -> None:
        """`every`: all do."""
        self._every: Final = every
        self._cs: Final = Cs(CS_ARCH_X86, CS_MODE_64)
        self._cs.detail = True
        self._known: Final[dict[int, bool]] = {}

    def matters(self, vcpu: Vcpu) -> bool:
        """Whether a preemption before the next instruction is worth trying."""
        rip = int(vcpu.regs.rip)
        if rip not in self._known:
            self._known[rip] = self._every or self._looks(vcpu, rip)
        return self._known[rip]

    def _looks(self, vcpu: Vcpu, rip: int) -> bool:
        code = vcpu.pcpu.read(vcpu.vmcs, rip, 15)
        if not isinstance(code, bytes):
            return True
        for insn in self._cs.disasm(code, rip, 1):
            word = insn.mnemonic.split()[-1]
            if word in _OUTSIDE or word.startswith(_STRINGS):
                return True
            return insn.mnemonic not in ("lea", "nop") and any(
                op.type == CS_OP_MEM and op.mem.base not in _STACK for op in insn.operands
            )
        return True


def systematic(
    stage: Stage, *, bound: int, budget: int, every: bool, tell: Callable[[int, int], None]
) -> Verdict:
    """Try all schedules with at most `bound` preemptions, those with fewer first."""
    places = Places(every=every)
    level, tried = [Schedule()], 0
    for depth in range(bound + 1):
        following: list[Schedule] = []
        for schedule in level:
            if tried >= budget:
                return Verdict(tried, None, complete=False)
            more: list[Schedule] = []
            attempt = _look(stage, schedule, places, more) if depth < bound else stage.attempt(
                schedule
            )  # fmt: skip
            tried += 1
            if attempt.is_broken:
                return Verdict(tried, attempt, complete=False)
            following += more
        tell(depth, tried)
        level = following
    return Verdict(tried, None, complete=True)


def _look(stage: Stage, schedule: Schedule, places: Places, more: list[Schedule]) -> Attempt:
    """Run a schedule step by step; put every one into `more` that has one more preemption."""
    last = schedule.points[-1].step if schedule.points else -1
    others = stage.vm.vcpus

    def each(step: int, vcpu: Vcpu) -> None:
        if step <= last or not places.matters(vcpu):
            return
        more.extend(
            schedule.then(Point(step, other.index))
            for other in others
            if other is not vcpu and other.is_runnable()
        )

    return stage.attempt(schedule, each)


def at_random(stage: Stage, *, bound: int, budget: int, seed: int) -> Verdict:
    """Try schedules with 1 to `bound` preemptions anywhere, from a seed."""
    plain = stage.attempt(Schedule())
    if plain.is_broken:
        return Verdict(1, plain, complete=False)
    for tried, schedule in enumerate(random_schedules(stage, plain.steps, bound, seed), 2):
        attempt = stage.attempt(schedule)
        if attempt.is_broken:
            return Verdict(tried, attempt, complete=False)
        if tried >= budget:
            break
    return Verdict(budget, None, complete=False)


def random_schedules(stage: Stage, steps: int, bound: int, seed: int) -> Iterator[Schedule]:
    """Yield schedules for ever; preemptions lie within twice the steps of the plain run."""
    chance = random.Random(seed)
    count = len(stage.vm.vcpus)
    while True:
        length = chance.randint(1, bound)
        at = sorted(chance.sample(range(1, 2 * steps + length), length))
        yield Schedule(tuple(Point(step, chance.randrange(count)) for step in at))


def shorten(stage: Stage, attempt: Attempt) -> Attempt:
    """Leave out preemptions as long as the guest still breaks in the same way."""
    best = attempt
    for point in attempt.schedule.points:
        fewer = tuple(p for p in best.schedule.points if p is not point)
        tried = stage.attempt(Schedule(fewer))
        if tried.end is best.end and tried.end is not End.PASSED:
            best = tried
    return best
