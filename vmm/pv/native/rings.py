"""The native ring: descriptors in guest memory, one kick for all of them, completions beside them.

A device that is driven register by register exits for every byte; through the ring it exits for
every kick. Each descriptor is read once, carried out, and gets a status of its own: a bad one fails
alone. The device then moves `head`, and interrupts by the ring's vector unless the guest said
RING_QUIET. One kick takes what waits when it begins, 2^RING_ORDER_MOST descriptors at most, of
RING_LENGTH_MOST bytes each: host work is bounded, and the guest pays for each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

from vmm.pv.dialect import Hypercall, Processor, State
from vmm.pv.native.abi import (
    DESCRIPTOR,
    NOWHERE,
    RING,
    RING_IN,
    RING_LENGTH_MOST,
    RING_ORDER_MOST,
    RING_QUIET,
    STORE_BYTES,
    Call,
    Error,
    Feature,
    RingDevice,
)
from vmm.pv.native.part import Handler, Part, Room
from vmm.pv.native.referee import Rule
from vmm.pv.shared import SharedArea

_HEADER: Final = Struct("<II")  # tail, flags
_DESCRIPTOR: Final = Struct("<QQII")
_STATUS: Final = Struct("<iI")
_AT: Final = RING.offsets
_STATUS_AT: Final = DESCRIPTOR.offsets["status"]
_MASK32: Final = (1 << 32) - 1
_FIRST_VECTOR: Final = 32
_FIXED: Final = 0  # delivery mode
_LINE: Final = 64  # bytes that moving one operation's worth takes


@dataclass(slots=True)
class _Ring:
    """One device's: where it is, how large, how far, whom to interrupt."""

    area: SharedArea
    size: int
    vector: int
    head: int = 0


