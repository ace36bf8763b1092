"""KVM's dialect put together: leaves, MSRs and hypercalls go to the part that has them."""

from collections.abc import Mapping
from struct import unpack
from typing import TYPE_CHECKING, Final, Protocol

from vmm.pv.dialect import Hooks, Hypercall, Leaf, Machine, Processor, State
from vmm.pv.kvm.abi import SIGNATURE, TIMING_LEAF, Error, Feature, KvmMsr
from vmm.pv.kvm.async_pf import AsyncPageFaults
from vmm.pv.kvm.calls import Calls
from vmm.pv.kvm.clock import KvmClock
from vmm.pv.kvm.eoi import PvEoi
from vmm.pv.kvm.features import Offer
from vmm.pv.kvm.registers import Registers
from vmm.pv.kvm.steal import StealTime

if TYPE_CHECKING:
    from vmm.devices.device import Device

_KHZ: Final = 1000
_BY_INTERRUPT: Final = (KvmMsr.ASYNC_PF_INT, KvmMsr.ASYNC_PF_ACK)


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
    events: "Device | None" = None
    tsc_step = 0
    numbers = range(1 << 16)

    def __init__(self, machine: Machine, offer: Offer) -> None:
        """Build the parts that are offered."""
        self._machine: Final = machine
        self._offer: Final = offer
        self._parts: dict[str, Part] = {}
        self._by_msr: dict[int, Part] = {}
        self._calls = Calls(machine, offer)
        self._clock = KvmClock(machine, stable=Feature.CLOCKSOURCE_STABLE_BIT in offer)
        self._steal = StealTime(machine, flushes=Feature.PV_TLB_FLUSH in offer)
        self._eoi = PvEoi(machine)
        by_interrupt = Feature.ASYNC_PF_INT in offer
        self._faults = AsyncPageFaults(machine, by_interrupt=by_interrupt)
        polls = Registers(machine.cpus, power_on=1, reserved=~1)
        for feature, name, part, *msrs in (
            (Feature.CLOCKSOURCE, "clock", self._clock, KvmMsr.WALL_CLOCK, KvmMsr.SYSTEM_TIME),
            (
                Feature.CLOCKSOURCE2,
                "clock",
                self._clock,
                KvmMsr.WALL_CLOCK_NEW,
                KvmMsr.SYSTEM_TIME_NEW,
            ),
            (Feature.STEAL_TIME, "steal", self._steal, KvmMsr.STEAL_TIME),
            (Feature.PV_EOI, "eoi", self._eoi, KvmMsr.PV_EOI_EN),
            (Feature.ASYNC_PF, "faults", self._faults, KvmMsr.ASYNC_PF_EN),
            (Feature.ASYNC_PF_INT, "faults", self._faults, *_BY_INTERRUPT),
            (Feature.POLL_CONTROL, "polls", polls, KvmMsr.POLL_CONTROL),
        ):
            if feature in offer:
                self._add(name, part, *msrs)
        # Linux prefers an invariant TSC to kvm-clock, and KVM does not show one by itself either.
        self.hides = frozenset({"invariant_tsc"})
        self.hooks = self._make_hooks()

    def _make_hooks(self) -> Hooks:
        steal, eoi, faults = (name in self._parts for name in ("steal", "eoi", "faults"))
        return Hooks(
            entering=self._eoi.entering if eoi else None,
            scheduled=self._steal.scheduled if steal else None,
            descheduled=self._steal.descheduled if steal else None,
            tsc_changed=self._clock.refresh,
            rate_changed=self._clock.rate_changed,
            page_absent=self._faults.page_absent if faults else None,
            page_ready=self._faults.page_ready if faults else None,
        )

    def _add(self, name: str, part: Part, *msrs: KvmMsr) -> None:
        self._parts[name] = part
        self._by_msr.update(dict.fromkeys(msrs, part))

    def leaves(self, base: int) -> Mapping[int, Leaf]:
        """Signature, features and hints, timing."""
        machine, offer = self._machine, self._offer
        return {
            base: Leaf(base + TIMING_LEAF, *unpack("<3I", SIGNATURE)),
            base + 1: Leaf(eax=offer.feature_word(), edx=offer.hint_word()),
            base + TIMING_LEAF: Leaf(machine.tsc_hz // _KHZ, machine.apic_hz // _KHZ),
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
        handler = self._calls.handlers.get(call.number)
        return -Error.NOSYS if handler is None else handler(cpu, call)

    def attach(self, processors: list[Processor]) -> None:
        """Introduce the virtual CPUs to the parts."""
        self._calls.attach(processors)
        for part in self._parts.values():
            part.attach(processors)

    def begin_life(self, life: int) -> None:
        """KVM's guests learn of it by other means, a VM generation device for instance."""

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
