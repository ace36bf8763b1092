"""Local APICs on a bus of their own, for the tests of vmm/devices/lapic.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.devices.lapic import LocalApic
from vmm.devices.lapic_bus import ApicBus, DeliveryMode, Message
from vmm.devices.lapic_pins import CpuPins

if TYPE_CHECKING:
    from tests.vmm.devices.conftest import HandClock

ID, VERSION, TPR, PPR, EOI, LDR, DFR, SVR = 0x20, 0x30, 0x80, 0xA0, 0xB0, 0xD0, 0xE0, 0xF0
ISR, TMR, IRR, ESR, ICR, ICR2 = 0x100, 0x180, 0x200, 0x280, 0x300, 0x310
LVT_TIMER, LVT_LINT0, LVT_LINT1, LVT_ERROR = 0x320, 0x350, 0x360, 0x370
INITIAL, CURRENT, DIVIDE = 0x380, 0x390, 0x3E0
BASE_MSR, DEADLINE_MSR = 0x1B, 0x6E0
ENABLED, EXTENDED, BSP = 1 << 11, 1 << 10, 1 << 8


class Pic8259:
    """An 8259 that asks when told to."""

    def __init__(self) -> None:
        self.asks = False

    def pending(self) -> bool:
        return self.asks

    def acknowledge(self) -> int:
        self.asks = False
        return 0x08


class Machine:
    """Some local APICs on one bus, switched on, and a diary of what their pins did."""

    def __init__(self, clock: HandClock, cpus: int = 4, *, x2apic: bool = True) -> None:
        self.clock = clock
        self.bus = ApicBus()
        self.pic = Pic8259()
        self.diary: list[str] = []
        self.apics = [
            LocalApic(clock, self.bus, cpu, self.pins(cpu), x2apic=x2apic, pic=self.pic)
            for cpu in range(cpus)
        ]
        for apic in self.apics:
            put(apic, SVR, 0x1FF)

    def pins(self, cpu: int) -> CpuPins:
        return CpuPins(
            nmi=lambda: self.diary.append(f"nmi {cpu}"),
            init=lambda: self.diary.append(f"init {cpu}"),
            sipi=lambda vector: self.diary.append(f"sipi {cpu} {vector:#x}"),
        )

    def hit(self, vector: int = 0x50) -> list[int]:
        """Which processors have `vector` requested; takes it back."""
        hits = [cpu for cpu, apic in enumerate(self.apics) if apic.page.test_bit(IRR, vector)]
        for cpu in hits:
            self.apics[cpu].page.set_bit(IRR, vector, value=False)
        return hits


def put(apic: LocalApic, offset: int, value: int) -> None:
    apic.write(offset, 4, value)


def get(apic: LocalApic, offset: int) -> int:
    return apic.read(offset, 4)


def fixed(vector: int, destination: int = 0, *, level: bool = False) -> Message:
    return Message(DeliveryMode.FIXED, vector, destination, level_triggered=level)
