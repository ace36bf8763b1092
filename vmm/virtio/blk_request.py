"""One request to a disk: its header, its data, where its status goes."""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from vmm.virtio.blk_config import MAX_DISCARD, MAX_RANGES, MAX_ZEROES
from vmm.virtio.chain import Buffer, Chain

_HEADER: Final = Struct("<IIQ")  # type, reserved, sector
HEADER_SIZE: Final = _HEADER.size
SERIAL_SIZE: Final = 20


class RequestType(IntEnum):
    """What is asked for; the numbers are VIRTIO_BLK_T_*."""

    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8
    DISCARD = 11
    WRITE_ZEROES = 13


class RequestStatus(IntEnum):
    """The last byte that the device writes."""

    OK = 0
    IO_ERROR = 1
    UNSUPPORTED = 2


_TYPES: Final = {int(kind): kind for kind in RequestType}


@dataclass(frozen=True, slots=True)
class Request:
    """A chain, read as a request; `kind` is None for a type that is not known."""

    kind: RequestType | None
    sector: int
    chain: Chain

    @classmethod
    def of(cls, chain: Chain) -> "Request":
        """Read the header: `chain` has at least HEADER_SIZE readable bytes."""
        kind, _, sector = _HEADER.unpack(chain.readable.read(0, HEADER_SIZE))
        return cls(_TYPES.get(kind), sector, chain)

    @property
    def payload(self) -> Buffer:
        """What the driver gives, behind the header."""
        return self.chain.readable.cut(HEADER_SIZE)

    @property
    def answer(self) -> Buffer:
        """Where data for the driver goes, before the status byte."""
        return self.chain.writable.cut(0, self.chain.writable.size - 1)

    @property
    def most_ranges(self) -> int:
        """How many ranges a discard or write-zeroes request may list."""
        return MAX_RANGES

    @property
    def most_sectors(self) -> int:
        """How many sectors each of its ranges may have."""
        return MAX_ZEROES if self.kind is RequestType.WRITE_ZEROES else MAX_DISCARD
