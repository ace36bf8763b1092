"""KVM's dialect put together: leaves, MSRs and hypercalls go to the part that has them."""

from collections.abc import Mapping
from struct import unpack
from typing import Final, Protocol

from vmm.pv.dialect import Hooks, Hypercall, Leaf, Machine, Processor, State
from vmm.pv.kvm.abi import SIGNATURE, TIMING_LEAF, Error, Feature, KvmMsr
from vmm.pv.kvm.calls import plain_calls
from vmm.pv.kvm.clock import KvmClock
from vmm.pv.kvm.features import Offer

_KHZ: Final = 1000


class Part(Protocol):
    """A feature with MSRs."""

    def attach(self, processors: list[Processor]) -> None:
        """Meet the virtual CPUs."""

    def read(self, cpu: Processor, number: int) -> int | None:
        """RDMSR; None is a #GP."""

    def write(self, cpu: Processor, number: int, value: int) -> bool:
        """WRMSR; False is a #GP."""

    def reset(self, index: int) -> None:
        """Forget what a virtual CPU asked for."""

    def save(self) -> State:
        """Return the whole state."""

    def restore(self, state: State) -> None:
        """Take over a state."""


class Kvm:
    """KVM as `machine`'s guest sees it."""

    name = "kvm"

    def __init__(self, machine: Machine, offer: Offer) -> None:
        """Build the parts that are offered."""
        self._machine: Final = machine
        self._offer: Final = offer
        self._parts: dict[str, Part] = {}
        self._by_msr: dict[int, Part] = {}
        self._clock = KvmClock(machine, stable=Feature.CLOCKSOURCE_STABLE_BIT in offer)
        if Feature.CLOCKSOURCE in offer:
            self._add("clock", self._clock, KvmMsr.WALL_CLOCK, KvmMsr.SYSTEM_TIME)
        if Feature.CLOCKSOURCE2 in offer:
            self._add("clock", self._clock, KvmMsr.WALL_CLOCK_NEW, KvmMsr.SYSTEM_TIME_NEW)
        # Linux prefers an invariant TSC to kvm-clock, and KVM does not show one by itself either.
        self.hides = frozenset({"invariant_tsc"})
        self._calls = dict(plain_calls())
        self.hooks = Hooks(tsc_changed=self._clock.refresh)

    def _add(self, name: str, part: Part, *msrs: KvmMsr) -> None:
        self._parts[name] = part
        self._by_msr.update(dict.fromkeys(msrs, part))

    def leaves(self, base: int) -> Mapping[int, Leaf]:
        """Signature, features and hints, timing."""
        machine, offer = self._machine, self._offer
        return {
            base: Leaf(base + TIMING_LEAF, *unpack("<3I", SIGNATURE)),
            base + 1: Leaf(eax=offer.feature_word(), edx=offer.hint_word()),
            base + TIMING_LEAF: Leaf(machine.tsc_hz // _KHZ, machine.bus_hz // _KHZ),
        }

    def msrs(self) -> frozenset[int]:
        """Only those of features that are offered: the others are #GP."""
        return frozenset(self._by_msr)

    def read_msr(self, cpu: Processor, number: int) -> int | None:
        """Ask the part."""
        return self._by_msr[number].read(cpu, number)

    def write_msr(self, cpu: Processor, number: int, value: int) -> bool:
        """Tell the part."""
        return self._by_msr[number].write(cpu, number, value)

    def refusal(self, cpu: Processor) -> int | None:
        """Only ring 0 may call."""
        return None if cpu.cpl() == 0 else -Error.PERM

    def hypercall(self, cpu: Processor, call: Hypercall) -> int | None:
        """Carry out a call; -ENOSYS for what is unknown or not offered."""
        handler = self._calls.get(call.number)
        return -Error.NOSYS if handler is None else handler(cpu, call)

    def attach(self, processors: list[Processor]) -> None:
        """Introduce the virtual CPUs to the parts."""
        for part in self._parts.values():
            part.attach(processors)

    def reset(self, index: int) -> None:
        """Power-up or INIT."""
        for part in self._parts.values():
            part.reset(index)

    def save(self) -> State:
        """Every part's state by its name."""
        return {"version": 1, **{name: part.save() for name, part in self._parts.items()}}

    def restore(self, state: State) -> None:
        """Hand every part its state."""
        for name, part in self._parts.items():
            saved = state[name]
            assert isinstance(saved, dict)
            part.restore(saved)
