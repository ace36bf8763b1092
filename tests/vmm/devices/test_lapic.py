"""Facts from the Intel SDM, volume 3, "Advanced Programmable Interrupt Controller (APIC)"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.vmm.devices.apic_machine import (
    BASE_MSR,
    CURRENT,
    DEADLINE_MSR,
    DFR,
    DIVIDE,
    ENABLED,
    EOI,
    ESR,
    ICR,
    ICR2,
    ID,
    INITIAL,
    IRR,
    ISR,
    LDR,
    LVT_ERROR,
    LVT_TIMER,
    PPR,
    SVR,
    TMR,
    TPR,
    VERSION,
    Machine,
    fixed,
    get,
    put,
)
from vmm.devices.lapic import LocalApic
from vmm.devices.lapic_bus import ApicBus, DeliveryMode, Message
from vmm.devices.lapic_pins import CpuPins

if TYPE_CHECKING:
    from tests.vmm.devices.conftest import HandClock


@pytest.fixture
def machine(clock: HandClock) -> Machine:
    return Machine(clock)


@pytest.fixture
def apic(machine: Machine) -> LocalApic:
    return machine.apics[0]


def test_state_after_power_up(clock: HandClock) -> None:
    apic = LocalApic(clock, ApicBus(), 3, CpuPins(print, print, print))
    assert apic.read_msr(BASE_MSR) == 0xFEE00000 | ENABLED
    assert get(apic, ID) == 3 << 24
    assert get(apic, SVR) == 0xFF
    assert get(apic, DFR) == 0xFFFFFFFF
    assert 0x10 <= get(apic, VERSION) & 0xFF <= 0x15
    assert get(apic, VERSION) >> 16 == 5, "six LVT entries"
    for lvt in range(LVT_TIMER, LVT_ERROR + 1, 0x10):
        assert get(apic, lvt) == 0x10000
    for bank in (ISR, TMR, IRR):
        assert not any(get(apic, bank + word) for word in range(0, 0x80, 0x10))


def test_priority_decides(machine: Machine, apic: LocalApic) -> None:
    for vector in (0x41, 0x52, 0x35):
        machine.bus.deliver(fixed(vector))
    assert get(apic, IRR + 0x20) == 1 << 1 | 1 << 18
    assert apic.pending_vector() == 0x52
    assert apic.acknowledge() == 0x52
    assert get(apic, ISR + 0x20) == 1 << 18
    assert get(apic, PPR) == 0x50
    assert apic.pending_vector() is None
    machine.bus.deliver(fixed(0x5F))
    assert apic.pending_vector() is None, "the same class does not nest"
    machine.bus.deliver(fixed(0x60))
    assert apic.acknowledge() == 0x60
    put(apic, EOI, 0)
    put(apic, EOI, 0)
    assert apic.acknowledge() == 0x5F


def test_task_priority_masks_its_class(machine: Machine, apic: LocalApic) -> None:
    machine.bus.deliver(fixed(0x4F))
    put(apic, TPR, 0x40)
    assert not apic.interrupt_pending()
    put(apic, TPR, 0x3F)
    assert apic.interrupt_pending()
    assert get(apic, PPR) == 0x3F
    apic.cr8 = 4
    assert get(apic, TPR) == 0x40
    assert apic.cr8 == 4


def test_nothing_to_take_is_the_spurious_vector(apic: LocalApic) -> None:
    put(apic, SVR, 0x1EF)
    assert apic.acknowledge() == 0xEF
    assert not any(get(apic, ISR + word) for word in range(0, 0x80, 0x10))


def test_eoi_of_a_level_interrupt_is_broadcast(machine: Machine, apic: LocalApic) -> None:
    ends: list[int] = []
    machine.bus.on_eoi.append(ends.append)
    for vector, level in ((0x70, True), (0x60, False)):
        machine.bus.deliver(fixed(vector, level=level))
        apic.acknowledge()
        put(apic, EOI, 0)
    assert ends == [0x70]
    machine.bus.deliver(fixed(0x70))
    assert get(apic, TMR + 0x30) == 0, "an edge clears the trigger mode bit"


def test_software_disabled_accepts_nothing_fixed_and_masks_lvts(machine: Machine) -> None:
    apic = machine.apics[1]
    put(apic, LVT_TIMER, 0x40)
    put(apic, SVR, 0xFF)
    assert get(apic, LVT_TIMER) == 0x10040
    put(apic, LVT_TIMER, 0x41)
    assert get(apic, LVT_TIMER) == 0x10041, "the mask cannot be cleared"
    assert not machine.bus.deliver(fixed(0x50, 1))
    assert machine.bus.deliver(Message(DeliveryMode.NMI, 0, 1))
    assert machine.diary == ["nmi 1"]


# Destinations.


@pytest.mark.parametrize(("destination", "hits"), [(2, [2]), (0xFF, [0, 1, 2, 3]), (9, [])])
def test_physical(machine: Machine, apic: LocalApic, destination: int, hits: list[int]) -> None:
    put(apic, ICR2, destination << 24)
    put(apic, ICR, 0x4050)
    assert not get(apic, ICR) & 0x1000, "delivery status is idle again"
    assert machine.hit() == hits


@pytest.mark.parametrize(("shorthand", "hits"), [(1, [1]), (2, [0, 1, 2, 3]), (3, [0, 2, 3])])
def test_shorthands(machine: Machine, shorthand: int, hits: list[int]) -> None:
    put(machine.apics[1], ICR, shorthand << 18 | 0x4050)
    assert machine.hit() == hits


def test_logical_flat(machine: Machine, apic: LocalApic) -> None:
    for cpu, other in enumerate(machine.apics):
        put(other, LDR, 1 << (24 + cpu))
    put(apic, ICR2, 0xA << 24)
    put(apic, ICR, 0x4850)
    assert machine.hit() == [1, 3]


def test_logical_cluster(machine: Machine, apic: LocalApic) -> None:
    for other, ldr in zip(machine.apics, (0x11, 0x12, 0x21, 0x24), strict=True):
        put(other, DFR, 0)
        put(other, LDR, ldr << 24)
    for destination, hits in ((0x13, [0, 1]), (0x2C, [3]), (0x31, []), (0xFF, [0, 1, 2, 3])):
        put(apic, ICR2, destination << 24)
        put(apic, ICR, 0x4850)
        assert machine.hit() == hits, hex(destination)


def test_lowest_priority_goes_to_one(machine: Machine, apic: LocalApic) -> None:
    for other, tpr in zip(machine.apics, (0x40, 0x30, 0x20, 0x20), strict=True):
        put(other, TPR, tpr)
    put(apic, ICR2, 0xFF << 24)
    put(apic, ICR, 0x4150)
    assert machine.hit() == [2]


def test_init_and_startup(machine: Machine, apic: LocalApic) -> None:
    target = machine.apics[1]
    put(target, TPR, 0x20)
    put(apic, ICR, 3 << 18 | 0x4500)  # INIT, all but self
    put(apic, ICR, 3 << 18 | 0x8500)  # INIT de-assert: no effect
    put(apic, ICR, 3 << 18 | 0x0608)  # startup at 0x8000
    assert machine.diary == [
        *("init 1", "init 2", "init 3"),
        *("sipi 1 0x8", "sipi 2 0x8", "sipi 3 0x8"),
    ]
    assert (get(target, TPR), get(target, SVR), get(target, ID)) == (0, 0xFF, 1 << 24)


def test_self_nmi(machine: Machine, apic: LocalApic) -> None:
    put(apic, ICR2, 0)
    put(apic, ICR, 0x400)
    assert machine.diary == ["nmi 0"]


# Errors.


def test_illegal_vectors_and_registers(machine: Machine, apic: LocalApic) -> None:
    put(apic, LVT_ERROR, 0xFE)
    put(apic, ICR, 0x4005)
    assert get(apic, ESR) == 0, "ESR shows errors only after it is written"
    put(apic, ESR, 0)
    assert get(apic, ESR) == 0x20
    assert machine.hit(0xFE) == [0]
    get(apic, 0x040)
    machine.bus.deliver(fixed(0x0F))
    put(apic, ESR, 0)
    assert get(apic, ESR) == 0x80 | 0x40
    put(apic, ESR, 0)
    assert get(apic, ESR) == 0


# Timer.

DIVIDERS = {0: 2, 1: 4, 2: 8, 3: 16, 8: 32, 9: 64, 10: 128, 11: 1}


@pytest.mark.parametrize(("configuration", "divider"), DIVIDERS.items())
def test_one_shot(
    machine: Machine, apic: LocalApic, clock: HandClock, configuration: int, divider: int
) -> None:
    put(apic, LVT_TIMER, 0x50)
    put(apic, DIVIDE, configuration)
    put(apic, INITIAL, 1000)
    assert apic.next_event() == 1000 * divider
    clock.now = 400 * divider
    assert get(apic, CURRENT) == 600
    clock.now = 1000 * divider
    apic.fire()
    assert machine.hit() == [0]
    assert get(apic, CURRENT) == 0
    assert apic.next_event() is None


def test_periodic_keeps_its_phase(machine: Machine, apic: LocalApic, clock: HandClock) -> None:
    put(apic, LVT_TIMER, 0x20050)
    put(apic, DIVIDE, 0xB)
    put(apic, INITIAL, 100)
    for late, expected in ((0, 200), (7, 300), (950, 1300)):
        clock.now = (apic.next_event() or 0) + late
        apic.fire()
        assert machine.hit() == [0]
        assert apic.next_event() == expected
        assert get(apic, CURRENT) == expected - clock.now


def test_mode_changes_as_kvm_unit_tests_expects(apic: LocalApic, clock: HandClock) -> None:
    put(apic, LVT_TIMER, 0x50)
    put(apic, DIVIDE, 0xB)
    put(apic, INITIAL, 1000)
    clock.now = 700
    put(apic, LVT_TIMER, 0x20050)
    assert get(apic, CURRENT) == 300, "the change does not restart the count"
    clock.now = 1100
    assert get(apic, CURRENT) == 900, "but it wraps now"
    clock.now = 1600
    put(apic, LVT_TIMER, 0x50)
    assert get(apic, CURRENT) == 400
    clock.now = 2500
    assert get(apic, CURRENT) == 0
    put(apic, LVT_TIMER, 0x20050)
    assert get(apic, CURRENT) == 0, "a finished count stays finished"
    assert get(apic, INITIAL) == 1000


def test_a_masked_timer_counts_without_interrupting(
    machine: Machine, apic: LocalApic, clock: HandClock
) -> None:
    put(apic, LVT_TIMER, 0x30050)
    put(apic, DIVIDE, 0xB)
    put(apic, INITIAL, 100)
    assert apic.next_event() is None
    clock.now = 150
    put(apic, LVT_TIMER, 0x20050)
    assert machine.hit() == []
    assert apic.next_event() == 200


def test_tsc_deadline(machine: Machine, apic: LocalApic, clock: HandClock) -> None:
    assert apic.write_msr(DEADLINE_MSR, 5)
    assert apic.read_msr(DEADLINE_MSR) == 0, "ignored in the other modes"
    put(apic, LVT_TIMER, 0x40050)
    put(apic, INITIAL, 77)
    assert get(apic, CURRENT) == 0
    apic.timer.tsc = lambda: clock.now + 10_000
    assert apic.write_msr(DEADLINE_MSR, 10_500)
    assert apic.next_event() == 500
    clock.now = 500
    apic.fire()
    assert machine.hit() == [0]
    assert apic.read_msr(DEADLINE_MSR) == 0
    assert apic.write_msr(DEADLINE_MSR, 3)
    assert machine.hit() == [0], "a deadline that has passed fires at once"
    assert apic.write_msr(DEADLINE_MSR, 99_999)
    put(apic, LVT_TIMER, 0x00050)
    assert apic.next_event() is None, "leaving the mode disarms"


# LINT pins.
