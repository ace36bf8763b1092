"""Steal time: how long a virtual CPU waited for its turn, whether it runs, a flush on its return.

Linux Documentation/virt/kvm/x86/msr.rst, MSR_KVM_STEAL_TIME; cpuid.rst, KVM_FEATURE_PV_TLB_FLUSH.
`preempted` is set whenever another virtual CPU has the physical one, also after HLT, as KVM does:
whoever does not run can have its translations dropped when it comes back instead of by an IPI.
"""

from typing import Final

from vmm.pv.dialect import Machine, Processor, State
from vmm.pv.kvm.registers import Registers
from vmm.pv.shared import SharedArea

BYTES: Final = 64
STEAL, VERSION, PREEMPTED = 0, 8, 16  # offsets; Linux uapi/asm/kvm_para.h (struct kvm_steal_time)
IS_PREEMPTED, FLUSH_TLB = 1 << 0, 1 << 1  # KVM_VCPU_PREEMPTED, KVM_VCPU_FLUSH_TLB
_ENABLE: Final = 1
_RESERVED: Final = 0x3E


class StealTime(Registers):
    """The MSR, and the page of each virtual CPU."""

    def __init__(self, machine: Machine, *, flushes: bool) -> None:
        """`flushes`: whether the guest may ask for a flush in the page."""
        super().__init__(machine.cpus)
        self._machine: Final = machine
        self._flushes: Final = flushes
        self._stolen = [0] * machine.cpus  # cycles since power-on

    def write(self, cpu: Processor, number: int, value: int) -> bool:
        """Take a 64-byte aligned address and the enable bit; reserved bits are #GP."""
        if value & _RESERVED:
            return False
        super().write(cpu, number, value)
        self._publish(cpu)
        return True

    def scheduled(self, cpu: Processor) -> None:
        """It runs again: say how long it waited, and flush if it was asked for meanwhile."""
        self._stolen[cpu.index] += cpu.waited()
        area = self._area(cpu)
        if area is None:
            return
        if self._flushes and area.read(PREEMPTED, 1) & FLUSH_TLB:
            cpu.flush_translations()
        self._publish(cpu)

    def descheduled(self, cpu: Processor) -> None:
        """Another one runs: nobody need interrupt this one."""
        if (area := self._area(cpu)) is not None:
            area.write(PREEMPTED, 1, IS_PREEMPTED)

    def _area(self, cpu: Processor) -> SharedArea | None:
        value = self.values[cpu.index]
        if not value & _ENABLE:
            return None
        return SharedArea(self._machine.memory, value & ~_ENABLE, BYTES)

    def _publish(self, cpu: Processor) -> None:
        if (area := self._area(cpu)) is not None:
            ns = self._machine.clock.ns_of_cycles(self._stolen[cpu.index])
            area.update(VERSION, STEAL, ns.to_bytes(8, "little"))
            area.write(PREEMPTED, 1, 0)

    def save(self) -> State:
        """The MSRs and what was stolen; the pages are part of memory."""
        return super().save() | {"stolen": list(self._stolen)}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        super().restore(state)
        stolen = state["stolen"]
        assert isinstance(stolen, list)
        self._stolen[:] = stolen
