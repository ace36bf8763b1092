"""The contract: a feature's life, its page, its revocation, and the referee over both sides."""

import pytest

from tests.vmm.pv.native.room import Everything, Room
from vmm.pv.native.abi import (
    CONTRACT_PAGE,
    NOWHERE,
    TAG,
    Call,
    Error,
    Feature,
    FeatureState,
    Notice,
    PageKind,
)
from vmm.pv.native.contract import GRACE_NS

PAGE = 0x2000
AT = CONTRACT_PAGE.offsets
VECTOR = 0x60
S = FeatureState


@pytest.fixture
def room() -> Room:
    room = Room(parts=(Everything,))
    assert room.call(Call.SET_PAGE, PageKind.CONTRACT, PAGE) == 0
    return room


def mask(room: Room, name: str) -> int:
    return room.memory(PAGE + AT[name], 8)


def state(room: Room, feature: Feature) -> FeatureState:
    return FeatureState(room.call(Call.CONTRACT_STATE, feature))


def test_a_life(room: Room) -> None:
    assert state(room, Feature.TIMER) is S.OFFERED
    assert room.call(Call.CONTRACT_ACCEPT, Feature.TIMER, 1) == 0
    assert state(room, Feature.TIMER) is S.ACCEPTED
    assert (mask(room, "accepted"), mask(room, "active")) == (1 << Feature.TIMER, 0)
    assert room.call(Call.CONTRACT_ACTIVATE, 1 << Feature.TIMER) == 0
    assert mask(room, "active") == 1 << Feature.TIMER
    assert room.call(Call.SET_VECTOR, Notice.REVOCATION, VECTOR) == 0
    assert room.native.contract.revoke(Feature.TIMER) is S.REVOKING
    assert room.cpus[0].did == [(0, VECTOR)]
    assert mask(room, "revoking") == mask(room, "active") == 1 << Feature.TIMER
    assert room.native.contract.works(Feature.TIMER)  # until the guest lets it go
    assert room.call(Call.CONTRACT_ACKNOWLEDGE, Feature.TIMER) == 0
    assert not room.native.contract.works(Feature.TIMER)
    assert mask(room, "revoked") == 1 << Feature.TIMER
    assert room.call(Call.CONTRACT_ACCEPT, Feature.TIMER, 1) == -Error.BAD_STATE
    assert room.native.contract.offer(Feature.TIMER)
    room.use(Feature.TIMER)
    assert room.look() == []


def test_what_nobody_uses_goes_at_once(room: Room) -> None:
    assert room.native.contract.revoke(Feature.RING) is S.REVOKED
    assert room.call(Call.CONTRACT_ACCEPT, Feature.RING, 1) == -Error.BAD_STATE
    assert room.call(Call.CONTRACT_ACCEPT, Feature.NUMA, 1) == 0
    assert room.native.contract.revoke(Feature.NUMA) is S.REVOKED
    assert room.call(Call.CONTRACT_ACTIVATE, 1 << Feature.NUMA) == -Error.BAD_STATE


def test_a_mask_is_all_or_nothing(room: Room) -> None:
    assert room.call(Call.CONTRACT_ACCEPT, Feature.NUMA, 1) == 0
    both = 1 << Feature.NUMA | 1 << Feature.RING
    assert room.call(Call.CONTRACT_ACTIVATE, both) == -Error.BAD_STATE
    assert state(room, Feature.NUMA) is S.ACCEPTED
    assert room.call(Call.CONTRACT_ACTIVATE, 0) == -Error.BAD_ARGUMENT
    assert room.call(Call.CONTRACT_ACTIVATE, 1 << 63) == -Error.BAD_ARGUMENT


def test_one_who_never_acknowledges_breaks_a_rule_once_and_keeps_the_feature(room: Room) -> None:
    room.use(Feature.TIMER)
    room.native.contract.revoke(Feature.TIMER)
    clock = room.machine.clock
    clock.now += clock.cycles_of_ns(GRACE_NS) - 1
    assert room.look() == []
    clock.now += 1
    assert room.native.contract.overdue() == [Feature.TIMER]
    assert room.look() == ["LATE_ACKNOWLEDGEMENT"]
    clock.now += 10 * GRACE_NS
    assert room.look() == ["LATE_ACKNOWLEDGEMENT"]
    assert room.native.contract.works(Feature.TIMER)
    breach = room.native.referee.breaches[0]
    assert (breach.cpu, breach.rip) == (0, 0x1000)
    assert "TIMER" in str(breach)
    assert "RIP 0x1000" in str(breach)


