"""The head of a trace file: which machine it was, so that records can be told without it."""

import json
from dataclasses import asdict, dataclass, field
from typing import Final

from hwmodel.cpu.recording import HEADER_BYTES, VERSION
from vmm.errors import UsageError

MAGIC: Final = b"ring1 trace\0"
_FIXED: Final = len(MAGIC) + 4


@dataclass(frozen=True, slots=True)
class Place:
    """Addresses first .. last of a bus ("port", "memory") belong to a device."""

    bus: str
    first: int
    last: int
    device: str


@dataclass(frozen=True, slots=True)
class Header:
    """The machine; `frequency` is cycles in a second, `virtio` the devices by number."""

    frequency: int
    cpus: int
    image: str = ""
    technique: str = "vtx"
    timing: str = "fast"
    virtio: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    ledger: dict[str, int] = field(default_factory=dict)
    """Cycles by heading that passed while it was recorded; empty until that is over."""

    def pack(self) -> bytes:
        """Return HEADER_BYTES bytes; what is too much for them is left out, places first."""
        for head in (self, _without(self, "places"), _without(self, "places", "virtio")):
            text = json.dumps(asdict(head), separators=(",", ":")).encode()
            if len(text) < HEADER_BYTES - _FIXED:
                return (MAGIC + VERSION.to_bytes(4, "little") + text).ljust(HEADER_BYTES, b"\0")
        raise UsageError("the image's name is too long for a trace; give it a shorter one")

    @classmethod
    def unpack(cls, data: bytes, name: str) -> "Header":
        """Read what pack() wrote. Raises UsageError for anything else."""
        if not data.startswith(MAGIC):
            raise UsageError(f"{name!r} is not a trace of ring1; give a file that --trace wrote")
        version = int.from_bytes(data[len(MAGIC) : _FIXED], "little")
        if version != VERSION:
            raise UsageError(
                f"{name!r} is a trace of version {version}, this ring1 reads {VERSION}; "
                "convert it with the ring1 that wrote it"
            )
        if len(data) < HEADER_BYTES:
            raise UsageError(f"{name!r} is cut off within its header; record it again")
        try:
            fields = json.loads(data[_FIXED:].rstrip(b"\0"))
            places = tuple(Place(**place) for place in fields.pop("places"))
            return cls(**fields | {"virtio": tuple(fields["virtio"]), "places": places})
        except (ValueError, TypeError, KeyError):
            raise UsageError(f"{name!r} has a damaged header; record it again") from None


def _without(head: Header, *names: str) -> Header:
    kept = {name: getattr(head, name) for name in Header.__slots__ if name not in names}
    return Header(**kept)
