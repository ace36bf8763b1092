"""Random accesses to devices, from a seed; what every device promises is asserted on the way.

`python -m tests.contract.hammer [SEQUENCES]` runs the full number on each device, 100,000 sequences
of five accesses by default, and says how long each took; `make test` runs a few thousand accesses.
"""

import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from hwmodel.timing.clock import Clock
from tests.vmm.devices.pci.card import Card
from vmm.boardmap import ECAM, WAKEUP_MAILBOX
from vmm.devices.device import Device
from vmm.devices.platform import Board, Outputs, build_board

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
    "card": (256, 8),
    "wakeup": (0x1000, 8),
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

CARD_SLOT = 3
PLACES: dict[str, Callable[[random.Random], int]] = {
    "ioapic": lambda dice: dice.choice((0x00, 0x10)),
    "lapic0": lambda dice: dice.randrange(0x40) << 4,
    "lapic1": lambda dice: dice.randrange(0x40) << 4,
    "wakeup": lambda dice: dice.randrange(16),
    "pci-ecam": lambda dice: dice.choice((0, CARD_SLOT)) << 15 | dice.randrange(256),
}
"""Where the registers of a large range are; one access in ten goes anywhere."""

PORTS = (
    *(0x20, 0xA0, 0x40, 0x61, 0x70, 0x3F8, 0x60, 0x64, 0x80, 0x92, 0xE0, 0xE9, 0xF4, 0x3C0, 0x3D4),
    *(0x4D0, 0x510, 0x600, 0x604, 0x608, 0x8900, 0x2000, 0xCF8, 0xCFC, 0xCFC, 0xC000),
)
MEMORY = (
    WAKEUP_MAILBOX,
    0xFEC0_0000,
    0xFEE0_0000,
    0xFF00_0000,
    ECAM[0],
    ECAM[0] + (CARD_SLOT << 15),
    0xC000_0000,
)
TIMES = (0, 1, 40, 3_000, 2_000_000, 5_000_000_000)
MSRS = (0x1B, 0x6E0, *range(0x7FF, 0x901))
ACCESSES_IN_SEQUENCE = 5


class HandClock(Clock):
    """A clock whose time is set by hand."""

    def __init__(self, now: int = 12_345, frequency: int = 2_500_000_000) -> None:
        super().__init__(frequency, now)


def make_board(clock: HandClock | None = None) -> Board:
    board = build_board(
        clock or HandClock(), cpus=2, x2apic=True, outputs=Outputs(), has_mailbox=True
    )
    board.plug(Card(), slot=CARD_SLOT)
    return board


def device_of(board: Board, name: str) -> Device:
    return next(device for device in board.devices() if device.name == name)


def settle(device: Device, clock: HandClock) -> None:
    """What is due fires once, and is then not due any more."""
    event = device.next_event()
    if event is not None and event <= clock.now:
        device.fire()
        event = device.next_event()
        assert event is None or event > clock.now, (device.name, event, clock.now)


def hammer(
    device: Device,
    clock: HandClock,
    seed: int,
    accesses: int,
    after_each: Callable[[], None] = lambda: None,
) -> None:
    """Access one device at random, let time pass, and keep the promises about events."""
    dice = random.Random(seed)
    span, widest = SPANS[device.name]
    sizes = [size for size in (1, 2, 4, 8) if size <= widest]
    place = PLACES.get(device.name)
    for _ in range(accesses):
        size = dice.choice(sizes)
        usual = place is not None and dice.random() < 0.9
        offset = place(dice) if usual and place is not None else dice.randrange(span)
        if dice.random() < 0.5:
            assert 0 <= device.read(offset, size) < 1 << 8 * size
        else:
            value = dice.choice((dice.getrandbits(8 * size), dice.getrandbits(8), 0))
            device.write(offset, size, value & (1 << 8 * size) - 1)
        clock.now += dice.choice(TIMES)
        settle(device, clock)
        after_each()


def hammer_board(board: Board, clock: HandClock, seed: int, accesses: int) -> None:
    """Access ports and memory of a whole board, wherever the BARs have gone; take interrupts."""
    dice = random.Random(seed)
    for _ in range(accesses):
        size = dice.choice((1, 2, 4))
        value = dice.choice((dice.getrandbits(8 * size), dice.choice(PORTS), 1 << 31 | 0x1804))
        value &= (1 << 8 * size) - 1
        if dice.random() < 0.6:
            port = dice.choice(PORTS) + dice.randrange(8)
            _access(dice, size, value, port, board.ports.read, board.ports.write)
        else:
            address = dice.choice(MEMORY) + (dice.randrange(0x400) & ~(size - 1))
            cpu = dice.randrange(2)
            read, write = partial(board.read_memory, cpu), partial(board.write_memory, cpu)
            _access(dice, size, value, address, read, write)
        if dice.random() < 0.05:
            board.receive(bytes([dice.getrandbits(8)]))
        clock.now += dice.choice((0, 100, 100_000))
        event = board.next_event()
        if event is not None and event <= clock.now:
            board.fire()
        _take_interrupts(board)


def hammer_msrs(board: Board, clock: HandClock, seed: int, accesses: int) -> None:
    """RDMSR and WRMSR of the local APIC's registers."""
    lapic = board.lapics[0]
    dice = random.Random(seed)
    for _ in range(accesses):
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


def _access(
    dice: random.Random,
    size: int,
    value: int,
    address: int,
    read: Callable[[int, int], int],
    write: Callable[[int, int, int], None],
) -> None:
    if dice.random() < 0.3:
        assert 0 <= read(address, size) < 1 << 8 * size
    else:
        write(address, size, value)


def _take_interrupts(board: Board) -> None:
    for lapic in board.lapics:
        if lapic.interrupt_pending():
            assert 0 <= lapic.acknowledge() <= 255
            if lapic.base & 0xC00 == 0x800:
                lapic.write(0xB0, 4, 0)


def runs(sequences: int) -> Iterator[tuple[str, float]]:
    """Hammer everything; yield (name, seconds). A new board every 1000 sequences."""
    batch = 1000 * ACCESSES_IN_SEQUENCE
    for name in (*SPANS, "board", "msrs"):
        began = time.monotonic()
        for seed in range(-(-sequences // 1000)):
            clock = HandClock()
            board = make_board(clock)
            if name == "board":
                hammer_board(board, clock, seed, batch)
            elif name == "msrs":
                hammer_msrs(board, clock, seed, batch)
            else:
                hammer(device_of(board, name), clock, seed, batch)
        yield name, time.monotonic() - began


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    for one, seconds in runs(wanted):
        sys.stdout.write(f"{one:10} {wanted} sequences, {seconds:.1f} s\n")
        sys.stdout.flush()
