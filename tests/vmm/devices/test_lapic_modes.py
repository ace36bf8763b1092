"""Facts from the same chapter: local pins, the base MSR, x2APIC mode, the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.vmm.devices.apic_machine import (
    BASE_MSR,
    BSP,
    ENABLED,
    EXTENDED,
    ID,
    LVT_LINT0,
    LVT_LINT1,
    SVR,
    TPR,
    Machine,
    get,
    put,
)
from vmm.devices.lapic import LocalApic

if TYPE_CHECKING:
    from tests.vmm.devices.conftest import HandClock


@pytest.fixture
def machine(clock: HandClock) -> Machine:
    return Machine(clock)


@pytest.fixture
def apic(machine: Machine) -> LocalApic:
    return machine.apics[0]


def test_external_interrupts_pass_lint0(machine: Machine, apic: LocalApic) -> None:
    machine.pic.asks = True
    assert apic.interrupt_pending(), "firmware leaves the bootstrap processor so"
    for closed in (0x10700, 0x00050):
        put(apic, LVT_LINT0, closed)
        assert not apic.interrupt_pending()
    put(apic, LVT_LINT0, 0x700)
    assert apic.interrupt_pending()
    assert not machine.apics[1].interrupt_pending()
    assert apic.acknowledge() == 0x08
    assert not apic.interrupt_pending()


def test_a_disabled_apic_lets_intr_through(machine: Machine, apic: LocalApic) -> None:
    machine.pic.asks = True
    assert apic.write_msr(BASE_MSR, 0xFEE00000 | BSP)
    assert apic.interrupt_pending()


def test_lint1_as_nmi_and_lint0_fixed(machine: Machine, apic: LocalApic) -> None:
    put(apic, LVT_LINT1, 0x400)
    put(apic, LVT_LINT0, 0x50)
    for pin in (0, 1, 1):
        apic.lint(pin, True)
    assert machine.diary == ["nmi 0"]
    assert machine.hit() == [0]


# IA32_APIC_BASE and x2APIC.


def test_base_refuses_reserved_bits_and_invalid_transitions(apic: LocalApic) -> None:
    base = 0xFEE00000 | BSP
    for value in (base | ENABLED | 1, base | ENABLED | 1 << 9, base | ENABLED | 1 << 46):
        assert not apic.write_msr(BASE_MSR, value)
    assert not apic.write_msr(BASE_MSR, base | EXTENDED)
    assert apic.write_msr(BASE_MSR, base | ENABLED | EXTENDED)
    assert not apic.write_msr(BASE_MSR, base | ENABLED), "x2APIC to xAPIC only over disabled"
    assert not apic.write_msr(BASE_MSR, base | EXTENDED)
    assert apic.write_msr(BASE_MSR, base)
    assert not apic.write_msr(BASE_MSR, base | ENABLED | EXTENDED)
    assert apic.write_msr(BASE_MSR, base | ENABLED)


def test_x2apic_is_refused_where_it_is_not_offered(clock: HandClock) -> None:
    apic = Machine(clock, x2apic=False).apics[0]
    assert not apic.write_msr(BASE_MSR, 0xFEE00000 | ENABLED | EXTENDED)
    assert apic.read_msr(0x802) is None


def test_relocation_and_switching_off_move_the_page(apic: LocalApic) -> None:
    assert apic.covers(0xFEE00030)
    assert apic.write_msr(BASE_MSR, 0xFED40000 | BSP | ENABLED)
    assert apic.covers(0xFED40030)
    assert not apic.covers(0xFEE00030)
    assert apic.write_msr(BASE_MSR, 0xFED40000 | BSP)
    assert not apic.covers(0xFED40030)


def test_x2apic_registers(machine: Machine) -> None:
    apic = machine.apics[3]
    assert apic.write_msr(BASE_MSR, 0xFEE00000 | ENABLED | EXTENDED)
    assert not apic.covers(0xFEE00000)
    assert apic.read_msr(0x802) == 3
    assert apic.read_msr(0x80D) == 1 << 3
    assert not apic.write_msr(0x802, 1), "the ID is read-only"
    assert not apic.write_msr(0x80D, 1)
    assert apic.read_msr(0x80E) is None, "there is no DFR"
    assert apic.read_msr(0x831) is None, "nor an upper half of ICR"
    assert apic.read_msr(0x80B) is None, "EOI is write-only"
    assert not apic.write_msr(0x80B, 1)
    assert apic.write_msr(0x80B, 0)
    assert not apic.write_msr(0x808, 0x100), "reserved bits of TPR"
    assert apic.write_msr(0x835, 0x5700), "read-only bits of LINT0 may be set, in vain"
    assert apic.read_msr(0x835) == 0x700
    assert apic.write_msr(0x83F, 0x50)
    assert machine.hit() == [3]
    assert not apic.write_msr(0x83F, 0x150)


def test_x2apic_icr_is_one_write(machine: Machine) -> None:
    for apic in machine.apics:
        assert apic.write_msr(BASE_MSR, apic.base | EXTENDED)
    sender = machine.apics[0]
    for icr, hits in (
        (2 << 32 | 0x4050, [2]),
        (0xFFFFFFFF << 32 | 0x4050, [0, 1, 2, 3]),
        (0x0000_0006 << 32 | 0x4850, [1, 2]),
        (0x0001_0006 << 32 | 0x4850, []),
        (0xFF << 32 | 0x4050, []),
    ):
        assert sender.write_msr(0x830, icr)
        assert sender.read_msr(0x830) == icr
        assert machine.hit() == hits, hex(icr)
    assert not sender.write_msr(0x830, 1 << 20)


def test_disabling_restores_the_initial_id(machine: Machine) -> None:
    apic = machine.apics[1]
    put(apic, ID, 7 << 24)
    assert get(apic, ID) == 7 << 24
    assert apic.write_msr(BASE_MSR, 0xFEE00000)
    assert apic.write_msr(BASE_MSR, 0xFEE00000 | ENABLED)
    assert get(apic, ID) == 1 << 24


def test_cr8_works_while_disabled(apic: LocalApic) -> None:
    assert apic.write_msr(BASE_MSR, 0xFEE00000 | BSP)
    apic.cr8 = 0xF
    assert apic.cr8 == 0xF


def test_only_whole_registers_are_written_any_part_is_read(apic: LocalApic) -> None:
    apic.write(TPR, 1, 0x30)
    apic.write(TPR + 4, 4, 0x30)
    assert get(apic, TPR) == 0
    put(apic, SVR, 0x1A5)
    assert apic.read(SVR, 1) == 0xA5
    assert apic.read(SVR + 1, 1) == 0x01
    assert apic.read(SVR, 8) == 0x1A5