class Rings(Part):
    """The rings of all devices, and the store behind one of them."""

    name = "rings"
    features = frozenset({Feature.RING})

    def __init__(self, room: Room) -> None:
        """No ring is shared; the store is empty."""
        super().__init__(room)
        self._rings: dict[RingDevice, _Ring] = {}
        self._store: dict[int, bytes] = {}
        """Blocks of `_LINE` bytes that are not zero, by number."""

    def calls(self) -> Mapping[Call, Handler]:
        """Two."""
        return {Call.RING_SETUP: self._set_up, Call.RING_KICK: self._kick}

    def _set_up(self, _cpu: Processor, call: Hypercall) -> int:
        number, gpa, order, vector = call.arguments[:4]
        if number >= len(RingDevice):
            return -Error.BAD_ARGUMENT
        device = RingDevice(number)
        if gpa == NOWHERE:
            self._take_back(device)
            return 0
        if order > RING_ORDER_MOST or (vector and not _FIRST_VECTOR <= vector <= 0xFF):
            return -Error.BAD_ARGUMENT
        size = 1 << order
        owner = "RING", number
        error = self.room.pages.share(owner, gpa, RING.size + size * DESCRIPTOR.size, RING.align)
        area = self.room.pages.of(owner)
        if error or area is None:
            return error
        self._rings[device] = _Ring(area, size, vector)
        area.write(_AT["tail"], 4, 0)
        area.store(_AT["head"], bytes(4) + size.to_bytes(4, "little"))
        return 0

    def _take_back(self, device: RingDevice) -> None:
        self._rings.pop(device, None)
        self.room.pages.take_back(("RING", int(device)))

    def _kick(self, cpu: Processor, call: Hypercall) -> int:
        device = RingDevice(call.arguments[0]) if call.arguments[0] < len(RingDevice) else None
        ring = self._rings.get(device) if device is not None else None
        if ring is None or device is None:
            return -Error.BAD_STATE
        tail, flags = _HEADER.unpack(ring.area.load(0, _HEADER.size))
        waiting = tail - ring.head & _MASK32
        if waiting > ring.size:
            return -Error.BAD_ARGUMENT
        if ring.area.read(_AT["head"], 4) != ring.head:
            self.room.referee.report(Rule.WRITES_SHARED, cpu, f"head of the {device.name} ring")
        work = sum(self._complete(device, ring) for _ in range(waiting))
        ring.area.write(_AT["head"], 4, ring.head)
        cpu.work(waiting + work // _LINE)
        if waiting and ring.vector and not flags & RING_QUIET:
            cpu.interrupt(_FIXED, ring.vector)
        return int(waiting)

    def _complete(self, device: RingDevice, ring: _Ring) -> int:
        """Carry out the next descriptor; return how many bytes were moved."""
        at = RING.size + (ring.head & ring.size - 1) * DESCRIPTOR.size
        gpa, offset, length, flags = _DESCRIPTOR.unpack(ring.area.load(at, _DESCRIPTOR.size))
        moved, error = 0, self._error(device, gpa, offset, length, flags)
        if not error:
            moved = length
            self._move(device, gpa, offset, length, into_guest=bool(flags & RING_IN))
        ring.area.store(at + _STATUS_AT, _STATUS.pack(-error, moved))
        ring.head = ring.head + 1 & _MASK32
        return moved

    def _error(self, device: RingDevice, gpa: int, offset: int, length: int, flags: int) -> int:
        if flags & ~RING_IN or length > RING_LENGTH_MOST:
            return Error.BAD_ARGUMENT
        if self.room.machine.memory.hpa(gpa, max(length, 1)) is None:
            return Error.BAD_ADDRESS
        if self.room.pages.collides(gpa, length):
            return Error.OVERLAP
        if device is RingDevice.CONSOLE:
            return Error.BAD_ARGUMENT if flags & RING_IN else 0
        return 0 if offset + length <= STORE_BYTES else Error.BAD_ARGUMENT

    def _move(
        self, device: RingDevice, gpa: int, offset: int, length: int, *, into_guest: bool
    ) -> None:
        memory = self.room.machine.memory
        if device is RingDevice.CONSOLE:
            if self.room.machine.console is not None:
                self.room.machine.console.write(memory.read(gpa, length))
        elif into_guest:
            memory.write(gpa, self._load(offset, length))
        else:
            self._keep(offset, memory.read(gpa, length))

    def _load(self, offset: int, length: int) -> bytes:
        first, end = offset // _LINE, -(-(offset + length) // _LINE)
        whole = b"".join(self._store.get(line, bytes(_LINE)) for line in range(first, end))
        return whole[offset - first * _LINE :][:length]

    def _keep(self, offset: int, data: bytes) -> None:
        first, end = offset // _LINE, -(-(offset + len(data)) // _LINE)
        whole = bytearray(self._load(first * _LINE, (end - first) * _LINE))
        start = offset - first * _LINE
        whole[start : start + len(data)] = data
        for line in range(first, end):
            piece = bytes(whole[(line - first) * _LINE : (line - first + 1) * _LINE])
            if any(piece):
                self._store[line] = piece
            else:
                self._store.pop(line, None)

    # ---- life ----

    def released(self, _feature: Feature) -> None:
        """No ring is shared any more; what is stored stays."""
        for device in list(self._rings):
            self._take_back(device)

    def reset(self, index: int) -> None:
        """Power-up: the store keeps what it has, as a disk does."""
        if index == 0:
            self.released(Feature.RING)

    def save(self) -> State:
        """Rings and store."""
        rings = [
            [int(device), ring.area.gpa, ring.size, ring.vector, ring.head]
            for device, ring in self._rings.items()
        ]
        return {"rings": rings, "store": [[n, data.hex()] for n, data in self._store.items()]}

    def restore(self, state: State) -> None:
        """Take over what save() returned."""
        rings, store = state["rings"], state["store"]
        assert isinstance(rings, list)
        assert isinstance(store, list)
        self._rings, memory = {}, self.room.machine.memory
        for number, gpa, size, vector, head in rings:
            area = SharedArea(memory, gpa, RING.size + size * DESCRIPTOR.size)
            self._rings[RingDevice(number)] = _Ring(area, size, vector, head)
        self._store = {n: bytes.fromhex(data) for n, data in store}
