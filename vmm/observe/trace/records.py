"""Reading a trace file: entries, exits and notes in the order in which they happened.

The layout is cext/trace.c's. A file whose writer was killed is read as far as it was written; in a
ring of the newest segments the oldest that is left comes first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final, NamedTuple

from hwmodel.cpu.recording import HEADER_BYTES, SEGMENT_BYTES, Note
from vmm.errors import UsageError
from vmm.observe.trace.header import Header

_ENTER, _LEAVE, _TOLD = 1, 2, 3
_SEGMENT: Final = Struct("<QQ")
_WORD: Final = Struct("<Q")
_FORMS: Final = {  # by kind: bytes, and how its fields are packed
    _ENTER: Struct("<8xQQQIIQQQQ8Q"),
    _LEAVE: Struct("<8xQQQQQQQIIIIIIQQQQQQQQQ15sBIBB2x8Q"),
    _TOLD: Struct("<8xQQQQ"),
}


class Spent(NamedTuple):
    """Cycles by heading of the ledger since the last entry or exit of any vCPU."""

    guest: int
    walk: int
    exit: int
    entry: int
    hypervisor: int
    device: int
    injection: int
    idle: int


_SPENT: Final = -len(Spent._fields)


class Enter(NamedTuple):
    """A VM entry; `event` is the VM-entry interruption information, `gpr` RAX, RBX, RCX, RDX."""

    vcpu: int
    cycle: int
    instructions: int
    rip: int
    event: int
    error: int
    rax: int
    rbx: int
    rcx: int
    rdx: int
    spent: Spent


class Leave(NamedTuple):
    """A VM exit, or a stop of the engine's own (`reason` from 0x100 on)."""

    vcpu: int
    cycle: int
    instructions: int
    sequence: int
    reason: int
    qualification: int
    linear: int
    physical: int
    event: int
    event_error: int
    vectoring: int
    vectoring_error: int
    length: int
    instruction_info: int
    rip: int
    rax: int
    rbx: int
    rcx: int
    rdx: int
    rsi: int
    operand: int
    """The general register that a CR access names."""
    walks: int
    references: int
    code: bytes
    """15 bytes, of which `code_bytes` are valid."""
    code_bytes: int
    cs_base: int
    code_size: int
    cpl: int
    spent: Spent

    @property
    def left_at(self) -> int:
        """The cycle at which the guest was left: the price of an exit is booked at once."""
        return self.cycle - self.spent.exit - self.spent.hypervisor - self.spent.device

    @property
    def is_stop(self) -> bool:
        """Whether this is no exit of the architecture."""
        return self.reason & 0xFFFF >= 0x100


class Told(NamedTuple):
    """A note; `Note` says what a, b and c are."""

    vcpu: int
    note: Note
    cycle: int
    a: int
    b: int
    c: int


Record = Enter | Leave | Told


class Trace:
    """One trace file; iterate over it for its records, as often as needed."""

    def __init__(self, header: Header, data: "bytes | mmap") -> None:
        """Find the segments that were used."""
        self.header: Final = header
        self._data: Final = data
        self._segments: Final = sorted(self._find())

    @property
    def is_cut(self) -> bool:
        """Whether the oldest records are gone: a ring that went round."""
        return bool(self._segments) and self._segments[0][0] != 1

    def _find(self) -> Iterator[tuple[int, int, int]]:
        """Yield (number, first byte, end) of each segment."""
        for at in range(HEADER_BYTES, len(self._data) - _SEGMENT.size + 1, SEGMENT_BYTES):
            number, used = _SEGMENT.unpack_from(self._data, at)
            if number:
                yield number, at + _SEGMENT.size, min(at + min(used, SEGMENT_BYTES), self._end)

    @property
    def _end(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Record]:
        for _, at, end in self._segments:
            yield from self._records(at, end)

    def _records(self, at: int, end: int) -> Iterator[Record]:
        data = self._data
        while at + 16 <= end:
            (head,) = _WORD.unpack_from(data, at)
            kind, size, vcpu = head & 0xFF, (head >> 8 & 0xFF) * 8, head >> 16 & 0xFFFF
            form = _FORMS.get(kind)
            if form is None or size != form.size or at + size > end:
                return  # not of our making: the next segment may be
            fields = form.unpack_from(data, at)
            if kind == _LEAVE:
                yield Leave._make((vcpu, *fields[:_SPENT], Spent._make(fields[_SPENT:])))
            elif kind == _ENTER:
                yield Enter._make((vcpu, *fields[:_SPENT], Spent._make(fields[_SPENT:])))
            elif head >> 32 in _NOTES:
                yield Told(vcpu, _NOTES[head >> 32], *fields)
            at += size


_NOTES: Final = {int(note): note for note in Note}


@contextmanager
def opened(path: Path) -> Iterator[Trace]:
    """Open a trace file. Raises UsageError with one line if that cannot be."""
    try:
        file: BinaryIO = path.open("rb")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"trace {str(path)!r} cannot be read: {reason}; name a trace") from None
    with file:
        header = Header.unpack(file.read(HEADER_BYTES), str(path))
        with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
            yield Trace(header, data)
