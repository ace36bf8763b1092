"""One suite for every device: garbage in, hardware-like answers out, and a state that round-trips.

The accesses come from a seeded generator, so that a failure can be repeated.
"""

import pytest

from tests.contract.hammer import (
    SPANS,
    HandClock,
    device_of,
    hammer,
    hammer_board,
    hammer_msrs,
    make_board,
)
from vmm.errors import UsageError

ACCESSES = 2_000


def test_the_table_names_every_device() -> None:
    assert sorted(device.name for device in make_board().devices()) == sorted(SPANS)


@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_garbage_never_breaks_a_device(name: str, seed: int) -> None:
    clock = HandClock()
    hammer(device_of(make_board(clock), name), clock, seed, ACCESSES)


@pytest.mark.parametrize("name", SPANS)
def test_an_event_fires_at_its_own_time(name: str) -> None:
    """Jump to each announced event exactly: the device must agree that it is due."""
    clock = HandClock()
    device = device_of(make_board(clock), name)

    def jump() -> None:
        event = device.next_event()
        if event is not None and event < clock.now + 10**15:
            clock.now = event
            device.fire()
            later = device.next_event()
            assert later is None or later > clock.now

    hammer(device, clock, 4, ACCESSES, jump)


@pytest.mark.parametrize("name", SPANS)
def test_save_restore_save_is_the_same(name: str) -> None:
    clock = HandClock()
    board = make_board(clock)
    device = device_of(board, name)
    hammer(device, clock, 5, ACCESSES)
    saved = device.save()
    assert saved["version"] == 1
    assert all(type(value) in (int, bytes, list) for value in saved.values()), saved
    other = device_of(make_board(clock), name)
    other.restore(saved)
    assert other.save() == saved
    assert other.next_event() == device.next_event()


@pytest.mark.parametrize("name", SPANS)
def test_a_restored_device_behaves_the_same(name: str) -> None:
    """Same accesses after the same state: same answers."""
    one, two = HandClock(), HandClock()
    first = device_of(make_board(one), name)
    hammer(first, one, 6, ACCESSES)
    second = device_of(make_board(two), name)
    two.now = one.now
    second.restore(first.save())
    hammer(first, one, 7, ACCESSES)
    hammer(second, two, 7, ACCESSES)
    assert first.save() == second.save()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_whole_board_survives_random_accesses_and_round_trips(seed: int) -> None:
    clock = HandClock()
    board = make_board(clock)
    hammer_board(board, clock, seed, ACCESSES)
    saved = board.save()
    other = make_board(clock)
    other.restore(saved)
    assert other.save() == saved
    assert other.next_event() == board.next_event()
    assert other.pic.pending() == board.pic.pending()


def test_another_version_is_refused_in_one_line() -> None:
    board = make_board()
    state = board.serial.save() | {"version": 99}
    with pytest.raises(UsageError, match=r"'serial'.*99"):
        board.serial.restore(state)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_local_apic_survives_random_msr_accesses(seed: int) -> None:
    clock = HandClock()
    hammer_msrs(make_board(clock), clock, seed, ACCESSES)
