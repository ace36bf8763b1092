"""The other side of a queue: what a driver in the guest does, for both kinds of ring.

Written from the specification's driver side, and from nothing of ours but guest memory.
"""

import struct
from dataclasses import dataclass

from vmm.memory.guest import GuestMemory

NEXT, WRITE, INDIRECT = 1, 2, 4


@dataclass(frozen=True)
class Piece:
    """One buffer of a request."""

    gpa: int
    size: int
    writable: bool


class DriverMemory:
    """A bump allocator over guest memory."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.ram = GuestMemory(((0, size),))
        self.top = 0x1000

    def alloc(self, size: int, align: int = 16) -> int:
        self.top = -(-self.top // align) * align
        gpa, self.top = self.top, self.top + size
        assert self.top <= self.ram.size
        return gpa

    def put(self, data: bytes, align: int = 16) -> int:
        gpa = self.alloc(len(data), align)
        self.ram.write(gpa, data)
        return gpa

    def u16(self, gpa: int) -> int:
        return int.from_bytes(self.ram.read(gpa, 2), "little")

    def set16(self, gpa: int, value: int) -> None:
        self.ram.write(gpa, (value & 0xFFFF).to_bytes(2, "little"))


class SplitDriver:
    """The driver's half of a split ring."""

    packed = False

    def __init__(self, memory: DriverMemory, size: int, *, event_idx: bool = False) -> None:
        self.memory, self.size, self.event_idx = memory, size, event_idx
        self.descriptors = memory.alloc(16 * size)
        self.driver = memory.alloc(6 + 2 * size, 2)
        self.device = memory.alloc(6 + 8 * size, 4)
        self.free = list(range(size))
        self.chains: dict[int, list[int]] = {}
        self.avail = self.seen = 0
        memory.ram.write(self.driver, bytes(6 + 2 * size))
        memory.ram.write(self.device, bytes(6 + 8 * size))

    def add(self, pieces: list[Piece], *, indirect: bool = False) -> int:
        """Make a request available; return its number."""
        if indirect:
            table = self.memory.alloc(16 * len(pieces))
            for place, piece in enumerate(pieces):
                more = NEXT if place + 1 < len(pieces) else 0
                flags = more | (WRITE if piece.writable else 0)
                self._write(table, place, piece.gpa, piece.size, flags, place + 1)
            ids = [self.free.pop(0)]
            self._write(self.descriptors, ids[0], table, 16 * len(pieces), INDIRECT, 0)
        else:
            ids = [self.free.pop(0) for _ in pieces]
            for place, piece in enumerate(pieces):
                last = place + 1 == len(pieces)
                flags = (0 if last else NEXT) | (WRITE if piece.writable else 0)
                following = 0 if last else ids[place + 1]
                self._write(self.descriptors, ids[place], piece.gpa, piece.size, flags, following)
        self.chains[ids[0]] = ids
        self.memory.set16(self.driver + 4 + 2 * (self.avail % self.size), ids[0])
        self.avail = (self.avail + 1) & 0xFFFF
        self.memory.set16(self.driver + 2, self.avail)
        return ids[0]

    def used(self) -> list[tuple[int, int]]:
        """Return what came back since the last call: (number, bytes written)."""
        done = []
        while self.seen != self.memory.u16(self.device + 2):
            at = self.device + 4 + 8 * (self.seen % self.size)
            number, written = struct.unpack("<II", self.memory.ram.read(at, 8))
            self.free += self.chains.pop(number)
            done.append((number, written))
            self.seen = (self.seen + 1) & 0xFFFF
        return done

    def interrupt_at_next(self) -> None:
        """Ask to hear of the next used buffer."""
        if self.event_idx:
            self.memory.set16(self.driver + 4 + 2 * self.size, self.seen)
        else:
            self.memory.set16(self.driver, 0)

    def no_interrupts(self) -> None:
        if self.event_idx:
            self.memory.set16(self.driver + 4 + 2 * self.size, self.seen - 1)
        else:
            self.memory.set16(self.driver, 1)

    def notification_wanted(self) -> bool:
        """Whether the device wants to be told of the request that was added last."""
        if self.event_idx:
            event = self.memory.u16(self.device + 4 + 8 * self.size)
            return event == (self.avail - 1) & 0xFFFF
        return not self.memory.u16(self.device) & 1

    def _write(
        self, table: int, index: int, gpa: int, size: int, flags: int, following: int
    ) -> None:
        entry = struct.pack("<QIHH", gpa, size, flags, following)
        self.memory.ram.write(table + 16 * index, entry)


