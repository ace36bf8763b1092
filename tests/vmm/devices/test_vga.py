"""The VGA's registers as a text driver uses them (FreeVGA's and IBM's register tables)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmm.devices.vga import Vga

if TYPE_CHECKING:
    from tests.vmm.devices.conftest import HandClock

CRTC, ATTRIBUTE, STATUS, SEQUENCER, MISC = 0x14, 0x00, 0x1A, 0x04, 0x0C
SECOND = 1_000_000_000


@pytest.fixture
def vga(clock: HandClock) -> Vga:
    return Vga(clock)


def crtc(vga: Vga, index: int, value: int | None = None) -> int:
    vga.write(CRTC, 1, index)
    if value is not None:
        vga.write(CRTC + 1, 1, value)
    return vga.read(CRTC + 1, 1)


def test_mode_3_is_on(vga: Vga) -> None:
    assert vga.read(MISC, 1) & 1, "colour: CRTC at 0x3d4"
    assert crtc(vga, 1) == 79
    assert crtc(vga, 9) & 0x1F == 15
    assert crtc(vga, 17) == 0x8E
    assert crtc(vga, 0x13) == 40
    assert vga.text().start == 0
    assert vga.text().cursor == 0


def test_the_cursor_and_the_start(vga: Vga) -> None:
    for index, value in ((14, 0x03), (15, 0x21), (12, 0x00), (13, 0x50)):
        assert crtc(vga, index, value) == value
    assert (vga.text().start, vga.text().cursor) == (80, 0x321)
    crtc(vga, 10, 0x20)
    assert vga.text().cursor is None


def test_protected_timing_registers(vga: Vga) -> None:
    assert crtc(vga, 0, 0x12) == 0x5F
    crtc(vga, 17, 0x0E)
    assert crtc(vga, 0, 0x12) == 0x12


def test_the_attribute_port_takes_turns(vga: Vga) -> None:
    vga.read(STATUS, 1)
    for value in (0x10, 0x0C, 0x11, 0x3F):
        vga.write(ATTRIBUTE, 1, value)
    vga.read(STATUS, 1)
    vga.write(ATTRIBUTE, 1, 0x11)
    assert vga.read(ATTRIBUTE + 1, 1) == 0x3F


def test_the_palette_counts_on(vga: Vga) -> None:
    vga.write(0x08, 1, 5)
    for value in (1, 2, 0xFF):
        vga.write(0x09, 1, value)
    vga.write(0x07, 1, 5)
    assert [vga.read(0x09, 1) for _ in range(3)] == [1, 2, 0x3F]


def test_the_beam_comes_back_seventy_times_a_second(vga: Vga, clock: HandClock) -> None:
    seen, before = 0, False
    for clock.now in range(0, SECOND, 10_000):
        retrace = bool(vga.read(STATUS, 1) & 8)
        seen += retrace and not before
        before = retrace
    assert seen == 70


def test_absent_ports_float(vga: Vga) -> None:
    assert vga.read(0x1F, 1) == 0xFF
    vga.write(0x1F, 1, 3)
    vga.write(CRTC, 1, 0xFF)
    vga.write(CRTC + 1, 1, 1)
    assert vga.read(CRTC + 1, 1) == 0
