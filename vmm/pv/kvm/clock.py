"""kvm-clock: a time page per virtual CPU, a wall-clock structure, old and new MSRs.

Linux Documentation/virt/kvm/x86/msr.rst, MSR_KVM_SYSTEM_TIME_NEW and MSR_KVM_WALL_CLOCK_NEW. One
pair of TSC and nanosecond serves every page, so that no two virtual CPUs differ while their
TSCs agree; only then is the stable bit set.
"""

from typing import Final

from vmm.pv.dialect import Machine, Processor, State
from vmm.pv.kvm.abi import KvmMsr
from vmm.pv.pvclock import (
    TIME_BYTES,
    TSC_STABLE,
    WALL_BYTES,
    Scale,
    write_time,
    write_wall_clock,
)
from vmm.pv.shared import SharedArea

_ENABLE: Final = 1
_SYSTEM: Final = (KvmMsr.SYSTEM_TIME, KvmMsr.SYSTEM_TIME_NEW)


class KvmClock:
    """The clock MSRs of all virtual CPUs."""

    def __init__(self, machine: Machine, *, stable: bool) -> None:
        """`stable`: whether the stable bit may be shown at all."""
        self._machine: Final = machine
        self._offers_stable: Final = stable
        self._since = 0, 0  # the machine's TSC, and nanoseconds
        self._scale = Scale.of(machine.tsc_hz)
        self._system = [0] * machine.cpus
        self._wall = 0
        self._cpus: list[Processor] = []

    def attach(self, processors: list[Processor]) -> None:
        """Meet the virtual CPUs."""
        self._cpus = processors

    def read(self, cpu: Processor, number: int) -> int:
        """Return what was written."""
        return self._system[cpu.index] if number in _SYSTEM else self._wall

    def write(self, cpu: Processor, number: int, value: int) -> bool:
        """Take an address: the date is written there once, time from now on while bit 0 is set."""
        if number in _SYSTEM:
            self._system[cpu.index] = value
            self.refresh(cpu)
        else:
            self._wall = value
            area = SharedArea(self._machine.memory, value, WALL_BYTES)
            write_wall_clock(area, self._machine.epoch, 0)
        return True

    def refresh(self, cpu: Processor) -> None:
        """Rewrite the page of `cpu`; every page, if it is no longer alone in its offset."""
        flags = self._flags()
        others = self._cpus if self._offers_stable else [cpu]
        for one in others:
            if one is cpu or self._shown_flags(one) != flags:
                self._write_page(one, flags)

    def rate_changed(self) -> None:
        """A TSC that counts the processor's cycles has another rate from now on."""
        clock = self._machine.clock
        if clock.tsc_hz:
            return
        self._since, self._scale = (clock.tsc(), clock.ns()), Scale.of(clock.frequency)
        for cpu in self._cpus:
            self._write_page(cpu, self._flags())

    def _flags(self) -> int:
        agree = len({cpu.tsc_offset() for cpu in self._cpus}) == 1
        return TSC_STABLE if agree and self._offers_stable else 0

    def _area(self, cpu: Processor) -> SharedArea | None:
        value = self._system[cpu.index]
        if not value & _ENABLE:
            return None
        return SharedArea(self._machine.memory, value & ~_ENABLE, TIME_BYTES)

    def _shown_flags(self, cpu: Processor) -> int:
        area = self._area(cpu)
        return area.read(29, 1) if area is not None else 0

    def _write_page(self, cpu: Processor, flags: int) -> None:
        if (area := self._area(cpu)) is not None:
            tsc, ns = self._since
            write_time(area, self._scale, cpu.tsc_offset() + tsc, ns, flags)

    def reset(self, index: int) -> None:
        """Forget a page."""
        self._system[index] = 0

    def save(self) -> State:
        """The MSRs."""
        scale = [self._scale.mul, self._scale.shift]
        return {"system": list(self._system), "wall": self._wall, "rate": [*self._since, *scale]}

    def restore(self, state: State) -> None:
        """Take over the MSRs; the pages are part of memory."""
        system, wall, rate = state["system"], state["wall"], state["rate"]
        assert isinstance(system, list)
        assert isinstance(wall, int)
        assert isinstance(rate, list)
        self._system[:] = system
        self._wall = wall
        tsc, ns, mul, shift = rate
        self._since, self._scale = (tsc, ns), Scale(mul, shift)
