"""What a sequence starts and ends with, as bytes: the layout of guest_kernel/oracle/record.h.

A `State` becomes a record, a batch is a header page, code, and records; every machine that runs a
batch leaves the records as they ended, already without what the architecture leaves open.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CODE: Final = 0x1F00_0000
DATA: Final = 0x2000_0000
CODE_OFFSET: Final = 0x1000
RECORDS_OFFSET: Final = 0x80000
CODE_BYTES: Final = RECORDS_OFFSET - CODE_OFFSET
WINDOWS: Final = (0x400, 0xFC0, 0x1FC0, 0x2F80, 0x4000, 0x4800)
WINDOW_BYTES: Final = 128
SLOT: Final = 0x100
"""Bytes of code that each sequence has; the first begins so that every 16th crosses a page."""
FIRST_SLOT: Final = 0xF80
MOST: Final = (CODE_BYTES - FIRST_SLOT) // SLOT
"""Sequences of one batch."""
BREAKPOINT: Final = 3
PAGE_FAULT: Final = 14

_RECORD: Final = struct.Struct("<4I2Q16Q4Q512s768s")
RECORD_BYTES: Final = _RECORD.size
HEADER: Final = struct.Struct("<II")
DONE: Final = 2


@dataclass(frozen=True, slots=True)
class State:
    """Registers and memory before or after a sequence.

    `fx` is an FXSAVE image, `windows` the six windows of the data pages end to end. `vector` is 3
    where the sequence came to its end, `error` and `address` are the fault's.
    """

    bits: int
    rip: int
    gpr: tuple[int, ...]
    rflags: int
    fx: bytes
    windows: bytes
    vector: int = 0
    error: int = 0
    address: int = 0
    ran: int = 0
    end_mask: int = 0
    fault_mask: int = 0
    status_open: int = 0

    def pack(self) -> bytes:
        """Return the record."""
        return _RECORD.pack(
            self.bits, self.vector, self.error, self.ran, self.address, self.rip, *self.gpr,
            self.rflags, self.end_mask, self.fault_mask, self.status_open, self.fx, self.windows,
        )  # fmt: skip

    @classmethod
    def unpack(cls, record: bytes | memoryview) -> "State":
        """Read a record."""
        bits, vector, error, ran, address, rip, *rest = _RECORD.unpack(record)
        rflags, end_mask, fault_mask, status_open, fx, windows = rest[16:]
        return cls(
            bits, rip, tuple(rest[:16]), rflags, fx, windows, vector, error, address, ran,
            end_mask, fault_mask, status_open,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Program:
    """A sequence of instructions: their bytes, one each, and the state that it starts in."""

    instructions: tuple[bytes, ...]
    start: State

    @property
    def code(self) -> bytes:
        """Return the machine code."""
        return b"".join(self.instructions)


def slot_address(index: int) -> int:
    """Return where the code of a batch's sequence lies, linear."""
    return CODE + FIRST_SLOT + index % MOST * SLOT


def make_batch(sequences: Sequence[Program]) -> bytearray:
    """Return the memory of a batch of at most MOST sequences, each made for its slot."""
    assert len(sequences) <= MOST
    batch = bytearray(b"\xcc") * RECORDS_OFFSET
    batch[:CODE_OFFSET] = bytes(CODE_OFFSET)
    HEADER.pack_into(batch, 0, len(sequences), 0)
    for sequence in sequences:
        at = sequence.start.rip - CODE + CODE_OFFSET
        code = sequence.code
        batch[at : at + len(code)] = code
    batch += b"".join(sequence.start.pack() for sequence in sequences)
    return batch


def records_of(batch: bytes | bytearray | memoryview, count: int) -> bytes:
    """Return the records of a batch."""
    return bytes(batch[RECORDS_OFFSET : RECORDS_OFFSET + count * RECORD_BYTES])
