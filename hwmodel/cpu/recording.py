"""What a physical CPU writes down of its entries and exits: a file of records, sums, or both.

The C side is cext/trace.c; `vmm.observe.trace.records` reads the file. Nothing of it changes a run.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, Final

from hwmodel.cpu.unicorn import ffi, lib

HEADER_BYTES: Final[int] = lib.TRACE_HEADER
SEGMENT_BYTES: Final[int] = lib.TRACE_SEGMENT
VERSION: Final[int] = lib.TRACE_VERSION


class Note(IntEnum):
    """What software tells of, with the meaning of its three words."""

    PORT_IN = lib.NOTE_PORT_IN
    """port, size, value"""
    PORT_OUT = lib.NOTE_PORT_OUT
    """port, size, value"""
    MMIO_READ = lib.NOTE_MMIO_READ
    """guest-physical address, size, value"""
    MMIO_WRITE = lib.NOTE_MMIO_WRITE
    """guest-physical address, size, value"""
    ACCEPT = lib.NOTE_ACCEPT
    """a local APIC takes a message: delivery mode, vector, level-triggered"""
    EOI = lib.NOTE_EOI
    """a local APIC's end of interrupt: vector"""
    LINE = lib.NOTE_LINE
    """an interrupt line moves: line, level, source"""
    VIRTIO_NOTIFY = lib.NOTE_VIRTIO_NOTIFY
    """the driver made buffers available: device, queue"""
    VIRTIO_INTERRUPT = lib.NOTE_VIRTIO_INTERRUPT
    """the device used buffers and says so: device, queue"""
    KICK = lib.NOTE_KICK
    """a hypercall wakes another vCPU: that vCPU"""
    HALT = lib.NOTE_HALT
    """a vCPU sleeps"""
    WAKE = lib.NOTE_WAKE
    """a vCPU is runnable again"""
    SWITCH = lib.NOTE_SWITCH
    """the pCPU goes from one vCPU to another: from, to"""
    IDLE = lib.NOTE_IDLE
    """time passed without any vCPU running: cycles"""
    MSI = lib.NOTE_MSI
    """a message-signalled interrupt: address, data"""


class Event(IntEnum):
    """What a sum counts."""

    EXIT = 0
    """by exit reason: from the exit to the next entry of that vCPU"""
    MMIO = 1
    """by guest-physical address"""
    PORT = 2
    """by port"""


@dataclass(frozen=True, slots=True)
class Sum:
    """Times of one event on one vCPU, in cycles; `squares` is Welford's sum of squares."""

    event: Event
    key: int
    writes: bool
    vcpu: int
    count: int
    cycles: int
    least: int
    most: int
    mean: float
    squares: float


@dataclass(frozen=True, slots=True)
class Counters:
    """What was written and what was not; `error` is the errno of a file that takes no more."""

    records: int = 0
    lost: int = 0
    error: int = 0
    segments: int = 0
    sums_lost: int = 0
    injected_interrupts: int = 0
    injected_nmis: int = 0
    injected_exceptions: int = 0
    price: tuple[int, ...] = (0,) * 9
    """By heading of the ledger: what the last exit cost when it was made, and the last entry."""


class Recorder:
    """The tracer of one engine; make it with `Pcpu.recorder()`."""

    def __init__(self, native: Any) -> None:
        """Nothing is recorded yet."""
        self._native: Final = native

    def name(self, number: int, vcpu: Any) -> None:
        """Say which number a virtual CPU (a VMCS's `native`) has in records."""
        lib.engine_trace_vcpu(self._native, vcpu, number)

    def write_to(self, descriptor: int, segments: int = 0) -> None:
        """Write records to a file, behind its header; the newest `segments`, or all (0).

        The descriptor stays the caller's and must stay open. Raises OSError where no segment
        can be had at all.
        """
        if error := lib.engine_trace_start(self._native, descriptor, segments):
            raise OSError(error, os.strerror(error))

    def add_up(self) -> None:
        """Keep sums of what exits cost."""
        if error := lib.engine_sums_start(self._native):
            raise OSError(error, os.strerror(error))

    def derive(self, ram: Sequence[tuple[int, int]]) -> None:
        """Note plain port and memory accesses in C; `ram` are (start, end) of guest memory.

        For VT-x, where the exit and the decode assist tell all of them; others are still to be
        noted by software.
        """
        flat = [edge for piece in ram[:4] for edge in piece]
        lib.engine_trace_derive(self._native, flat + [0] * (8 - len(flat)))

    def sums(self) -> Iterator[Sum]:
        """Return the sums so far, in no order."""
        room = ffi.new("uint32_t *")
        cells = lib.engine_sums(self._native, room)
        for n in range(room[0]):
            if cells[n].count:
                yield _sum(cells[n])

    def note(self) -> Callable[[int, int, int, int, int], None]:
        """Return `note(kind, vcpu, a, b, c)`, for whoever has something to tell."""
        return partial(lib.engine_trace_note, self._native)

    def counters(self) -> Counters:
        """Return what was written and lost so far."""
        native = lib.engine_trace_counters(self._native)
        if native == ffi.NULL:
            return Counters()
        values = {name: getattr(native, name) for name in Counters.__slots__}
        return Counters(**values | {"price": tuple(native.price)})

    def settle(self) -> None:
        """Write what waits for the next entry: the run is over."""
        lib.engine_trace_settle(self._native)

    def stop(self) -> None:
        """Record nothing any more."""
        lib.engine_trace_stop(self._native)


def _sum(cell: Any) -> Sum:
    return Sum(
        Event(cell.event), cell.key, bool(cell.writes), cell.vcpu, cell.count, cell.cycles,
        cell.least, cell.most, cell.mean, cell.squares,
    )  # fmt: skip
