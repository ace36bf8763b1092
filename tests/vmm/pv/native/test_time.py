"""The time page and timers, on a clock that the test moves."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vmm.pv.native.room import Room
from vmm.pv.native.abi import FOREVER, TIME_PAGE, Call, Error, Feature, PageKind
from vmm.pv.native.parts import PARTS
from vmm.pv.native.timers import LEAST_NS, MOST

PAGES = (0x2000, 0x2040)
AT = TIME_PAGE.offsets
MASK64 = (1 << 64) - 1


@pytest.fixture
def room() -> Room:
    return fresh()


def fresh() -> Room:
    room = Room(parts=PARTS)
    room.use(Feature.TIME_PAGE, Feature.TIMER, Feature.TIMER_SLACK)
    for cpu, gpa in enumerate(PAGES):
        assert room.call(Call.SET_PAGE, PageKind.TIME, gpa, cpu=cpu) == 0
    return room


def guest_time(room: Room, cpu: int) -> int:
    """What guest_kernel/pv/clock.h computes, in C's widths."""
    gpa = PAGES[cpu]
    tsc = room.machine.clock.tsc() + room.cpus[cpu].offset & MASK64
    ticks = tsc - room.memory(gpa + AT["tsc"], 8) & MASK64
    shift = room.memory(gpa + AT["shift"], 1)
    shift -= 256 if shift > 127 else 0
    ticks = ticks << shift & MASK64 if shift >= 0 else ticks >> -shift
    return room.memory(gpa + AT["ns"], 8) + (ticks * room.memory(gpa + AT["mul"], 4) >> 32) & MASK64


@given(
    st.lists(
        st.tuples(
            st.integers(1_000_000, 100_000_000_000), st.integers(1, 10**10), st.integers(0, 1)
        ),
        min_size=1,
        max_size=12,
    )
)
def test_frequencies_come_and_go(changes: list[tuple[int, int, int]]) -> None:
    """Never early, hardly late, never back: whatever rates there are, for however long."""
    room, clock, latest = fresh(), None, 0
    clock = room.machine.clock
    for hz, cycles, cpu in changes:
        clock.now += cycles
        seen = guest_time(room, cpu)
        assert latest <= seen <= clock.ns()
        assert clock.ns() - seen <= 1000 + (clock.ns() >> 31)
        latest = seen
        clock.set_frequency(hz)
        assert room.native.hooks.rate_changed is not None
        room.native.hooks.rate_changed()
        assert latest <= guest_time(room, 1 - cpu) <= clock.ns()


def test_a_written_tsc_moves_no_time(room: Room) -> None:
    room.machine.clock.now += 10**9
    before = guest_time(room, 0)
    room.cpus[0].offset = -12345
    assert room.native.hooks.tsc_changed is not None
    room.native.hooks.tsc_changed(room.cpus[0])
    assert guest_time(room, 0) == guest_time(room, 1) == before


def test_the_referee_sees_a_guest_that_writes_its_page(room: Room) -> None:
    room.poke(PAGES[1] + AT["mul"], 4, 1)
    assert room.look(cpu=0) == []
    assert room.look(cpu=1) == ["WRITES_SHARED"]
    room.poke(PAGES[0], 4, 7)
    assert room.look(cpu=0) == ["WRITES_SHARED", "ODD_VERSION"]


def test_the_referee_sees_a_hypervisor_whose_time_is_off(room: Room) -> None:
    """A rate that changes and is not told: the page runs at the wrong rate from then on."""
    clock = room.machine.clock
    clock.now += 1_000_000
    assert room.look() == []
    clock.set_frequency(clock.frequency // 2)
    clock.now += 1_000_000
    assert room.look() == ["TIME_BACKWARDS"]


def fire_all(room: Room) -> list[tuple[int, int]]:
    """Run to the end of all timers: (ns, vector) of what came to processor 0."""
    came: list[tuple[int, int]] = []
    assert room.native.events is not None
    while (event := room.native.events.next_event()) is not None:
        clock = room.machine.clock
        clock.now = max(clock.now, event)
        before = len(room.cpus[0].did)
        room.native.events.fire()
        news = [did for did in room.cpus[0].did[before:] if isinstance(did, tuple)]
        came += [(clock.ns(), did[1]) for did in news]
    return came


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**6)), min_size=1, max_size=30))
def test_slack_is_kept_and_nothing_is_early(timers: list[tuple[int, int]]) -> None:
    room = fresh()
    for number, (deadline, slack) in enumerate(timers):
        assert room.call(Call.SET_TIMER, deadline, slack, 0x40 + number) == 0
    came = {vector: ns for ns, vector in fire_all(room)}
    assert len(came) == len(timers)
    for number, (deadline, slack) in enumerate(timers):
        assert deadline <= came[0x40 + number] <= deadline + slack + LEAST_NS + 1
    moments = sorted(set(came.values()))
    assert all(b - a >= LEAST_NS for a, b in itertools.pairwise(moments))


def test_one_waits_for_the_other(room: Room) -> None:
    room.call(Call.SET_TIMER, 100_000, 500_000, 0x40)
    room.call(Call.SET_TIMER, 300_000, 0, 0x41)
    assert fire_all(room) == [(300_000, 0x40), (300_000, 0x41)]


def test_errors(room: Room) -> None:
    assert room.call(Call.SET_TIMER, 0, 0, 31) == -Error.BAD_ARGUMENT
    for vector in range(0x40, 0x40 + MOST):
        assert room.call(Call.SET_TIMER, FOREVER - 1, FOREVER, vector) == 0
    assert room.call(Call.SET_TIMER, 0, 0, 0xFF) == -Error.LIMIT
    assert room.call(Call.SET_TIMER, 0, 0, 0xFF, cpu=1) == 0
    room.native.reset(1)
    saved = room.native.save()
    other = Room(parts=PARTS)
    other.native.restore(saved)
    assert other.native.save() == saved
    assert room.call(Call.ACK_INTERRUPT, 0x40) == -Error.BAD_ARGUMENT
    room.cpus[0].serving = 0x40
    assert room.call(Call.ACK_INTERRUPT, 0x40) == 0
    assert room.cpus[0].did[-1] == "eoi"
