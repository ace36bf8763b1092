"""PV EOI: an interrupt is ended by clearing a bit in memory, without an exit.

Linux Documentation/virt/kvm/x86/msr.rst, MSR_KVM_PV_EOI_EN. The bit is set with the injection of
an interrupt whose end has no effect but its own; when another one is requested meanwhile the bit is
taken back, so that the guest ends the first by an exit. What the guest ended is booked when
somebody looks at the local APIC next (`settle`), so no exit has to ask.
"""

from typing import Final

from vmm.pv.dialect import Machine, Processor, State
from vmm.pv.kvm.registers import Registers
from vmm.pv.shared import SharedArea

_ENABLE: Final = 1
_RESERVED: Final = 2  # the address is 4-byte aligned
PENDING: Final = 1  # KVM_PV_EOI_ENABLED, bit 0 of the byte


class PvEoi(Registers):
    """The MSR, and which virtual CPUs have their bit set by us."""

    def __init__(self, machine: Machine) -> None:
        """Nothing is armed."""
        super().__init__(machine.cpus, reserved=_RESERVED)
        self._machine: Final = machine
        self._armed = [False] * machine.cpus

    def attach(self, processors: list[Processor]) -> None:
        """Have every local APIC ask before it tells what is in service."""
        for cpu in processors:
            cpu.before_apic(self.settle)

    def write(self, cpu: Processor, number: int, value: int) -> bool:
        """Take an address of RAM and the enable bit; anything else is #GP."""
        area = SharedArea(self._machine.memory, value & ~_ENABLE, 1)
        if value & _ENABLE and not area.is_memory():
            return False
        self._take_back(cpu)
        return super().write(cpu, number, value)

    def settle(self, cpu: Processor) -> None:
        """Book the end of an interrupt that the guest ended in memory."""
        if self._armed[cpu.index] and not self._area(cpu).read(0, 1) & PENDING:
            self._armed[cpu.index] = False
            cpu.end_of_interrupt()

    def entering(self, cpu: Processor) -> None:
        """Arm for the interrupt that goes in now; take it back when the end must be seen."""
        if self._armed[cpu.index]:
            if not cpu.ends_silently():
                self._take_back(cpu)
        elif self.values[cpu.index] & _ENABLE and cpu.injects_interrupt() and cpu.ends_silently():
            self._area(cpu).write(0, 1, PENDING)
            self._armed[cpu.index] = True

    def _take_back(self, cpu: Processor) -> None:
        self.settle(cpu)
        if self._armed[cpu.index]:
            self._armed[cpu.index] = False
            self._area(cpu).write(0, 1, 0)

    def _area(self, cpu: Processor) -> SharedArea:
        return SharedArea(self._machine.memory, self.values[cpu.index] & ~_ENABLE, 1)

    def reset(self, index: int) -> None:
        """The local APIC forgets what is in service too."""
        super().reset(index)
        self._armed[index] = False

    def save(self) -> State:
        """The MSRs and who is armed."""
        return super().save() | {"armed": [int(armed) for armed in self._armed]}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        super().restore(state)
        armed = state["armed"]
        assert isinstance(armed, list)
        self._armed[:] = [bool(one) for one in armed]
