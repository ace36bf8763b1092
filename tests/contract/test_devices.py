"""One suite for every device: garbage in, hardware-like answers out, and a state that round-trips.

The accesses come from a seeded generator, so that a failure can be repeated.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from vmm.devices.device import Device
from vmm.devices.platform import Board, Outputs, build_board
from vmm.errors import UsageError

ACCESSES = 2_000
SPANS = {
    "pic": (6, 1),
    "pit": (5, 1),
    "rtc": (2, 1),
    "serial": (8, 1),
    "i8042": (8, 1),
    "vga": (32, 1),
    "post": (1, 1),
    "port92": (1, 1),
    "acpi-pm": (12, 4),
    "pci-ports": (8, 4),
    "pci-ecam": (0x100000, 8),
    "pci-host": (256, 8),
    "debugcon": (1, 1),
    "exitport": (4, 4),
    "fwcfg": (2, 2),
    "shutdown": (1, 1),
    "testdev": (0x28, 4),
    "testmem": (0x10000, 8),
    "ioapic": (0x1000, 8),
    "lapic0": (0x1000, 8),
    "lapic1": (0x1000, 8),
}
"""Device -> how many offsets it answers at, and its widest access."""


@dataclass
class HandClock:
    now: int = 12_345
    frequency: int = 2_500_000_000


def make_board(clock: HandClock | None = None) -> Board:
    return build_board(clock or HandClock(), cpus=2, x2apic=True, outputs=Outputs())


def device_of(board: Board, name: str) -> Device:
    return next(device for device in board.devices() if device.name == name)


def test_the_table_names_every_device() -> None:
    assert sorted(device.name for device in make_board().devices()) == sorted(SPANS)


def hammer(
    device: Device, clock: HandClock, seed: int, after_each: Callable[[], None] = lambda: None
) -> None:
    """Access at random, let time pass, and keep the promises about events."""
    dice = random.Random(seed)
    span, widest = SPANS[device.name]
    for _ in range(ACCESSES):
        size = dice.choice([s for s in (1, 2, 4, 8) if s <= widest])
        offset = dice.randrange(span)
        if span > 0x100 and dice.random() < 0.9:
            offset = offset & 0x3F0  # where an APIC has its registers
        if dice.random() < 0.5:
            assert 0 <= device.read(offset, size) < 1 << 8 * size
        else:
            value = dice.choice((dice.getrandbits(8 * size), dice.getrandbits(8), 0))
            device.write(offset, size, value)
        clock.now += dice.choice((0, 1, 40, 3_000, 2_000_000, 5_000_000_000))
        settle(device, clock)
        after_each()


def settle(device: Device, clock: HandClock) -> None:
    """What is due fires once, and is then not due any more."""
    event = device.next_event()
    if event is not None and event <= clock.now:
        device.fire()
        event = device.next_event()
        assert event is None or event > clock.now, (device.name, event, clock.now)


@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_garbage_never_breaks_a_device(name: str, seed: int) -> None:
    clock = HandClock()
    hammer(device_of(make_board(clock), name), clock, seed)


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

    hammer(device, clock, 4, jump)


@pytest.mark.parametrize("name", SPANS)
def test_save_restore_save_is_the_same(name: str) -> None:
    clock = HandClock()
    board = make_board(clock)
    device = device_of(board, name)
    hammer(device, clock, 5)
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
    hammer(first, one, 6)
    second = device_of(make_board(two), name)
    two.now = one.now
    second.restore(first.save())
    hammer(first, one, 7)
    hammer(second, two, 7)
    assert first.save() == second.save()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_whole_board_survives_random_ports_and_round_trips(seed: int) -> None:
    clock = HandClock()
    board = make_board(clock)
    dice = random.Random(seed)
    ports = [0x20, 0xA0, 0x40, 0x61, 0x70, 0x3F8, 0x60, 0x80, 0xE0, 0xF4, 0x510, 0x2000, 0x4D0]
    for _ in range(ACCESSES):
        port = dice.choice(ports) + dice.randrange(8)
        size = dice.choice((1, 2, 4))
        if dice.random() < 0.3:
            assert 0 <= board.ports.read(port, size) < 1 << 8 * size
        else:
            board.ports.write(port, size, dice.getrandbits(8 * size))
        clock.now += dice.choice((0, 100, 100_000))
        event = board.next_event()
        if event is not None and event <= clock.now:
            board.fire()
        for lapic in board.lapics:
            if lapic.interrupt_pending():
                assert 0 <= lapic.acknowledge() <= 255
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


MSRS = [0x1B, 0x6E0, *range(0x7FF, 0x901)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_local_apic_survives_random_msr_accesses(seed: int) -> None:
    clock = HandClock()
    board = make_board(clock)
    lapic = board.lapics[0]
    dice = random.Random(seed)
    for _ in range(ACCESSES):
        index = dice.choice(MSRS)
        value = dice.choice((0, 0xFEE0_0D00, dice.getrandbits(9), dice.getrandbits(64)))
        if dice.random() < 0.5:
            answer = lapic.read_msr(index)
            assert answer is None or 0 <= answer < 1 << 64
        else:
            lapic.write_msr(index, value)
        clock.now += dice.choice((0, 1, 1000))
        settle(lapic, clock)
        if lapic.interrupt_pending():
            lapic.acknowledge()
