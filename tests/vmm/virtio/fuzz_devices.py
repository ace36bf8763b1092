"""Random drivers against every virtio device: a script, of which the tests run a short sample.

    python -m tests.vmm.virtio.fuzz_devices [SEQUENCES] [SEED] [DEVICE...]

A sequence sets a device up more or less as a driver does, then writes garbage into rings,
descriptors, headers, registers, and lets time pass. Whatever happens, nothing may be raised, and
nothing outside of RAM be touched: the views of memory that devices get would raise.
"""

import random
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from hwmodel.timing.clock import Clock
from tests.vmm.virtio.rings import DriverMemory
from vmm.host.channel import Output
from vmm.net.backend import Abilities, Port
from vmm.share.server import FuseServer
from vmm.virtio.balloon import Balloon
from vmm.virtio.console import Console, ConsolePort
from vmm.virtio.device import Context, VirtioDevice
from vmm.virtio.features import Feature, bits
from vmm.virtio.fs import Fs
from vmm.virtio.net import Net
from vmm.virtio.rng import Rng, SeededEntropy

RAM = 1 << 18
INTERESTING = (0, 1, 2, 3, 7, 8, 0x10, 0x28, 0xFF, 0x1000, 0xFFFF, 0x10000, RAM - 1, RAM, 1 << 31)
NUMBERS = (*INTERESTING, 0xFFFF_FFFF, 1 << 32, 1 << 63, (1 << 64) - 1)


class Loop:
    """A cable whose other end sends back what it gets."""

    abilities = Abilities(segments=True, trusted=True)

    def __init__(self) -> None:
        self.deliver: Callable[[bytes], None] = lambda _frame: None

    def plug_in(self, port: Port) -> None:
        self.deliver = port.deliver

    def send(self, frame: bytes) -> None:
        assert 14 <= len(frame) <= 14 + 4 + 0xFFFF
        self.deliver(frame)

    def next_event(self) -> int | None:
        return None

    def fire(self) -> None: ...

    def poll(self) -> bool:
        return False

    def descriptors(self) -> list[tuple[int, int]]:
        return []

    def expects(self) -> bool:
        return False

    def close(self) -> None: ...


