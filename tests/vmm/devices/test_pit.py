"""Facts from the 8254 data sheet, "Mode Definitions" and "Read-Back Command"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmm.devices.i8254 import Counter
from vmm.devices.pit import PIT_HZ, Pit

if TYPE_CHECKING:
    from tests.vmm.devices.conftest import HandClock, Wire

CONTROL, PORT_B = 3, 4


def wave(counter: Counter, first: int, count: int) -> str:
    """OUT over `count` ticks as a string of 0 and 1."""
    return "".join(str(int(counter.output(tick))) for tick in range(first, first + count))


def programmed(mode: int, count: int, *, bcd: bool = False) -> Counter:
    """A counter with an 8-bit count written at tick 0."""
    counter = Counter()
    counter.control(0x10 | mode << 1 | bcd, 0)
    counter.write(count, 0)
    return counter


def test_mode_0_goes_high_n_plus_1_ticks_after_the_write() -> None:
    assert wave(programmed(0, 4), 0, 8) == "00000111"


def test_mode_0_gate_suspends() -> None:
    counter = programmed(0, 4)
    counter.set_gate(False, 3)
    assert [counter.count(tick) for tick in (3, 9)] == [2, 2]
    counter.set_gate(True, 10)
    assert wave(counter, 10, 4) == "0011"


def test_mode_1_is_started_by_the_gate_and_retriggered() -> None:
    counter = Counter()
    counter.set_gate(False, 0)
    counter.control(0x12, 0)
    counter.write(3, 0)
    assert wave(counter, 0, 5) == "11111"
    counter.set_gate(True, 5)
    assert wave(counter, 5, 6) == "100011"
    counter.set_gate(False, 6)
    counter.set_gate(True, 7)
    assert wave(counter, 7, 6) == "000011", "three more ticks from the load at 8"


def test_mode_2_is_low_for_the_last_tick_of_each_period() -> None:
    assert wave(programmed(2, 3), 0, 10) == "1110110110"
    counter = programmed(2, 3)
    assert [counter.count(tick) for tick in range(1, 8)] == [3, 2, 1, 3, 2, 1, 3]


@pytest.mark.parametrize(("count", "expected"), [(4, "1" + "1100" * 3), (5, "1" + "11100" * 3)])
def test_mode_3_square_wave_even_and_odd(count: int, expected: str) -> None:
    assert wave(programmed(3, count), 0, len(expected)) == expected


def test_mode_3_counts_by_two() -> None:
    even, odd = programmed(3, 4), programmed(3, 5)
    assert [even.count(tick) for tick in range(1, 9)] == [4, 2, 4, 2, 4, 2, 4, 2]
    assert [odd.count(tick) for tick in range(1, 11)] == [4, 2, 0, 4, 2, 4, 2, 0, 4, 2]


def test_mode_4_strobes_once() -> None:
    assert wave(programmed(4, 3), 0, 8) == "11110111"


def test_mode_5_strobes_after_the_trigger() -> None:
    counter = Counter()
    counter.set_gate(False, 0)
    counter.control(0x1A, 0)
    counter.write(3, 0)
    counter.set_gate(True, 2)
    assert wave(counter, 0, 9) == "111111011"


def test_new_count_waits_for_the_period_in_mode_2() -> None:
    counter = programmed(2, 4)
    counter.write(2, 2)
    assert wave(counter, 1, 8) == "11101010"


def test_new_count_waits_for_the_half_period_in_mode_3() -> None:
    counter = programmed(3, 8)
    counter.write(4, 2)
    assert wave(counter, 1, 12) == "111100110011"


def test_gate_low_stops_mode_2_high_and_rising_reloads() -> None:
    counter = programmed(2, 3)
    counter.set_gate(False, 3)
    assert wave(counter, 3, 5) == "11111"
    counter.set_gate(True, 10)
    assert wave(counter, 10, 5) == "11101"


def test_bcd_count() -> None:
    counter = programmed(0, 0x25, bcd=True)
    assert [counter.count(tick) for tick in (1, 2, 7, 26, 27)] == [0x25, 0x24, 0x19, 0, 0x9999]


def test_count_of_zero_is_the_largest() -> None:
    assert programmed(2, 0).reload == 0x10000
    assert programmed(2, 0, bcd=True).reload == 10_000


def test_latch_holds_until_both_bytes_are_read(clock: HandClock, wire: Wire) -> None:
    pit = Pit(clock, wire)
    pit.write(CONTROL, 1, 0x34)
    for byte in (0x34, 0x12):
        pit.write(0, 1, byte)
    clock.now = 100_000  # 119 ticks
    pit.write(CONTROL, 1, 0x00)
    clock.now = 500_000
    latched = pit.read(0, 1) | pit.read(0, 1) << 8
    assert latched == 0x1234 - (119 - 1)
    assert (pit.read(0, 1) | pit.read(0, 1) << 8) < latched


def test_read_back_status_then_count(clock: HandClock, wire: Wire) -> None:
    pit = Pit(clock, wire)
    pit.write(CONTROL, 1, 0x36)
    pit.write(CONTROL, 1, 0xC2)  # latch count and status of counter 0
    assert pit.read(0, 1) == 0x80 | 0x40 | 0x36, "OUT high, null count, mode 3 both bytes"
    pit.write(0, 1, 0)
    pit.write(0, 1, 0)
    clock.now = 2_000
    pit.read(0, 1)
    pit.read(0, 1)
    pit.write(CONTROL, 1, 0xE2)  # status only
    assert pit.read(0, 1) & 0x7F == 0x36


def test_mode_2_interrupts_at_the_exact_cycle_of_each_period(clock: HandClock, wire: Wire) -> None:
    pit = Pit(clock, wire)
    pit.write(CONTROL, 1, 0x34)
    for byte in (0xA9, 0x04):  # 1193: about 1 kHz
        pit.write(0, 1, byte)
    wire.edges = 0
    for period in range(1, 6):
        event = pit.next_event()
        assert event == -(-(1 + 1193 * period) * 1_000_000_000 // PIT_HZ)
        clock.now = event
        pit.fire()
        assert wire.edges == period


def test_late_firing_counts_once_and_keeps_the_phase(clock: HandClock, wire: Wire) -> None:
    pit = Pit(clock, wire)
    pit.write(CONTROL, 1, 0x14)
    pit.write(0, 1, 100)
    wire.edges = 0
    clock.now = 10**9
    pit.fire()
    assert wire.edges == 1
    event = pit.next_event()
    assert event is not None
    tick = event * PIT_HZ // 10**9
    assert (tick - 1) % 100 == 0
    assert 0 < event - clock.now <= 100 * 10**9 // PIT_HZ + 1


def test_one_shot_mode_0_raises_the_line_once(clock: HandClock, wire: Wire) -> None:
    pit = Pit(clock, wire)
    pit.write(CONTROL, 1, 0x30)
    assert not wire.level
    for byte in (10, 0):
        pit.write(0, 1, byte)
    clock.now = pit.next_event() or 0
    assert clock.now == -(-11 * 10**9 // PIT_HZ)
    pit.fire()
    assert wire.level
    assert pit.next_event() is None


def test_port_61_gates_counter_2_and_shows_its_output(clock: HandClock, wire: Wire) -> None:
    pit = Pit(clock, wire)
    pit.write(CONTROL, 1, 0xB0)
    for byte in (0x0B, 0x00):
        pit.write(2, 1, byte)
    clock.now = 10**6
    assert not pit.read(PORT_B, 1) & 0x20, "the gate is low: it does not count"
    pit.write(PORT_B, 1, 0x01)
    assert pit.read(PORT_B, 1) & 0x0F == 0x01
    clock.now += 20 * 1000
    assert pit.read(PORT_B, 1) & 0x20


def test_refresh_bit_toggles(clock: HandClock, wire: Wire) -> None:
    pit = Pit(clock, wire)
    seen = []
    for _ in range(8):
        seen.append(pit.read(PORT_B, 1) & 0x10)
        clock.now += 15_100
    assert set(seen) == {0, 0x10}
