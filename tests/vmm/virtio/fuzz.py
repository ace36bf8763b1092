"""Hostile drivers: random accesses to a virtio device, its rings full of garbage.

    python -m tests.vmm.virtio.fuzz [--sequences N] [--seed S] [--way pci|mmio|...] [--device D]

A sequence resets the device, mostly sets it up as a driver does, and then writes to registers and
rings whatever comes: descriptors that are nearly right, loops, addresses and lengths out of range,
indices that jump. Promises that are checked: no exception, no byte changed behind guest memory,
events that come when they were announced, and after a reset a device that works.
"""

import argparse
import random
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.vmm.virtio.machine import BUSES, Machine, PciBus
from tests.vmm.virtio.rings import DriverMemory
from tests.vmm.virtio.targets import NAMES, Target, targets
from vmm.virtio.chain import Chain

RAM = 1 << 16
CANARY = 0xA5
STEPS = 24
COMMON_FIELDS = (
    (0x00, 4), (0x04, 4), (0x08, 4), (0x0C, 4), (0x10, 2), (0x12, 2), (0x14, 1), (0x15, 1),
    (0x16, 2), (0x18, 2), (0x1A, 2), (0x1C, 2), (0x1E, 2), (0x20, 8), (0x20, 4), (0x24, 4),
    (0x28, 8), (0x2C, 4), (0x30, 8), (0x34, 4), (0x38, 2), (0x3A, 2),
)  # fmt: skip


