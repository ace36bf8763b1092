"""The words of the two network rings (public/io/netif.h): slots, and what a frame is made of."""

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final, NamedTuple

from vmm.net.backend import FRAME_MAX, FRAME_MIN
from vmm.pv.xen.abi import PAGE
from vmm.virtio.net_header import with_checksum

RING_AT: Final = 64
ENTRIES: Final = 256
"""Of each ring: the largest power of two whose slots fit behind the header."""
TX_BYTES, RX_BYTES = 12, 8
SLOTS_MAX: Final = 18  # XEN_NETIF_NR_SLOTS_MIN
TX_RESPONSE: Final = Struct("<Hh")
RX_REQUEST: Final = Struct("<HHI")
RX_RESPONSE: Final = Struct("<HHHh")
_TX: Final = Struct("<IHHHH")
_EXTRA: Final = Struct("<BBHBBH")
_GSO, _MORE_EXTRAS, _GSO_TCPV4 = 1, 1, 1
_ETHERNET, _TCP, _UDP = 14, 6, 17
_FIELD: Final = {_TCP: 16, _UDP: 6}
"""Where a header has its checksum."""


class TxFlag(IntFlag):
    """NETTXF_*."""

    CSUM_BLANK = 1
    DATA_VALIDATED = 2
    MORE_DATA = 4
    EXTRA_INFO = 8


class RxFlag(IntFlag):
    """NETRXF_*."""

    DATA_VALIDATED = 1
    CSUM_BLANK = 2
    MORE_DATA = 4
    EXTRA_INFO = 8


class Status(IntEnum):
    """NETIF_RSP_*."""

    NULL = 1
    OKAY = 0
    ERROR = -1
    DROPPED = -2


class Piece(NamedTuple):
    """A part of a frame: a grant, and where in its page."""

    reference: int
    offset: int
    flags: int
    identity: int
    size: int


class Packet(NamedTuple):
    """A frame as the ring has it: `extras` of its slots are no data; `sound`: it can be sent."""

    pieces: list[Piece]
    extras: int
    sound: bool

    @property
    def slots(self) -> int:
        """How much of the ring it takes."""
        return len(self.pieces) + self.extras


def packet(slots: list[bytes], *, segments: bool) -> Packet | None:
    """Read the frame at the start of `slots`; None if its end is not among them."""
    pieces, extras, sound = [Piece(*_TX.unpack(slots[0]))], 0, True
    more_extras = bool(pieces[0].flags & TxFlag.EXTRA_INFO)
    while more_extras:
        extras += 1
        if extras >= len(slots):
            return None
        kind, flags, _, gso, _, _ = _EXTRA.unpack(slots[extras][: _EXTRA.size])
        sound = sound and kind == _GSO and gso == _GSO_TCPV4 and segments
        more_extras = bool(flags & _MORE_EXTRAS)
    while pieces[-1].flags & TxFlag.MORE_DATA:
        if len(pieces) + extras >= len(slots):
            return None
        pieces.append(Piece(*_TX.unpack(slots[len(pieces) + extras])))
    first, rest = pieces[0], sum(piece.size for piece in pieces[1:])
    pieces[0] = first._replace(size=max(0, first.size - rest))
    within = all(piece.offset + piece.size <= PAGE for piece in pieces)
    whole = rest < first.size and FRAME_MIN <= first.size <= FRAME_MAX
    return Packet(pieces, extras, sound and within and whole and len(pieces) <= SLOTS_MAX)


def completed(frame: bytes, flags: int) -> bytes | None:
    """Put the checksum in that the guest left blank; None where there is no field for it."""
    if not flags & TxFlag.CSUM_BLANK:
        return frame
    if frame[12:14] != b"\x08\x00" or len(frame) < _ETHERNET + 20:
        return None
    field = _FIELD.get(frame[_ETHERNET + 9])
    start = _ETHERNET + 4 * (frame[_ETHERNET] & 15)
    return None if field is None else with_checksum(frame, start, field)
