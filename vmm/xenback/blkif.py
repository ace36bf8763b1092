"""The words of a block ring (public/io/blkif.h, x86-64's layout): requests, segments, answers."""

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple, Self

SECTOR: Final = 512
ENTRIES: Final = 32
"""Requests on a ring of one page: the largest power of two that fits behind its header."""
ENTRY_BYTES: Final = 112
RING_AT: Final = 64
DIRECT_MAX: Final = 11
INDIRECT_MAX: Final = 256
"""Segments that an indirect request may list; 512 of them fit into a page."""
SEGMENT_BYTES: Final = 8
_REQUEST: Final = Struct("<BBH4xQQ")
_INDIRECT: Final = Struct("<BBH4xQQH2x8I")
_DISCARD: Final = Struct("<BBH4xQQQ")
_SEGMENT: Final = Struct("<IBBH")
_RESPONSE: Final = Struct("<QBxh")


class Operation(IntEnum):
    """BLKIF_OP_*."""

    READ = 0
    WRITE = 1
    BARRIER = 2
    FLUSH = 3
    DISCARD = 5
    INDIRECT = 6


class Answer(IntEnum):
    """BLKIF_RSP_*."""

    OKAY = 0
    ERROR = -1
    UNSUPPORTED = -2


class Segment(NamedTuple):
    """A grant, and the first and last sector in its page."""

    reference: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """Bytes."""
        return (self.last - self.first + 1) * SECTOR


def segments(data: bytes, count: int) -> list[Segment]:
    """Return the first `count` segments of a list."""
    found = (_SEGMENT.unpack_from(data, SEGMENT_BYTES * n) for n in range(count))
    return [Segment(reference, first, last) for reference, first, last, _ in found]


class Request(NamedTuple):
    """A request as it stood on the ring. `listed` is the grant that lists the segments of an
    indirect one; `amount` counts segments, or sectors of a discard.
    """

    operation: int
    identity: int
    sector: int
    amount: int
    listed: int | None
    direct: list[Segment]

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Read an entry of the ring; whatever is in it."""
        operation, count, _, identity, sector = _REQUEST.unpack_from(data)
        if operation == Operation.INDIRECT:
            _, inner, count, identity, sector, _, listed, *_ = _INDIRECT.unpack_from(data)
            return cls(inner, identity, sector, count, listed, [])
        if operation == Operation.DISCARD:
            *_, count = _DISCARD.unpack_from(data)
            return cls(operation, identity, sector, count, None, [])
        direct = segments(data[24:], count) if count <= DIRECT_MAX else []
        return cls(operation, identity, sector, count, None, direct)

    def answer(self, result: Answer) -> bytes:
        """Return the ring's words for an answer."""
        return _RESPONSE.pack(self.identity, self.operation, result)
