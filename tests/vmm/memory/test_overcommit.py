"""A host that has promised more memory than it has."""

from hwmodel.mem.ram import PAGE
from hwmodel.timing.clock import Clock
from vmm.experiments.pressure import two_guests
from vmm.memory.guest import GuestMemory
from vmm.memory.overcommit import GuestShare, HostMemory
from vmm.memory.pager import ZEROING, Pager

PAGES = 8


def guest(host: HostMemory) -> tuple[Clock, Pager, GuestShare]:
    clock, memory = Clock(), GuestMemory(((0, 16 * PAGE),))
    pager = Pager(clock, memory)
    return clock, pager, host.admit(memory, pager, 4 * PAGE, PAGES * PAGE)


def touch(clock: Clock, pager: Pager, page: int) -> int:
    """An access: how many cycles it waits."""
    began = clock.now
    pager.request(page)
    event = pager.next_event()
    assert event is not None
    clock.now = event
    pager.fire()
    return clock.now - began


def test_what_was_never_touched_needs_no_disk() -> None:
    host = HostMemory(6)
    clock, pager, share = guest(host)
    waits = [touch(clock, pager, page) for page in share.range]
    assert waits == [ZEROING] * PAGES
    assert (share.swapped_out, len(share.resident)) == (2, 6)  # the first two made room
    assert touch(clock, pager, share.range[0]) == pager.latency
    assert (share.swapped_in, share.swapped_out) == (1, 3)


def test_the_gauge_follows_what_all_want() -> None:
    host = HostMemory(8)
    told: list[float] = []
    host.changed.append(lambda: told.append(host.pressure))
    one, other = guest(host), guest(host)
    for page in one[2].range:
        touch(*one[:2], page)
    assert host.pressure == 0.5
    touch(*other[:2], other[2].range[0])
    assert host.pressure > 0.5
    assert other[2].give(other[2].range[0])
    assert not other[2].give(other[2].range[0])
    assert not other[2].give(0)
    assert host.pressure == 0.5
    for page in other[2].range[:3]:
        touch(*other[:2], page)
    assert host.pressure == 1
    assert not one[2].take(one[2].range[0])
    assert told == sorted(set(told[:3])) + told[3:]


def test_the_balloon_wants_the_same_of_all() -> None:
    host = HostMemory(8)
    one, other = guest(host), guest(host)
    assert one[2].target() == 0
    for page in one[2].range:
        touch(*one[:2], page)
    touch(*other[:2], other[2].range[0])
    assert (one[2].target(), other[2].target()) == (4, 0)


def test_a_guest_that_reads_the_gauge_is_not_swapped() -> None:
    greedy, gauge = (two_guests(way, 400, rounds=8) for way in (0, 2))
    assert greedy.correct
    assert gauge.correct
    assert gauge.swapped_in < greedy.swapped_in / 10
    assert sum(gauge.times) < sum(greedy.times)