class PackedDriver:
    """The driver's half of a packed ring."""

    packed = True

    def __init__(self, memory: DriverMemory, size: int, *, event_idx: bool = False) -> None:
        self.memory, self.size, self.event_idx = memory, size, event_idx
        self.descriptors = memory.alloc(16 * size)
        self.driver = memory.alloc(4, 4)
        self.device = memory.alloc(4, 4)
        memory.ram.write(self.descriptors, bytes(16 * size))
        memory.ram.write(self.driver, bytes(8))
        self.free = list(range(size))
        self.slots: dict[int, int] = {}  # buffer id -> descriptors it takes
        self.avail, self.avail_wrap = 0, 1
        self.seen, self.seen_wrap = 0, 1
        self.room = size

    def add(self, pieces: list[Piece], *, indirect: bool = False) -> int:
        number = self.free.pop(0)
        if indirect:
            table = self.memory.alloc(16 * len(pieces))
            for place, piece in enumerate(pieces):
                flags = WRITE if piece.writable else 0
                entry = struct.pack("<QIHH", piece.gpa, piece.size, 0, flags)
                self.memory.ram.write(table + 16 * place, entry)
            rows = [(table, 16 * len(pieces), INDIRECT)]
        else:
            last = len(pieces) - 1
            rows = [
                (p.gpa, p.size, (NEXT if place < last else 0) | (WRITE if p.writable else 0))
                for place, p in enumerate(pieces)
            ]
        assert len(rows) <= self.room
        self.room -= len(rows)
        self.slots[number] = len(rows)
        heads = []
        for gpa, size, flags in rows:
            lap = 0x80 if self.avail_wrap else 0x8000
            heads.append((self.avail, struct.pack("<QIHH", gpa, size, number, flags | lap)))
            self.avail += 1
            if self.avail == self.size:
                self.avail, self.avail_wrap = 0, 1 - self.avail_wrap
        for slot, entry in reversed(heads):  # the first one's flags come last
            self.memory.ram.write(self.descriptors + 16 * slot, entry)
        return number

    def used(self) -> list[tuple[int, int]]:
        done: list[tuple[int, int]] = []
        while True:
            raw = self.memory.ram.read(self.descriptors + 16 * self.seen, 16)
            _, written, number, flags = struct.unpack("<QIHH", raw)
            avail, used = flags >> 7 & 1, flags >> 15 & 1
            if not avail == used == self.seen_wrap:
                return done
            taken = self.slots.pop(number)
            self.room += taken
            self.free.append(number)
            self.seen += taken
            if self.seen >= self.size:
                self.seen, self.seen_wrap = self.seen - self.size, 1 - self.seen_wrap
            done.append((number, written))

    def interrupt_at_next(self) -> None:
        if self.event_idx:
            self.memory.set16(self.driver, self.seen | self.seen_wrap << 15)
            self.memory.set16(self.driver + 2, 2)
        else:
            self.memory.set16(self.driver + 2, 0)

    def no_interrupts(self) -> None:
        self.memory.set16(self.driver + 2, 1)

    def notification_wanted(self) -> bool:
        return self.memory.u16(self.device + 2) != 1


Driver = SplitDriver | PackedDriver