class Fuzzer:
    """One device on one transport, and dice."""

    def __init__(self, target: Target, way: str, seed: int) -> None:
        self.dice = random.Random(seed)
        self.machine = Machine(memory=DriverMemory(RAM))
        self.target = target
        self.device = target.make(self.machine)
        self.bus = BUSES[way](self.machine, self.device)
        self.ram = self.machine.memory.ram
        view = self.ram.ram.view
        view[RAM:] = bytes([CANARY]) * (len(view) - RAM)
        self.areas: list[tuple[int, int, int]] = []
        self.size, self.packed = 1, False
        self.avail: list[int] = []
        self.posted: list[int] = []
        self.complaints = self.served = 0
        for queue in self.device.queues:
            queue.push = self._counted(queue.push)  # type: ignore[assignment, method-assign]

    def _counted(self, push: Callable[[Chain, int], None]) -> Callable[[Chain, int], None]:
        def counted(chain: Chain, written: int) -> None:
            self.served += 1
            push(chain, written)

        return counted

    def sequence(self) -> None:
        """Reset, set up, disturb; then check that nothing outside was touched."""
        self.bus.set_status(0)
        self.machine.log.clear()
        if self.dice.random() < 0.9:
            self.set_up()
        for _ in range(self.dice.randrange(STEPS)):
            self.step()
            self.settle()
        assert self.ram.ram.view[RAM:] == bytes([CANARY]) * (len(self.ram.ram.view) - RAM)
        assert len(self.machine.log) <= STEPS
        self.complaints += len(self.machine.log)

    def set_up(self) -> None:
        """As a driver does, with something odd now and then."""
        dice, bus = self.dice, self.bus
        bus.set_status(3)
        offered = bus.features()
        wanted = offered if dice.random() < 0.5 else offered & dice.getrandbits(64) | 1 << 32
        self.packed = bool(offered & 1 << 34) and dice.random() < 0.5
        bus.accept(wanted & ~(1 << 34) | self.packed << 34)
        bus.set_status(11)
        self.areas = []  # descriptors, driver and device area of each queue
        for index in range(len(self.device.queues)):
            self.size = dice.choice((4, 4, 8, 8, 8, 16, 16, 64, 64, 1, 2, 3, 0, 256, 0xFFFF))
            self.areas.append((self.address(16), self.address(4), self.address(4)))
            self.set_up_queue(index)
        self.avail = [0] * len(self.areas)
        self.posted = [0] * len(self.areas)
        for descriptors, driver, device in self.areas:
            self.poke(descriptors, bytes(256))
            self.poke(driver, bytes(64))
            self.poke(device, bytes(64))
        bus.set_status(15)

    def set_up_queue(self, index: int) -> None:
        bus, (descriptors, driver, device) = self.bus, self.areas[index]
        wide = {0x20: descriptors, 0x28: driver, 0x30: device}
        if isinstance(bus, PciBus):
            bus.set(0x16, 2, index)
            bus.set(0x18, 2, self.size)
            for offset, value in wide.items():
                bus.set(offset, 8, value)
            bus.set(0x1C, 2, 1)
            return
        bus.set(0x30, index)
        bus.set(0x38, self.size)
        for place, value in zip((0x80, 0x90, 0xA0), wide.values(), strict=True):
            bus.set(place, value & 0xFFFF_FFFF)
            bus.set(place + 4, value >> 32)
        bus.set(0x44, 1)

    def address(self, align: int = 1) -> int:
        """Mostly in memory and aligned; sometimes at an edge or nowhere."""
        dice = self.dice
        roll = dice.random()
        if roll < 0.98:
            return dice.randrange(0, RAM - 0x1200, align)
        if roll < 0.99:
            return RAM - dice.randrange(64)
        return dice.choice((dice.getrandbits(64), RAM, (1 << 64) - 16, 1 << 63, 0xFEE0_0000))

    def length(self) -> int:
        dice = self.dice
        return dice.choice(
            (16, 16, 512, 512, 512, 4096, 4096, 20, 0, dice.getrandbits(12), 1 << 31)
        )

    def poke(self, gpa: int, data: bytes) -> None:
        """The guest's own store, which goes nowhere outside RAM."""
        if gpa + len(data) <= RAM:
            self.ram.write(gpa, data)

    def step(self) -> None:
        roll = self.dice.random()
        if roll < 0.5 and self.areas:
            self.request()
        elif roll < 0.6 and self.areas:
            self.garbage()
        elif roll < 0.75:
            self.bus.kick(self.dice.choice((0, 0, 0, 1, 2, 0xFFFF)))
        elif roll < 0.9:
            self.register()
        elif roll < 0.95:
            self.bus.interrupts()
        else:
            saved = self.machine.board.save()
            self.machine.board.restore(saved)
            assert self.machine.board.save() == saved

    def request(self) -> None:
        """A chain, sound more often than not, made available and kicked."""
        dice = self.dice
        index = dice.randrange(len(self.areas))
        count = dice.randint(2, 4)
        slots = max(self.size, 1)
        head = self.posted[index] % slots
        sound = dice.random() < 0.8 and count <= slots
        for place in range(count):
            self.descriptor(index, (head + place) % slots, place, count, sound=sound)
        self.posted[index] += count
        if not self.packed:
            _, driver, _ = self.areas[index]
            avail = self.avail[index]
            self.poke(driver + 4 + 2 * (avail % slots), struct.pack("<H", head))
            self.avail[index] = (avail + 1) & 0xFFFF
            self.poke(driver + 2, struct.pack("<H", self.avail[index]))
        self.bus.kick(index)
        if dice.random() < 0.5:
            self.machine.settle()  # so that the slots can be used again

    def descriptor(self, index: int, slot: int, place: int, count: int, *, sound: bool) -> None:
        dice, (descriptors, _, _) = self.dice, self.areas[index]
        last = place + 1 == count
        gpa, size = self.address(), 1 if last and dice.random() < 0.7 else self.length()
        if place == 0:
            header = self.target.header(dice)
            size = len(header)
            self.poke(gpa, header)
        flags = (0 if last else 1) | (2 if last or (place and dice.random() < 0.5) else 0)
        if dice.random() < 0.1:
            flags ^= 2  # some queues take only what is written, others only what is read
        after = slot + 1
        if not sound and dice.random() < 0.5:
            flags ^= dice.choice((1, 2, 4, 4, 7, 0x8080))
            gpa, size = self.address(16), 16 * dice.choice((0, 1, 3, 64, 2000))
            after = dice.choice((slot + 1, slot, 0, 0xFFFF))
        if self.packed:
            number = slot if sound else dice.choice((slot, 0, 0xFFFF))
            flags |= 0x8000 if (self.posted[index] + place) // max(self.size, 1) % 2 else 0x80
            entry = struct.pack("<QIHH", gpa, size, number, flags)
        else:
            wrapped = after % self.size if sound and self.size else after
            entry = struct.pack("<QIHH", gpa, size, flags, wrapped & 0xFFFF)
        self.poke(descriptors + 16 * slot, entry)

    def garbage(self) -> None:
        """Random bytes in one of the areas."""
        area = self.dice.choice(self.dice.choice(self.areas))
        at = area + self.dice.randrange(80)
        self.poke(at, self.dice.randbytes(self.dice.choice((1, 2, 4, 8, 16))))

    def register(self) -> None:
        """A random access to a register, of any width."""
        dice, bus = self.dice, self.bus
        value = dice.choice((0, 1, 0xFF, 0xFFFF, dice.getrandbits(32), dice.getrandbits(64), 15))
        if isinstance(bus, PciBus):
            self.pci_register(bus, value)
            return
        offset, size = 4 * dice.randrange(0x60), dice.choice((4, 4, 4, 1, 2, 8))
        offset += dice.choice((0, 0, 0, 1, 2))
        if dice.random() < 0.5:
            assert 0 <= bus.get(offset, size) < 1 << 8 * size
        else:
            bus.set(offset, value & (1 << 8 * size) - 1, size)

    def pci_register(self, bus: PciBus, value: int) -> None:
        dice, roll = self.dice, self.dice.random()
        board = self.machine.board
        if roll < 0.6:
            offset, size = dice.choice(COMMON_FIELDS)
            if dice.random() < 0.1:
                offset += 1
            if dice.random() < 0.3:
                assert 0 <= bus.get(offset, size) < 1 << 8 * size
            else:
                bus.set(offset, size, value & (1 << 8 * size) - 1)
        elif roll < 0.8:
            base, size = bus.at[1] + dice.randrange(0x4000), dice.choice((1, 2, 4, 8))
            if dice.random() < 0.5:
                board.read_memory(0, base, size)
            else:
                board.write_memory(0, base, size, value & (1 << 8 * size) - 1)
        else:
            self.window(bus, value)

    def window(self, bus: PciBus, value: int) -> None:
        """The access through configuration space."""
        dice, at = self.dice, bus.window
        bus.write_config_space(at + 4, 1, dice.choice((0, 0, 0, 1, 5, 0xFF)))
        bus.write_config_space(at + 8, 4, dice.choice((0x14, 0x16, 0x1C, 0x3000, 0x3FFF, 1 << 31)))
        bus.write_config_space(at + 12, 4, dice.choice((1, 2, 4, 8, 0, 1 << 31)))
        if dice.random() < 0.5:
            bus.read_config_space(at + 16, 4)
        else:
            bus.write_config_space(at + 16, 4, value & 0xFFFF_FFFF)

    def settle(self) -> None:
        """Let some time pass; what is due fires, once."""
        clock, board = self.machine.clock, self.machine.board
        clock.now += self.dice.choice((0, 0, 1000, 100_000))
        if (event := board.next_event()) is not None and event <= clock.now:
            board.fire()
            later = board.next_event()
            assert later is None or later > clock.now


def run(target: Target, way: str, seed: int, sequences: int) -> Fuzzer:
    """Do `sequences` sequences; the device must work after every fiftieth."""
    fuzzer = Fuzzer(target, way, seed)
    for number in range(sequences):
        fuzzer.sequence()
        if number % 50 == 49:
            if isinstance(fuzzer.bus, PciBus):
                fuzzer.bus.prepare()
            fuzzer.machine.memory.top = 0x1000
            target.check(fuzzer.machine, fuzzer.bus)
    return fuzzer


def main() -> None:
    """Fuzz every device that is known, on every transport."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sequences", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--way", choices=list(BUSES), action="append")
    parser.add_argument("--device", choices=NAMES, action="append")
    options = parser.parse_args()
    for name in options.device or NAMES:
        for way in options.way or BUSES:
            with tempfile.TemporaryDirectory() as folder:
                target = targets(Path(folder))[name]
                fuzzer = run(target, way, options.seed, options.sequences)
            sys.stdout.write(
                f"{name} over {way}: {options.sequences} sequences, seed {options.seed}: sound, "
                f"{fuzzer.complaints} complaints, {fuzzer.served} requests served\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
