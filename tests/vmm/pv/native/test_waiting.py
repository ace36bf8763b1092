"""Sleeping on a value and waking: every outcome, with processors that only remember."""

import pytest

from tests.vmm.pv.native.room import Room
from vmm.pv.native.abi import FOREVER, Call, Error, Feature

WORD = 0x2000


@pytest.fixture
def room() -> Room:
    made = Room()
    made.use(Feature.YIELD, Feature.WAIT_WAKE)
    return made


def test_sleeps_only_if_the_value_is_still_there(room: Room) -> None:
    room.poke(WORD, 4, 7)
    assert room.call(Call.WAIT_ON_VALUE, WORD, 6, FOREVER) == -Error.CHANGED
    assert not room.cpus[0].waiting
    assert room.call(Call.WAIT_ON_VALUE, WORD, 7, FOREVER) == 0
    assert room.cpus[0].waiting


def test_only_32_bits_are_compared(room: Room) -> None:
    room.poke(WORD, 8, 0xFFFF_FFFF_0000_0007)
    assert room.call(Call.WAIT_ON_VALUE, WORD, 0x5_0000_0007, FOREVER) == 0


def test_the_broken_one_sleeps_whatever_is_there(room: Room) -> None:
    room.poke(WORD, 4, 7)
    assert room.call(Call.CHECK_THEN_SLEEP, WORD, FOREVER) == 0
    assert room.cpus[0].waiting


def test_wake_counts_and_goes_by_address(room: Room) -> None:
    assert room.call(Call.WAKE, WORD, FOREVER) == 0, "nobody sleeps"
    room.call(Call.WAIT_ON_VALUE, WORD, 0, FOREVER, cpu=0)
    room.call(Call.WAIT_ON_VALUE, WORD + 4, 0, FOREVER, cpu=1)
    assert room.call(Call.WAKE, WORD, 0) == 0
    assert room.call(Call.WAKE, WORD, 5) == 1
    assert room.cpus[0].did[-1] == ("end", 0)
    assert room.cpus[1].waiting


def test_first_come_first_woken(room: Room) -> None:
    for cpu in (1, 0):
        room.call(Call.WAIT_ON_VALUE, WORD, 0, FOREVER, cpu=cpu)
    assert room.call(Call.WAKE, WORD, 1) == 1
    assert room.cpus[0].waiting
    assert not room.cpus[1].waiting


def test_who_was_interrupted_is_not_woken_again(room: Room) -> None:
    room.call(Call.WAIT_ON_VALUE, WORD, 0, FOREVER, cpu=1)
    room.cpus[1].waiting = False  # an interrupt
    assert room.call(Call.WAKE, WORD, 1) == 0


def test_who_has_an_interrupt_does_not_sleep(room: Room) -> None:
    room.cpus[0].event = True
    assert room.call(Call.WAIT_ON_VALUE, WORD, 0, FOREVER) == -Error.INTERRUPTED


def test_time_outs_are_the_dialects_events(room: Room) -> None:
    clock = room.machine.clock
    room.call(Call.WAIT_ON_VALUE, WORD, 0, 1000, cpu=0)
    room.call(Call.WAIT_ON_VALUE, WORD, 0, 400, cpu=1)
    events = room.native.events
    assert events is not None
    first = events.next_event()
    assert first is not None
    assert clock.ns_at(first) >= 400 > clock.ns_at(first - 1) - 1
    clock.now = first
    events.fire()
    assert room.cpus[1].did[-1] == ("end", -Error.TIMED_OUT)
    assert room.cpus[0].waiting
    assert events.next_event() is not None
    assert room.call(Call.WAKE, WORD, FOREVER) == 1
    assert events.next_event() is None


@pytest.mark.parametrize("call", [Call.WAIT_ON_VALUE, Call.CHECK_THEN_SLEEP, Call.WAKE])
def test_wild_addresses_are_errors(room: Room, call: Call) -> None:
    assert room.call(call, WORD + 2, 0, FOREVER) == -Error.MISALIGNED
    assert room.call(call, 1 << 40, 0, FOREVER) == -Error.BAD_ADDRESS
    assert not room.cpus[0].waiting


def test_yield(room: Room) -> None:
    assert room.call(Call.YIELD, 1) == 0
    assert room.call(Call.YIELD, FOREVER) == 0
    assert room.cpus[0].did == [("yield", 1), "yield"]
    assert room.call(Call.YIELD, 2) == -Error.BAD_ARGUMENT


def test_all_get_up_when_the_feature_goes(room: Room) -> None:
    room.call(Call.WAIT_ON_VALUE, WORD, 0, FOREVER, cpu=1)
    for part in room.native.parts.values():
        part.released(Feature.WAIT_WAKE)
    assert room.cpus[1].did[-1] == ("end", -Error.NOT_ACTIVE)


def test_sleepers_are_part_of_the_state(room: Room) -> None:
    room.call(Call.WAIT_ON_VALUE, WORD, 0, FOREVER, cpu=1)
    state = room.native.save()
    room.call(Call.WAKE, WORD, 1)
    room.native.restore(state)
    room.cpus[1].waiting = True
    assert room.call(Call.WAKE, WORD, 1) == 1
