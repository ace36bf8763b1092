"""What a network device asks of the other end of its cable.

Frames are Ethernet frames without preamble and checksum, `FRAME_MIN` to `FRAME_MAX` bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from vmm.devices.device import Clock
from vmm.host.sources import Descriptor

FRAME_MIN: Final = 14  # an Ethernet header (IEEE 802.3, "MAC frame format")
FRAME_MAX: Final = FRAME_MIN + 4 + 0xFFFF  # with a VLAN tag, around the largest IP packet
MTU_MIN, MTU_MAX = 68, 65521  # RFC 791's least; libslirp's IF_MTU_MAX


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a backend spares the guest.

    `segments`: it takes a TCP segment over IPv4 of up to 64 KiB in one frame. `trusted`: nobody
    could have damaged what it delivers, checksums need not be looked at.
    """

    segments: bool = False
    trusted: bool = False


def _nobody(_frame: bytes) -> None:
    """No device is plugged in."""


def _nothing() -> None:
    """Nobody asks for the next event."""


@dataclass(frozen=True, slots=True)
class Port:
    """The guest's end of the cable.

    `deliver` takes a frame for the guest, at any time; `rescheduled` hears that next_event()
    changed while no access of this guest was under way.
    """

    clock: Clock
    deliver: Callable[[bytes], None] = _nobody
    rescheduled: Callable[[], None] = _nothing


class Backend(Protocol):
    """The other end of a cable: a `HostSource` that may also have events of its own."""

    abilities: Abilities

    def plug_in(self, port: Port) -> None:
        """Deliver to `port` from now on."""

    def send(self, frame: bytes) -> None:
        """Take a frame from the guest; what cannot be sent is dropped."""

    def next_event(self) -> int | None:
        """Return the cycle at which something is due, or None."""

    def fire(self) -> None:
        """Do what is due."""

    def poll(self) -> bool:
        """Take in what the host has, without blocking; say whether the guest can notice."""

    def descriptors(self) -> Sequence[Descriptor]:
        """Return what to wait for."""

    def expects(self) -> bool:
        """Whether a frame may still come."""

    def close(self) -> None:
        """Let go of everything on the host."""
