"""Facts from the MC146818 data sheet; calendar facts from Python's own datetime."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.devices.calendar_time import moment, weekday
from vmm.devices.rtc import DEFAULT_EPOCH, Rtc

if TYPE_CHECKING:
    from tests.vmm.devices.conftest import HandClock, Wire

SECOND = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def rtc(clock: HandClock, wire: Wire) -> Rtc:
    return Rtc(clock, wire, memory=256 << 20)


def get(rtc: Rtc, index: int) -> int:
    rtc.write(0, 1, index)
    return rtc.read(1, 1)


def put(rtc: Rtc, index: int, value: int) -> None:
    rtc.write(0, 1, index)
    rtc.write(1, 1, value)


def shown(rtc: Rtc) -> str:
    """Century, year, month, day, hours, minutes, seconds as they stand in the registers."""
    return "".join(f"{get(rtc, index):02x}" for index in (0x32, 9, 8, 7, 4, 2, 0))


@given(st.integers(min_value=-62_135_596_800, max_value=253_402_300_799))
def test_calendar_agrees_with_datetime(seconds: int) -> None:
    when = EPOCH + timedelta(seconds=seconds)
    ours = moment(seconds)
    expected = (when.year, when.month, when.day, when.hour, when.minute, when.second)
    assert (ours.year, ours.month, ours.day, ours.hour, ours.minute, ours.second) == expected
    assert ours.seconds() == seconds
    assert weekday(seconds) == when.isoweekday() % 7 + 1


def test_default_date_in_bcd(rtc: Rtc) -> None:
    assert shown(rtc) == "20260101000000"
    assert datetime.fromtimestamp(DEFAULT_EPOCH, UTC) == datetime(2026, 1, 1, tzinfo=UTC)
    assert get(rtc, 6) == 5, "a Thursday; Sunday is 1"


def test_time_follows_the_clock_over_a_leap_day(clock: HandClock, wire: Wire) -> None:
    start = int(datetime(2028, 2, 28, 23, 59, 58, tzinfo=UTC).timestamp())
    rtc = Rtc(clock, wire, epoch=start)
    clock.now = 2 * SECOND
    assert shown(rtc) == "20280229000000"
    clock.now += 86_400 * SECOND
    assert shown(rtc) == "20280301000000"


def test_binary_and_twelve_hour_modes(rtc: Rtc, clock: HandClock) -> None:
    clock.now = (13 * 3600 + 45 * 60) * SECOND
    assert get(rtc, 4) == 0x13
    put(rtc, 0x0B, 0x06)
    assert (get(rtc, 4), get(rtc, 2)) == (13, 45)
    put(rtc, 0x0B, 0x00)
    assert get(rtc, 4) == 0x81, "1 p.m."
    clock.now = 30 * 60 * SECOND
    put(rtc, 0x0B, 0x00)
    assert get(rtc, 4) == 0x12, "half past midnight is 12 a.m."


def test_set_freezes_and_starts_the_new_time(rtc: Rtc, clock: HandClock) -> None:
    put(rtc, 0x0B, 0x82)
    for index, value in ((0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59)):
        put(rtc, index, value)
    put(rtc, 0, 0x30)
    clock.now = 5 * SECOND
    assert shown(rtc) == "19991231235930"
    put(rtc, 0x0B, 0x02)
    clock.now += 30 * SECOND
    assert shown(rtc) == "20000101000000"


def test_update_in_progress_before_the_second_turns(rtc: Rtc, clock: HandClock) -> None:
    assert not get(rtc, 0x0A) & 0x80
    clock.now = SECOND - 1_000_000
    assert get(rtc, 0x0A) & 0x80
    clock.now = SECOND - 3_000_000
    assert not get(rtc, 0x0A) & 0x80
    clock.now = SECOND
    assert not get(rtc, 0x0A) & 0x80


@pytest.mark.parametrize(
    ("rate", "hz"), [(1, 256), (2, 128), (3, 8192), (6, 1024), (13, 8), (15, 2)]
)
def test_periodic_rates(rtc: Rtc, clock: HandClock, wire: Wire, rate: int, hz: int) -> None:
    put(rtc, 0x0A, 0x20 | rate)
    put(rtc, 0x0B, 0x42)
    get(rtc, 0x0C)
    for tick in range(1, 4):
        event = rtc.next_event()
        assert event == -(-tick * SECOND // hz)
        clock.now = event
        rtc.fire()
        assert wire.level
        assert rtc.next_event() is None, "nobody notices more ticks until register C is read"
        assert get(rtc, 0x0C) & 0xC0 == 0xC0
        assert not wire.level


def test_update_ended_interrupt(rtc: Rtc, clock: HandClock, wire: Wire) -> None:
    put(rtc, 0x0A, 0x20)  # no periodic rate
    put(rtc, 0x0B, 0x12)
    assert rtc.next_event() == SECOND
    clock.now = SECOND
    rtc.fire()
    assert wire.level
    assert get(rtc, 0x0C) == 0x90


def test_flags_rise_without_their_interrupt(rtc: Rtc, clock: HandClock, wire: Wire) -> None:
    clock.now = SECOND
    assert get(rtc, 0x0C) == 0x50, "update and periodic, IRQF clear"
    assert not wire.level
    assert get(rtc, 0x0C) == 0


@pytest.mark.parametrize(
    ("alarm", "seconds"),
    [
        ((0x01, 0x02, 0x03), 3723),
        ((0xFF, 0x00, 0x10), 10),
        ((0xC0, 0xC0, 0xC0), 1),
        ((0x00, 0x00, 0x00), 86_400),
        ((0xFF, 0x30, 0xFF), 1800),
    ],
)
def test_alarm(
    rtc: Rtc, clock: HandClock, wire: Wire, alarm: tuple[int, int, int], seconds: int
) -> None:
    for index, value in zip((5, 3, 1), alarm, strict=True):
        put(rtc, index, value)
    put(rtc, 0x0B, 0x22)
    assert rtc.next_event() == seconds * SECOND
    clock.now = seconds * SECOND - 1
    assert not get(rtc, 0x0C) & 0x20
    clock.now += 1
    rtc.fire()
    assert wire.level
    assert get(rtc, 0x0C) & 0xA0 == 0xA0


def test_an_impossible_alarm_never_comes(rtc: Rtc) -> None:
    put(rtc, 5, 0x99)
    put(rtc, 0x0B, 0x22)
    assert rtc.next_event() is None


def test_leaving_divider_reset_the_first_update_is_half_a_second_later(
    rtc: Rtc, clock: HandClock
) -> None:
    put(rtc, 0x0A, 0x76)
    clock.now = 3 * SECOND
    assert get(rtc, 0) == 0
    put(rtc, 0x0A, 0x26)
    clock.now += SECOND // 2 - 1_000_000
    assert get(rtc, 0) == 0
    clock.now += 2_000_000
    assert get(rtc, 0) == 1


def test_set_clears_the_update_interrupt_enable(rtc: Rtc) -> None:
    put(rtc, 0x0B, 0x92)
    assert get(rtc, 0x0B) == 0x82


def test_memory_sizes_nmi_mask_and_battery(rtc: Rtc) -> None:
    assert get(rtc, 0x15) | get(rtc, 0x16) << 8 == 640
    assert get(rtc, 0x30) | get(rtc, 0x31) << 8 == 0xFFFF
    assert (get(rtc, 0x34) | get(rtc, 0x35) << 8) * 65536 + (16 << 20) == 256 << 20
    assert get(rtc, 0x0D) == 0x80
    assert not rtc.nmi_masked
    put(rtc, 0x8F, 0x0A)
    assert rtc.nmi_masked
    assert get(rtc, 0x0F) == 0x0A, "the shutdown byte is plain memory"