def test_a_guest_that_writes_the_contract_page(room: Room) -> None:
    room.poke(PAGE + AT["active"], 8, 1 << Feature.TIMER)
    assert room.look(cpu=1) == ["WRITES_SHARED"]
    assert room.native.referee.breaches[0].cpu == 1
    assert mask(room, "active") == 0
    assert room.look() == ["WRITES_SHARED"]  # put right


def test_a_hypervisor_that_withdraws_what_is_active(room: Room) -> None:
    """The host's side is judged too: a bug that takes a feature away is seen at the next exit."""
    room.use(Feature.TIMER)
    room.native.contract.state[Feature.TIMER] = S.OFFERED
    assert "WITHDRAWN" in room.look()


def test_calls_of_features_that_are_not_active(room: Room) -> None:
    assert room.call(Call.SET_TIMER, 0, 0, 0x50) == -Error.NOT_OFFERED  # no part has the call
    assert room.raw(TAG + 0xFFF) == -Error.NO_CALL
    assert room.raw(TAG - 1) == -Error.NO_CALL
    assert room.call(Call.SET_PAGE, PageKind.TIME, 0x3000) == -Error.NOT_ACTIVE
    assert room.rules() == ["INACTIVE_CALL", "UNKNOWN_CALL", "UNKNOWN_CALL", "INACTIVE_CALL"]


def test_pages_do_not_overlap(room: Room) -> None:
    room.use(Feature.TIME_PAGE, Feature.STEAL_TIME)
    time, steal = PageKind.TIME, PageKind.STEAL
    assert room.call(Call.SET_PAGE, time, PAGE + 64) == -Error.OVERLAP
    assert room.call(Call.SET_PAGE, time, PAGE + 128) == 0
    assert room.call(Call.SET_PAGE, time, PAGE + 128, cpu=1) == -Error.OVERLAP
    assert room.call(Call.SET_PAGE, steal, PAGE + 128) == -Error.OVERLAP
    assert room.call(Call.SET_PAGE, time, NOWHERE) == 0
    assert room.call(Call.SET_PAGE, steal, PAGE + 128) == 0
    assert room.call(Call.SET_PAGE, time, 16 * 4096) == -Error.BAD_ADDRESS
    assert room.call(Call.SET_PAGE, time, PAGE + 8) == -Error.MISALIGNED


def test_a_feature_that_goes_leaves_its_page_alone(room: Room) -> None:
    room.use(Feature.TIME_PAGE)
    assert room.call(Call.SET_PAGE, PageKind.TIME, 0x3000, cpu=1) == 0
    room.native.contract.revoke(Feature.TIME_PAGE)
    assert room.native.pages.area(PageKind.TIME, 1) is not None
    assert room.call(Call.CONTRACT_ACKNOWLEDGE, Feature.TIME_PAGE) == 0
    assert room.native.pages.area(PageKind.TIME, 1) is None


def test_vectors(room: Room) -> None:
    assert room.call(Call.SET_VECTOR, 99, 0x60) == -Error.BAD_ARGUMENT
    assert room.call(Call.SET_VECTOR, 0, 15) == -Error.BAD_ARGUMENT
    assert room.call(Call.SET_VECTOR, 0, 256) == -Error.BAD_ARGUMENT


def test_written_down_and_taken_up(room: Room) -> None:
    room.use(Feature.TIMER, Feature.RING)
    room.call(Call.SET_VECTOR, Notice.REVOCATION, VECTOR)
    room.native.contract.revoke(Feature.RING)
    saved = room.native.save()
    other = Room(parts=(Everything,))
    other.native.restore(saved)
    assert other.native.save() == saved
    assert other.native.contract.works(Feature.RING)
    other.native.reset(0)
    assert other.native.save() == Room(parts=(Everything,)).native.save()


def test_cpuid_offers_what_can_be_accepted(room: Room) -> None:
    base = 0x4000_0100
    assert room.native.leaves(base)[base + 1].ebx == (1 << len(Feature)) - 1
    assert room.native.leaves(base)[base].eax == base + 3
