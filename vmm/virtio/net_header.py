"""What stands before each frame (virtio 1.2, "Network Device: Device Operation"), and checksums."""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final, Self

from vmm.virtio.chain import Buffer

HEADER: Final = Struct("<BBHHHHH")  # flags, GSO type, header length, GSO size, start, offset, count
NEEDS_CSUM, DATA_VALID = 1, 2
_END_ROUND: Final = 0xFFFF


class Gso(IntEnum):
    """What a frame larger than the MTU is to be cut into."""

    NONE = 0
    TCPV4 = 1
    UDP = 3
    TCPV6 = 4


@dataclass(frozen=True, slots=True)
class Header:
    """The part of a transmitted frame's header that matters here; offsets in bytes."""

    flags: int
    gso: int
    start: int
    offset: int

    @classmethod
    def of(cls, chain: Buffer) -> Self | None:
        """Read it from the start of a chain; None if the chain is too short."""
        data = chain.read(0, HEADER.size)
        if len(data) < HEADER.size:
            return None
        flags, gso, _, _, start, offset, _ = HEADER.unpack(data)
        return cls(flags, gso, start, offset)


def received(flags: int, buffers: int) -> bytes:
    """Return the header of a received frame that lies in `buffers` buffers."""
    return HEADER.pack(flags, Gso.NONE, 0, 0, 0, 0, buffers)


def with_checksum(frame: bytes, start: int, offset: int) -> bytes | None:
    """Complete the Internet checksum over frame[start:], stored at start + offset (RFC 1071).

    The field holds the sum over the pseudo header already. None if it is not in the frame, or not
    one of the 16-bit words that are summed.
    """
    at = start + offset
    if at + 2 > len(frame) or offset % 2:
        return None
    even = frame[start:] + bytes(len(frame) - start & 1)
    # 2^16 is 1 modulo 2^16 - 1: the remainder of the whole number is the end-around-carry sum.
    total = int.from_bytes(even, "big") % _END_ROUND
    return b"".join((frame[:at], (_END_ROUND - total).to_bytes(2, "big"), frame[at + 2 :]))
