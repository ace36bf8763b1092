"""Multicall: many hypercalls in one exit, from a ring in guest memory.

1. The header and all waiting entries are read, once, before the first is carried out: what another
   processor, or an entry itself, writes there meanwhile is for the next batch.
2. Each entry is a call as it would be alone, and its result goes into the entry. One that fails
   fails alone; with MULTICALL_STOP the batch ends behind it, and what follows stays in the ring.
3. At the end `head` says how many were consumed, `failed` and `first_failed` which were in vain.
   If the guest's half of the header is not what was read, results stand but the header is left as
   it is: the call returns CHANGED, and the referee hears of it.

A batch has at most MULTICALL_MOST entries: host work is bounded, and the guest pays for each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

from vmm.pv.dialect import Hypercall, Processor
from vmm.pv.native.abi import (
    CALLS,
    MULTICALL_ENTRY,
    MULTICALL_MOST,
    MULTICALL_RING,
    MULTICALL_STOP,
    TAG,
    Call,
    Error,
    Feature,
)
from vmm.pv.native.part import Handler, Part
from vmm.pv.native.referee import Rule
from vmm.pv.shared import SharedArea

_HEADER: Final = Struct("<IIII")  # entries, flags, head, tail
_REPORT: Final = Struct("<II")  # failed, first_failed
_ENTRY: Final = Struct("<7Qq")
_AT: Final = MULTICALL_RING.offsets
_RESULT: Final = MULTICALL_ENTRY.offsets["result"]
_MASK32: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class _Batch:
    """What was read, once."""

    area: SharedArea
    header: bytes
    stops: bool
    head: int
    calls: list[tuple[int, tuple[int, ...]]]
    """Offset of each entry, and its words."""


class Multicall(Part):
    """The call that carries out others."""

    name = "multicall"
    features = frozenset({Feature.MULTICALL})

    def calls(self) -> Mapping[Call, Handler]:
        """One."""
        return {Call.MULTICALL: self._run}

    def _run(self, cpu: Processor, call: Hypercall) -> int:
        batch = self._read(call.arguments[0])
        if isinstance(batch, Error):
            return -batch
        failed = first = done = 0
        for offset, words in batch.calls:
            result = self._one(cpu, words)
            batch.area.store(offset + _RESULT, result.to_bytes(8, "little", signed=True))
            done += 1
            if result < 0:
                first = first if failed else (batch.head + done - 1) & _MASK32
                failed += 1
                if batch.stops:
                    break
        cpu.work(done)
        return self._finish(cpu, batch, done, failed, first)

    def _read(self, gpa: int) -> "_Batch | Error":
        memory = self.room.machine.memory
        header = memory.read(gpa, _HEADER.size)
        entries, flags, head, tail = _HEADER.unpack(header)
        waiting = tail - head & _MASK32
        if not 0 < entries <= MULTICALL_MOST or entries & entries - 1 or waiting > entries:
            return Error.BAD_ARGUMENT
        if flags & ~MULTICALL_STOP:
            return Error.BAD_ARGUMENT
        area = SharedArea(memory, gpa, MULTICALL_RING.size + entries * _ENTRY.size)
        if not area.is_memory():
            return Error.BAD_ADDRESS
        if self.room.pages.collides(gpa, area.size):
            return Error.OVERLAP
        offsets = [
            MULTICALL_RING.size + (head + n & entries - 1) * _ENTRY.size for n in range(waiting)
        ]
        calls = [(at, _ENTRY.unpack(area.load(at, _ENTRY.size))) for at in offsets]
        return _Batch(area, header, bool(flags & MULTICALL_STOP), head, calls)

    def _one(self, cpu: Processor, words: tuple[int, ...]) -> int:
        number, a, b, c, d, e, f, _ = words
        row = CALLS.get(Call(number - TAG)) if number - TAG in CALLS else None
        if row is not None and row.alone:
            return -Error.NESTED
        return self.room.call(cpu, Hypercall(number, (a, b, c, d, e, f), wide=True))

    def _finish(self, cpu: Processor, batch: _Batch, done: int, failed: int, first: int) -> int:
        if batch.area.load(0, _HEADER.size) != batch.header:
            self.room.referee.report(Rule.CHANGED_BATCH, cpu, f"ring at {batch.area.gpa:#x}")
            return -Error.CHANGED
        batch.area.write(_AT["head"], 4, batch.head + done & _MASK32)
        batch.area.store(_AT["failed"], _REPORT.pack(failed, first))
        return done
