"""Facts from the 82093AA data sheet, and what kvm-unit-tests' ioapic image does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmm.devices.ioapic import IoApic
from vmm.devices.lapic import LocalApic
from vmm.devices.lapic_bus import ApicBus
from vmm.devices.lapic_pins import CpuPins

if TYPE_CHECKING:
    from tests.vmm.devices.conftest import HandClock

LEVEL, MASKED, REMOTE_IRR = 1 << 15, 1 << 16, 1 << 14
EOI, SVR, TMR = 0xB0, 0xF0, 0x180


class Wiring:
    """One I/O APIC, two processors."""

    def __init__(self, clock: HandClock) -> None:
        bus = ApicBus()
        self.ioapic = IoApic(bus)
        pins = CpuPins(lambda: None, lambda: None, lambda _vector: None)
        self.apics = [LocalApic(clock, bus, cpu, pins) for cpu in range(2)]
        for apic in self.apics:
            apic.write(SVR, 4, 0x1FF)

    def get(self, register: int) -> int:
        self.ioapic.write(0, 4, register)
        return self.ioapic.read(0x10, 4)

    def put(self, register: int, value: int) -> None:
        self.ioapic.write(0, 4, register)
        self.ioapic.write(0x10, 4, value)

    def route(self, pin: int, entry: int) -> None:
        self.put(0x10 + 2 * pin, entry & 0xFFFFFFFF)
        self.put(0x11 + 2 * pin, entry >> 32)

    def serve(self, cpu: int = 0) -> int:
        """Acknowledge and end one interrupt."""
        vector = self.apics[cpu].acknowledge()
        self.apics[cpu].write(EOI, 4, 0)
        return vector

    def pending(self, cpu: int = 0) -> int | None:
        return self.apics[cpu].pending_vector()


@pytest.fixture
def io(clock: HandClock) -> Wiring:
    return Wiring(clock)


def test_identification(io: Wiring) -> None:
    assert io.get(1) == 0x0017_0011
    io.put(1, 0xFFFFFFFF)
    assert io.get(1) == 0x0017_0011
    io.put(0, 0xFFFFFFFF)
    assert io.get(0) == 0x0F000000
    assert io.get(2) == 0x0F000000, "the arbitration register is loaded with the ID"
    io.put(2, 0)
    assert io.get(2) == 0x0F000000


def test_entries_power_up_masked_and_keep_read_only_bits(io: Wiring) -> None:
    assert all(io.get(0x10 + 2 * pin) == MASKED for pin in range(24))
    io.put(0x10, 0xFFFFFFFF)
    assert io.get(0x10) == 0x1AFFF
    io.put(0x11, 0xFFFFFFFF)
    assert io.get(0x11) == 0xFF000000


def test_edge_is_delivered_once_per_edge(io: Wiring) -> None:
    io.route(14, 0x76)
    io.ioapic.set_pin(14, True)
    assert io.serve() == 0x76
    assert io.pending() is None
    io.ioapic.set_pin(14, True)
    assert io.pending() is None
    io.ioapic.set_pin(14, False)
    io.ioapic.set_pin(14, True)
    assert io.pending() == 0x76
    assert not io.get(0x10 + 28) & REMOTE_IRR


def test_masked_edge_is_lost(io: Wiring) -> None:
    io.route(14, 0x81 | MASKED)
    io.ioapic.set_pin(14, True)
    io.ioapic.set_pin(14, False)
    io.route(14, 0x81)
    assert io.pending() is None


def test_level_waits_for_eoi_and_repeats_while_asserted(io: Wiring) -> None:
    io.route(14, 0x9A | LEVEL)
    io.ioapic.set_pin(14, True)
    assert io.get(0x10 + 28) & REMOTE_IRR
    assert io.serve() == 0x9A
    assert io.pending() == 0x9A, "still asserted"
    io.apics[0].acknowledge()
    assert io.apics[0].read(TMR + 0x40, 4) >> (0x9A & 31) & 1
    io.ioapic.set_pin(14, False)
    io.apics[0].write(EOI, 4, 0)
    assert io.pending() is None
    assert not io.get(0x10 + 28) & REMOTE_IRR


def test_masked_level_is_delivered_when_unmasked(io: Wiring) -> None:
    io.route(14, 0x82 | LEVEL | MASKED)
    io.ioapic.set_pin(14, True)
    assert io.pending() is None
    io.route(14, 0x82 | LEVEL)
    assert io.pending() == 0x82


def test_change_to_edge_clears_remote_irr(io: Wiring) -> None:
    io.route(14, 0x82 | LEVEL)
    io.ioapic.set_pin(14, True)
    io.route(14, 0x82 | MASKED)
    io.route(14, 0x82 | LEVEL | MASKED)
    assert not io.get(0x10 + 28) & REMOTE_IRR


def test_physical_and_logical_destinations(io: Wiring) -> None:
    io.route(14, 1 << 56 | 0x85)
    io.ioapic.set_pin(14, True)
    assert (io.pending(0), io.pending(1)) == (None, 0x85)
    for cpu, apic in enumerate(io.apics):
        apic.write(0xD0, 4, 1 << (24 + cpu))
    io.route(15, 3 << 56 | 1 << 11 | 0x96)
    io.ioapic.set_pin(15, True)
    assert (io.pending(0), io.pending(1)) == (0x96, 0x96)


def test_reconfiguring_the_destination_while_in_service(io: Wiring) -> None:
    """The end of interrupt is matched by vector, whoever the entry now points to."""
    io.route(13, 0x64 | LEVEL)
    io.ioapic.set_pin(13, True)
    io.apics[0].acknowledge()
    io.ioapic.set_pin(13, False)
    io.put(0x11 + 26, 1 << 24)
    assert io.get(0x10 + 26) & REMOTE_IRR
    io.apics[0].write(EOI, 4, 0)
    assert not io.get(0x10 + 26) & REMOTE_IRR


def test_a_level_that_nobody_takes_stays_pending(io: Wiring) -> None:
    io.route(14, 9 << 56 | 0x82 | LEVEL)
    io.ioapic.set_pin(14, True)
    assert not io.get(0x10 + 28) & REMOTE_IRR
    io.put(0x11 + 28, 0)
    assert io.pending() == 0x82
