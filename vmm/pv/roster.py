"""The dialects of one VM: chosen by name, found by leaf, MSR and hypercall number."""

from collections.abc import Callable
from typing import Final

from vmm.errors import NotBuiltError, UsageError
from vmm.pv.dialect import Dialect, Hook, Hypercall, Leaf, Machine, Processor, State
from vmm.pv.kvm.features import Offer
from vmm.pv.kvm.kvm import Kvm

DEFAULT: Final = "kvm"
NONE: Final = "none"
XEN: Final = "xen"
FIRST_LEAF: Final = 0x4000_0000
LEAF_STEP: Final = 0x100
NO_SUCH_CALL: Final = -1000
_BUILDERS: Final[dict[str, Callable[[Machine, tuple[str, ...]], Dialect]]] = {
    "kvm": lambda machine, changes: Kvm(machine, Offer.of(changes)),
    "native": lambda machine, changes: _native(machine, changes),
    "xen": lambda machine, changes: _xen(machine, changes),
}
_PLANNED: Final = ("hyperv",)


class Roster:
    """The active dialects, in the order of their leaves; an empty one costs a guest nothing."""

    def __init__(self, dialects: tuple[Dialect, ...] = ()) -> None:
        """Lay out leaves, MSRs and hooks; of two that claim an MSR the first has it."""
        self.dialects: Final = dialects
        self.leaves: Final[dict[int, Leaf]] = {}
        self.msrs: Final[dict[int, Dialect]] = {}
        for number, dialect in enumerate(dialects):
            self.leaves.update(dialect.leaves(FIRST_LEAF + LEAF_STEP * number))
            for msr in dialect.msrs():
                self.msrs.setdefault(msr, dialect)
        self.hides: Final = frozenset[str]().union(*(d.hides for d in dialects))
        self.entering: Final = self._hooks("entering")
        self.scheduled: Final = self._hooks("scheduled")
        self.descheduled: Final = self._hooks("descheduled")
        self.tsc_changed: Final = self._hooks("tsc_changed")
        self.turn_over: Final = tuple(
            hook for d in dialects if (hook := d.hooks.turn_over) is not None
        )
        self.tsc_step: Final = max((d.tsc_step for d in dialects), default=0)
        exited = self._hooks("exited")
        self.watchers: Final = [_watching(hook) for hook in exited]
        """To be called at every exit with virtual CPU and exit."""
        self.events: Final = [d.events for d in dialects if d.events is not None]
        rate = (dialect.hooks.rate_changed for dialect in dialects)
        self.rate_changed: Final = tuple(hook for hook in rate if hook is not None)
        ready = (dialect.hooks.page_ready for dialect in dialects)
        absent = (dialect.hooks.page_absent for dialect in dialects)
        self.page_ready: Final = tuple(hook for hook in ready if hook is not None)
        self.page_absent: Final = tuple(hook for hook in absent if hook is not None)

    def _hooks(self, moment: str) -> tuple[Hook, ...]:
        hooks = (getattr(dialect.hooks, moment) for dialect in self.dialects)
        return tuple(hook for hook in hooks if hook is not None)

    def __getitem__(self, name: str) -> Dialect:
        """The dialect of that name. Raises KeyError if the VM has none."""
        for dialect in self.dialects:
            if dialect.name == name:
                return dialect
        raise KeyError(name)

    def __bool__(self) -> bool:
        return bool(self.dialects)

    def read_msr(self, cpu: Processor, number: int) -> int | None:
        """RDMSR; None is a #GP."""
        owner = self.msrs.get(number)
        return None if owner is None else owner.read_msr(cpu, number)

    def write_msr(self, cpu: Processor, number: int, value: int) -> bool:
        """WRMSR; False is a #GP."""
        owner = self.msrs.get(number)
        return owner is not None and owner.write_msr(cpu, number, value)

    def hypercall(self, cpu: Processor, call: Hypercall) -> int:
        """Ask the dialect that has the number; what is nobody's, the first."""
        owners = (dialect for dialect in self.dialects if call.number in dialect.numbers)
        dialect = next(owners, self.dialects[0]) if self.dialects else None
        if dialect is None:
            return NO_SUCH_CALL
        if (refusal := dialect.refusal(cpu)) is not None:
            return refusal
        result = dialect.hypercall(cpu, call)
        return NO_SUCH_CALL if result is None else result

    def attach(self, processors: list[Processor]) -> None:
        """Introduce the virtual CPUs."""
        for dialect in self.dialects:
            dialect.attach(processors)

    def reset(self, index: int) -> None:
        """Power-up or INIT of one virtual CPU."""
        for dialect in self.dialects:
            dialect.reset(index)

    def save(self) -> dict[str, State]:
        """Every dialect's state by its name."""
        return {dialect.name: dialect.save() for dialect in self.dialects}

    def restore(self, state: dict[str, State]) -> None:
        """Take over what save() returned, with the same dialects."""
        for dialect in self.dialects:
            dialect.restore(state[dialect.name])


def _watching(hook: Hook) -> Callable[[Processor, object], None]:
    return lambda cpu, _vmexit: hook(cpu)


def _native(machine: Machine, changes: tuple[str, ...]) -> Dialect:
    from vmm.pv.native.native import Native
    from vmm.pv.native.offer import Offer as NativeOffer

    return Native(machine, NativeOffer.of(changes))


def _xen(machine: Machine, changes: tuple[str, ...]) -> Dialect:
    from vmm.pv.xen.hvm.dialect import XenHvm

    if changes:
        raise UsageError(f"--dialect xen has no feature {changes[0]!r}; leave it out")
    return XenHvm(machine)


def choose(words: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Read "kvm", "-steal_time", ...: dialect name to its changes, in order.

    A change belongs to the dialect before it, or to the default when it comes first. "none" is no
    dialect at all; no word at all is the default. Raises UsageError for an unknown name.
    """
    chosen: dict[str, tuple[str, ...]] = {}
    name = DEFAULT
    for word in words:
        if word[0] in "+-":
            chosen[name] = (*chosen.get(name, ()), word)
            continue
        name = _known(word)
        chosen.setdefault(name, ())
    if not words:
        return {DEFAULT: ()}
    if NONE in chosen and len(chosen) > 1:
        raise UsageError("--dialect none stands alone; leave out the other names")
    if XEN in chosen and len(chosen) > 1:
        raise UsageError("--dialect xen stands alone; leave out the other names")
    chosen.pop(NONE, None)
    return chosen


def _known(word: str) -> str:
    if word in _PLANNED:
        raise NotBuiltError(f"--dialect {word} is not built yet; use kvm")
    if word not in _BUILDERS and word != NONE:
        names = ", ".join([*_BUILDERS, *_PLANNED, NONE])
        raise UsageError(f"--dialect {word!r} is not one of {names}; choose one")
    return word


def build_roster(words: tuple[str, ...], machine: Machine, *, apicv: bool = False) -> Roster:
    """Build what the words of `--dialect` ask for.

    With `apicv` the end of an interrupt is no exit: KVM's way to avoid it is not offered.
    """
    chosen = choose(words)
    if apicv and DEFAULT in chosen:
        chosen[DEFAULT] = ("-pv_eoi", *chosen[DEFAULT])
    return Roster(tuple(_BUILDERS[name](machine, c) for name, c in chosen.items()))
