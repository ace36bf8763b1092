"""A driver for disks: requests in, status and data out."""

import struct

from tests.vmm.virtio.machine import Machine, VirtioBus, bring_up
from tests.vmm.virtio.rings import Piece

IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
F_FLUSH = 1 << 9


class DiskDriver:
    """One queue, one request at a time unless told otherwise."""

    def __init__(
        self, machine: Machine, bus: VirtioBus, *, features: int = F_FLUSH, packed: bool = False,
        size: int = 64,
    ) -> None:  # fmt: skip
        self.machine, self.bus = machine, bus
        (self.ring,) = bring_up(
            bus, machine.memory, features=features, packed=packed, sizes=(size,)
        )
        self.floor = machine.memory.top

    def submit(self, pieces: list[Piece], *, indirect: bool = False) -> int:
        return self.ring.add(pieces, indirect=indirect)

    def request(
        self, kind: int, sector: int = 0, out: bytes = b"", room: int = 0, *,
        indirect: bool = False, cuts: int = 2,
    ) -> tuple[int, bytes]:  # fmt: skip
        """Do one request in several pieces; return (status, data)."""
        memory = self.machine.memory
        memory.top = self.floor
        pieces = [Piece(memory.put(struct.pack("<IIQ", kind, 0, sector)), 16, False)]
        for part in range(cuts):
            data = out[len(out) * part // cuts : len(out) * (part + 1) // cuts]
            if data:
                pieces.append(Piece(memory.put(data, 1), len(data), False))
        answers = []
        for part in range(cuts):
            size = room * (part + 1) // cuts - room * part // cuts
            if size:
                answers.append(Piece(memory.alloc(size, 1), size, True))
        status = memory.put(b"\xee", 1)
        number = self.submit([*pieces, *answers, Piece(status, 1, True)], indirect=indirect)
        self.bus.kick(0)
        self.machine.settle()
        assert self.ring.used() == [(number, room + 1)], self.machine.log
        self.ring.interrupt_at_next()
        data = b"".join(memory.ram.read(piece.gpa, piece.size) for piece in answers)
        return memory.ram.read(status, 1)[0], data

    def read(self, sector: int, size: int, *, indirect: bool = False) -> bytes:
        status, data = self.request(IN, sector, room=size, indirect=indirect)
        assert status == 0
        return data

    def write(self, sector: int, data: bytes, *, indirect: bool = False) -> None:
        assert self.request(OUT, sector, data, indirect=indirect)[0] == 0