class Fuzz:
    """One device, attacked again and again."""

    def __init__(self, make: Callable[[Context], VirtioDevice], seed: int) -> None:
        self.chance = random.Random(seed)
        self.memory = DriverMemory(RAM)
        self.clock = Clock()
        self.complaints = 0
        self.device = make(Context(self.memory.ram, self.clock, self._complain))
        self.device.attach(self)
        self.worked = 0

    def _complain(self, line: str) -> None:
        assert "\n" not in line
        self.complaints += 1

    def queue_interrupt(self, index: int) -> None:
        self.worked += 1
        assert index < len(self.device.queues)

    def config_interrupt(self) -> None: ...

    def sequence(self) -> None:
        """One sequence: set up, attack, perhaps write down and restore, reset."""
        self._set_up()
        actions = (
            self._offer,
            self._offer,
            self._offer,
            self._scribble,
            self._register,
            self._wait,
        )
        for _ in range(self.chance.randrange(1, 12)):
            self.chance.choice(actions)()
        if self.chance.random() < 0.1:
            state = self.device.save()
            self.device.restore(state)
            assert self.device.save() == state
        self.device.write_status(0)
        assert not self.device.live

    def _number(self) -> int:
        return self.chance.choice((*NUMBERS, self.chance.getrandbits(18)))

    def _set_up(self) -> None:
        device, chance = self.device, self.chance
        device.write_status(3)
        features = device.features if chance.random() < 0.7 else chance.getrandbits(64)
        features = features & device.features | bits(Feature.VERSION_1)
        self.packed = chance.random() < 0.3 and bool(device.features & bits(Feature.RING_PACKED))
        features &= ~bits(Feature.RING_PACKED)
        features |= bits(Feature.RING_PACKED) if self.packed else 0
        device.select_features(0, features & 0xFFFF_FFFF)
        device.select_features(1, features >> 32)
        device.write_status(11)
        self.places = []
        for number, queue in enumerate(device.queues):
            sane = chance.random() < 0.95
            queue.size = chance.choice((4, 8, 16)) if sane else chance.getrandbits(16)
            base = 0x1000 + 0x1000 * (number % 16)
            queue.descriptors = base if sane else self._number()
            queue.driver = base + 0x400 if sane else self._number()
            queue.device = base + 0x800 if sane else self._number()
            self.memory.ram.write(base, bytes(0x1000))
            self.places.append((queue.descriptors, queue.driver, queue.size, [0]))
            device.enable_queue(number)
        device.write_status(15)

    def _offer(self) -> None:
        """Make something available: mostly a chain that can be followed."""
        number = self.chance.randrange(len(self.places))
        table, ring, size, at = self.places[number]
        if not 0 < size <= 16 or table + 16 * size > RAM or ring + 6 + 2 * size > RAM:
            return
        length = self.chance.randrange(1, min(5, size + 1))
        split = self.chance.randrange(length + 1)
        for place in range(length):
            self._descriptor(table, place, length, writable=place >= split)
        if self.packed:
            at[0] += length
        else:
            self.memory.set16(ring + 4 + 2 * (at[0] % size), 0)
            at[0] += 1
            self.memory.set16(ring + 2, at[0])
        self.device.notify(number)

    def _descriptor(self, table: int, place: int, length: int, *, writable: bool) -> None:
        chance = self.chance
        gpa = chance.randrange(0x20000, RAM - 0x1000)
        size = chance.choice((1, 4, 8, 12, 16, 26, 40, 56, 80, 128, 1526, 4096, self._number()))
        if chance.random() < 0.03:
            gpa = self._number()
        flags = (1 if place + 1 < length else 0) | (2 if writable else 0)
        if chance.random() < 0.02:
            flags = chance.getrandbits(16)
        size &= 0xFFFF_FFFF
        if self.packed:
            entry = struct.pack("<QIHH", gpa, size, place, flags | 0x80)
        else:
            entry = struct.pack("<QIHH", gpa, size, flags, place + 1)
        self.memory.ram.write(table + 16 * place, entry)
        if gpa + 64 < RAM:
            self.memory.ram.write(gpa, self._header())

    def _header(self) -> bytes:
        """Bytes that look like the start of some request."""
        chance = self.chance
        kind = chance.randrange(4)
        if kind == 0:  # FUSE
            name = chance.choice((b"file\0", b"d\0", b"..\0", b"x\0y\0"))
            body = struct.pack("<QQ", self._number() & (1 << 64) - 1, chance.randrange(9)) + name
            opcode = chance.choice((26, 26, 26, *range(1, 50)))
            fields = struct.pack("<IIQQIIIHH", 40 + len(body), opcode, 1, chance.randrange(4),
                                 0, 0, 0, 0, 0)  # fmt: skip
            return fields + (struct.pack("<IIII", 7, 31, 0, 0) if opcode == 26 else body)
        if kind == 1:  # virtio-net, with and without its offloads
            flags, gso = chance.choice((0, 1, 2)), chance.choice((0, 1, 3, 4, 0x81))
            start, offset = chance.choice((0, 14, 34, 0xFFFF)), chance.choice((0, 6, 16, 0xFFFF))
            return struct.pack("<BBHHHHH", flags, gso, 54, 1460, start, offset, 0)
        if kind == 2:  # console control, balloon's page numbers
            return struct.pack("<IHH", chance.choice((0, 1, 2, 99)), chance.randrange(9), 1) * 4
        return chance.randbytes(64)

    def _scribble(self) -> None:
        """Write anywhere: rings change under the device's hands."""
        at = self.chance.randrange(0x1000, 0x8000)
        self.memory.ram.write(at, self.chance.randbytes(self.chance.choice((1, 2, 16, 64))))
        self.device.notify(self.chance.randrange(len(self.device.queues) + 2))

    def _register(self) -> None:
        chance, device = self.chance, self.device
        offset, size = chance.choice((0, 4, 8, 10, 60, 0x1000)), chance.choice((1, 2, 4))
        device.read_config(offset, size)
        device.write_config(offset, size, chance.getrandbits(8 * size))
        number = chance.randrange(len(device.queues))
        choice = chance.randrange(5)
        if choice == 0:
            device.reset_queue(number)
        elif choice == 1:
            device.enable_queue(number)
        elif choice == 2:
            device.write_status(chance.getrandbits(8) | 1)
        elif choice == 3:
            device.select_features(chance.randrange(4), chance.getrandbits(32))

    def _wait(self) -> None:
        event = self.device.next_event()
        if event is not None:
            self.clock.now = max(self.clock.now, event)
            self.device.fire()


def makers(folder: Path) -> dict[str, Callable[[Context], VirtioDevice]]:
    """Every device by its name; `folder` is shared, and not empty."""
    (folder / "d").mkdir()
    (folder / "file").write_text("content")

    def net(context: Context) -> VirtioDevice:
        cable = Loop()
        card = Net("net", context, cable, mac=b"\x52\x54\0\0\0\1", packed=True)
        cable.plug_in(Port(context.clock, card.receive))
        return card

    def console(context: Context) -> VirtioDevice:
        ports = [ConsolePort(Output(), is_console=True), ConsolePort(Output(), "port")]
        device = Console("console", context, ports, packed=True)
        for number in range(len(ports)):
            device.receive(number, b"typed")
        return device

    def fs(context: Context) -> VirtioDevice:
        server = FuseServer(folder, readonly=False, option="--share")
        return Fs("fs", context, server, "tag", packed=True)

    return {
        "net": net,
        "console": console,
        "rng": lambda context: Rng("rng", context, SeededEntropy(1), packed=True),
        "balloon": lambda context: Balloon("balloon", context, poll_ns=1000, packed=True),
        "fs": fs,
    }


def main(words: list[str]) -> None:
    numbers = [int(word) for word in words[:2]]
    sequences, seed = [*numbers, *(100_000, 1)[len(numbers) :]]
    with tempfile.TemporaryDirectory() as folder:
        made = makers(Path(folder))
        for name in words[2:] or made:
            fuzz = Fuzz(made[name], seed)
            for _ in range(sequences):
                fuzz.sequence()
            result = f"{fuzz.complaints} complaints, {fuzz.worked} interrupts"
            sys.stdout.write(f"{name}: {sequences} sequences, {result}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
