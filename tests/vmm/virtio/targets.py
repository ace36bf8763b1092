"""What is fuzzed over the transports: each device, requests that it may know, a sound use of it.

A target's `check` does with a device what a driver in order does: after each attack it must work.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.vmm.virtio.disk import DiskDriver
from tests.vmm.virtio.fuzz_devices import makers
from tests.vmm.virtio.machine import Machine, VirtioBus, bring_up
from tests.vmm.virtio.rings import Driver, Piece
from vmm.share.fuse import Opcode
from vmm.storage.image import Views
from vmm.virtio.blk import Blk
from vmm.virtio.blk_timing import TIMINGS
from vmm.virtio.console import CONTROL_RX, CONTROL_TX
from vmm.virtio.device import VirtioDevice

DISK = 1 << 20
FAR = (0, 1, 7, 1 << 11, (1 << 64) - 1)
Make = Callable[[Machine], VirtioDevice]
Check = Callable[[Machine, VirtioBus], None]


class MemoryDisk:
    """A disk in memory that notices when it is asked for what is not there."""

    size, read_only = DISK, False

    def __init__(self) -> None:
        self.data = bytearray(DISK)

    def read(self, offset: int, views: Views) -> None:
        for view in views:
            assert 0 <= offset <= offset + len(view) <= DISK
            view[:] = self.data[offset : offset + len(view)]
            offset += len(view)

    def write(self, offset: int, views: Views) -> None:
        for view in views:
            assert 0 <= offset <= offset + len(view) <= DISK
            self.data[offset : offset + len(view)] = view
            offset += len(view)

    def zero(self, offset: int, size: int, *, unmap: bool) -> None:
        self.write(offset, [memoryview(bytes(size))])

    def discard(self, offset: int, size: int) -> None:
        assert offset + size <= DISK

    def flush(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class Target:
    """How to make a device, how a request to it may begin, and whether it works."""

    make: Make
    header: Callable[[Random], bytes]
    check: Check


class User:
    """A driver in order: what is asked on a queue, and what came back."""

    def __init__(self, machine: Machine, bus: VirtioBus, queues: int) -> None:
        self.machine, self.bus = machine, bus
        self.rings: list[Driver] = bring_up(
            bus, machine.memory, features=0, packed=False, sizes=(8,) * queues
        )

    def offer(self, queue: int, out: bytes = b"", room: int = 0) -> int:
        """Make one request available; return where its answer will be."""
        memory, pieces = self.machine.memory, list[Piece]()
        if out:
            pieces.append(Piece(memory.put(out), len(out), False))
        answer = memory.alloc(room)
        if room:
            pieces.append(Piece(answer, room, True))
        self.rings[queue].add(pieces)
        self.bus.kick(queue)
        return answer

    def ask(self, queue: int, out: bytes = b"", room: int = 0) -> bytes:
        """Do one request; return its answer."""
        answer = self.offer(queue, out, room)
        self.machine.settle()
        ((_, written),) = self.rings[queue].used()
        return self.machine.memory.ram.read(answer, written)


# ---- disks ----


def make_blk(machine: Machine) -> Blk:
    return Blk("disk0", machine.context, MemoryDisk(), TIMINGS["ssd"], packed=True)


def request_blk(dice: Random) -> bytes:
    sector = dice.choice((*FAR, dice.getrandbits(12)))
    return struct.pack("<IIQ", dice.choice((0, 1, 4, 8, 11, 13, 99)), 0, sector)


def check_blk(machine: Machine, bus: VirtioBus) -> None:
    driver = DiskDriver(machine, bus, size=16)
    driver.write(9, b"sound" * 102 + b"!!")
    assert driver.read(9, 512) == b"sound" * 102 + b"!!"


# ---- the card, whose cable leads back to it ----


def request_net(dice: Random) -> bytes:
    if dice.random() < 0.3:  # a command: receive modes, tables of addresses, VLANs, announcements
        return struct.pack("<BBI", dice.randrange(6), dice.randrange(4), dice.choice((0, 1, 1000)))
    header = struct.pack(
        "<BBHHHHH", dice.choice((0, 1, 2)), dice.choice((0, 1, 3, 4, 0x81)), 54, 1460,
        dice.choice((0, 14, 34, 0xFFFF)), dice.choice((0, 6, 16, 0xFFFF)), dice.randrange(3),
    )  # fmt: skip
    return header + dice.choice((b"", b"\xff" * 14, dice.randbytes(60)))


def check_net(machine: Machine, bus: VirtioBus) -> None:
    user, frame = User(machine, bus, 3), b"\xff" * 6 + b"\x52\x54\0\0\0\2\x08\0" + b"sound" * 10
    answer = user.offer(0, room=256)
    user.ask(1, bytes(12) + frame)
    assert user.rings[0].used() == [(0, 12 + len(frame))]
    assert machine.memory.ram.read(answer + 12, len(frame)) == frame


# ---- console ----


def request_console(dice: Random) -> bytes:
    port = dice.choice((0, 0, 1, 1, 2, 99, 0xFFFF_FFFF))
    return struct.pack("<IHH", port, dice.randrange(9), dice.choice((0, 1, 0xFFFF))) * 2


def check_console(machine: Machine, bus: VirtioBus) -> None:
    user = User(machine, bus, 6)
    bus.set_status(0)
    machine.memory.top = 0x1000
    user.rings = bring_up(bus, machine.memory, features=2, packed=False, sizes=(8,) * 6)
    answers = [user.offer(CONTROL_RX, room=64) for _ in range(2)]
    user.ask(CONTROL_TX, struct.pack("<IHH", 0, 0, 1))  # DEVICE_READY
    said = [machine.memory.ram.read(answer, 8) for answer in answers]
    assert said == [struct.pack("<IHH", port, 1, 1) for port in (0, 1)]  # PORT_ADD
    assert user.ask(1, b"said") == b""


# ---- entropy, balloon ----


def request_any(dice: Random) -> bytes:
    return dice.randbytes(dice.choice((1, 16, 64)))


def check_rng(machine: Machine, bus: VirtioBus) -> None:
    assert len(set(User(machine, bus, 1).ask(0, room=64))) > 16


def request_balloon(dice: Random) -> bytes:
    """Page numbers, or tags and values."""
    if dice.random() < 0.5:
        numbers = (0, 1, 0xFF, 0x1000, 0xFFFF_FFFF, dice.getrandbits(5))
        return struct.pack("<4I", *(dice.choice(numbers) for _ in range(4)))
    return b"".join(struct.pack("<HQ", dice.randrange(20), dice.choice(FAR)) for _ in range(3))


def check_balloon(machine: Machine, bus: VirtioBus) -> None:
    user, page = User(machine, bus, 3), 0xB
    machine.memory.ram.write(page << 12, b"given")
    assert user.ask(0, struct.pack("<I", page)) == b""
    assert machine.memory.ram.read(page << 12, 5) == bytes(5)


# ---- a shared folder ----


def request_fs(dice: Random) -> bytes:
    body = struct.pack("<QQ", dice.choice(FAR), dice.randrange(9))
    body += dice.choice((b"file\0", b"d\0", b"..\0", b"x\0y\0"))
    known = dice.choice((Opcode.INIT, Opcode.INIT, dice.randrange(1, 50)))
    if known == Opcode.INIT:
        body = struct.pack("<IIII", 7, 31, 0, 0)
    size = dice.choice((40 + len(body), 40 + len(body), 0, 0xFFFF_FFFF))
    return struct.pack("<IIQQIIIHH", size, known, 1, dice.randrange(4), 0, 0, 0, 0, 0) + body


def check_fs(machine: Machine, bus: VirtioBus) -> None:
    user = User(machine, bus, 2)
    init = struct.pack("<IIQQIIIHH", 56, Opcode.INIT, 7, 0, 0, 0, 0, 0, 0)
    reply = user.ask(1, init + struct.pack("<IIII", 7, 31, 0, 0), room=256)
    size, error, unique = struct.unpack_from("<IiQ", reply)
    assert (size, error, unique) == (len(reply), 0, 7)


def targets(folder: Path) -> dict[str, Target]:
    """Every device by its name; `folder` is shared by the one that shares."""
    made = makers(folder)

    def on(name: str) -> Make:
        return lambda machine: made[name](machine.context)

    return {
        "blk": Target(make_blk, request_blk, check_blk),
        "net": Target(on("net"), request_net, check_net),
        "console": Target(on("console"), request_console, check_console),
        "rng": Target(on("rng"), request_any, check_rng),
        "balloon": Target(on("balloon"), request_balloon, check_balloon),
        "fs": Target(on("fs"), request_fs, check_fs),
    }


NAMES = ("blk", "net", "console", "rng", "balloon", "fs")
