"""What of a guest's frames libslirp gets to see: sound ARP, and whole IPv4 datagrams.

Everything else it would drop too, or misread: IPv6 is off, and of NC-SI a guest has no need.
"""

from typing import Final

from vmm.net.backend import FRAME_MAX
from vmm.net.fragments import Reassembler

IPV4, ARP = b"\x08\x00", b"\x08\x06"
_ETHERNET, _ARP_SIZE, _IP_SIZE = 14, 28, 20
_IPV4_ARP: Final = bytes.fromhex("0001 0800 06 04")  # RFC 826: Ethernet, IPv4, 6 and 4 bytes


def admitted(frame: bytes, fragments: Reassembler) -> bytes | None:
    """Return what to pass on for a frame of the guest, or None."""
    kind = frame[12:14]
    if kind == IPV4 and len(frame) <= FRAME_MAX and _is_sound(frame):
        return fragments.take(frame)
    if kind == ARP and len(frame) >= _ETHERNET + _ARP_SIZE and frame[14:20] == _IPV4_ARP:
        return frame
    return None


def _is_sound(frame: bytes) -> bool:
    """Whether the lengths of an IPv4 header agree with each other and with the frame."""
    packet = len(frame) - _ETHERNET
    if packet < _IP_SIZE or frame[14] >> 4 != 4:
        return False
    head, total = 4 * (frame[14] & 15), int.from_bytes(frame[16:18], "big")
    return _IP_SIZE <= head <= total <= packet
