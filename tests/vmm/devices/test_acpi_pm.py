"""PM1 and the PM timer, as ACPI's "ACPI Hardware Specification" describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmm.devices.acpi_pm import PM_TIMER_HZ, AcpiPm

if TYPE_CHECKING:
    from tests.vmm.devices.conftest import HandClock, Wire

STATUS, ENABLE, CONTROL, TIMER = 0, 2, 4, 8
TIMER_BIT, POWER_BUTTON, RTC_BIT = 1, 1 << 8, 1 << 10
SECOND = 1_000_000_000


class Board:
    def __init__(self, clock: HandClock, sci: Wire) -> None:
        self.off = 0
        self.pm = AcpiPm(clock, sci, self.power_off)

    def power_off(self) -> None:
        self.off += 1


@pytest.fixture
def board(clock: HandClock, wire: Wire) -> Board:
    return Board(clock, wire)


def test_the_timer_counts_at_its_frequency(board: Board, clock: HandClock) -> None:
    assert board.pm.read(TIMER, 4) == 0
    clock.now = 2 * SECOND
    assert board.pm.read(TIMER, 4) == 2 * PM_TIMER_HZ
    assert board.pm.read(TIMER + 1, 1) == 2 * PM_TIMER_HZ >> 8 & 0xFF
    clock.now = 5000 * SECOND
    assert board.pm.read(TIMER, 4) == 5000 * PM_TIMER_HZ & 0xFFFF_FFFF
    board.pm.write(TIMER, 4, 0)
    assert board.pm.read(TIMER, 4) != 0, "read-only"


def test_the_highest_bit_changing_interrupts(board: Board, clock: HandClock, wire: Wire) -> None:
    assert board.pm.next_event() is None
    board.pm.write(ENABLE, 2, TIMER_BIT)
    due = board.pm.next_event()
    assert due == -(-(1 << 31) * SECOND // PM_TIMER_HZ)
    clock.now = due - 1
    assert board.pm.read(STATUS, 2) == 0
    clock.now = due
    board.pm.fire()
    assert board.pm.read(TIMER, 4) >> 31 == 1
    assert wire.level
    assert board.pm.read(STATUS, 2) == TIMER_BIT
    board.pm.write(STATUS, 2, TIMER_BIT)
    assert not wire.level
    assert board.pm.next_event() == -(-(1 << 32) * SECOND // PM_TIMER_HZ)


def test_the_power_button(board: Board, wire: Wire) -> None:
    board.pm.press_power_button()
    assert not wire.level, "not enabled"
    board.pm.write(ENABLE, 2, POWER_BUTTON | RTC_BIT)
    assert wire.level
    assert board.pm.read(ENABLE, 2) == POWER_BUTTON | RTC_BIT
    board.pm.write(STATUS, 2, 0)
    assert wire.level, "zeros clear nothing"
    board.pm.write(STATUS + 1, 1, POWER_BUTTON >> 8)
    assert not wire.level
    assert board.pm.read(STATUS, 2) == 0


def test_a_wide_write_takes_both_words(board: Board, wire: Wire) -> None:
    board.pm.press_power_button()
    board.pm.write(STATUS, 4, POWER_BUTTON << 16)
    assert board.pm.read(STATUS, 4) == POWER_BUTTON << 16 | POWER_BUTTON
    assert wire.level


def test_acpi_mode_is_always_on(board: Board) -> None:
    board.pm.write(CONTROL, 2, 0)
    assert board.pm.read(CONTROL, 2) & 1 == 1


@pytest.mark.parametrize(("value", "off"), [(0x2000, 1), (0x2001, 1), (0x3C00, 0), (0x0400, 0)])
def test_only_s5_powers_off(board: Board, value: int, off: int) -> None:
    """0x2000 to port 0x604 is what small kernels write for QEMU."""
    board.pm.write(CONTROL, 2, value)
    assert board.off == off
    assert board.pm.read(CONTROL, 2) & 0x2000 == 0, "SLP_EN reads as zero"


def test_sleep_enable_by_itself_uses_the_type_written_before(board: Board) -> None:
    board.pm.write(CONTROL, 2, 5 << 10)
    board.pm.write(CONTROL + 1, 1, 5 << 2 | 0x20)
    assert board.off == 0
    board.pm.write(CONTROL + 1, 1, 0x20)
    assert board.off == 1
