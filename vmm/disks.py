"""One ``--disk`` option: a file and how it is shown to the guest."""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from vmm.errors import UsageError

SERIAL_LENGTH: Final = 20  # bytes: VIRTIO_BLK_ID_BYTES
QUEUES_MAX: Final = 16  # as many as there can be processors


class ImageFormat(StrEnum):
    """What the bytes of the file mean."""

    RAW = "raw"
    QCOW2 = "qcow2"


class TransportKind(StrEnum):
    """Where the guest finds a virtio device."""

    PCI = "pci"
    MMIO = "mmio"


class Speed(StrEnum):
    """Whose latencies the disk has (vmm.virtio.blk_timing)."""

    SSD = "ssd"
    HDD = "hdd"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk. ``format`` None: told from the content; ``serial`` "": ring1-N."""

    path: Path
    format: ImageFormat | None = None
    readonly: bool = False
    snapshot: bool = False
    transport: TransportKind = TransportKind.PCI
    packed: bool = False
    speed: Speed = Speed.SSD
    serial: str = ""
    queues: int = 1

    @classmethod
    def of(cls, text: "str | Path | Disk") -> "Disk":
        """Read "FILE[,format=raw|qcow2][,readonly][,snapshot]..."; a name that exists may contain
        commas. Raises UsageError for an option that is none.
        """
        if isinstance(text, Disk):
            return text
        if isinstance(text, Path) or Path(text).exists():
            return cls(Path(text))
        name, *options = text.split(",")
        if not name:
            raise UsageError(f"--disk {text!r} names no file; write FILE,option")
        disk = cls(Path(name))
        for option in options:
            disk = replace(disk, **_parse(text, option))
        return disk


_CHOICES: Final[dict[str, type[StrEnum]]] = {
    "format": ImageFormat,
    "transport": TransportKind,
    "speed": Speed,
}
_FLAGS: Final = ("readonly", "snapshot", "packed")


def _parse(text: str, option: str) -> dict[str, Any]:
    key, has_value, value = option.partition("=")
    if key in _FLAGS:
        return {key: _flag(text, key, value if has_value else "on")}
    if key == "serial":
        if not value or not value.isascii() or len(value) > SERIAL_LENGTH:
            raise UsageError(
                f"--disk {text!r}: {value!r} is no serial; give up to {SERIAL_LENGTH} letters"
            )
        return {key: value}
    if key == "queues":
        if not value.isascii() or not value.isdigit() or not 0 < int(value) <= QUEUES_MAX:
            raise UsageError(f"--disk {text!r}: {value!r} queues; give from 1 to {QUEUES_MAX}")
        return {key: int(value)}
    kind = _CHOICES.get(key)
    if kind is None:
        known = ", ".join([*(f"{name}=..." for name in (*_CHOICES, "serial", "queues")), *_FLAGS])
        raise UsageError(f"--disk {text!r}: {option!r} is not an option; the options are {known}")
    try:
        return {key: kind(value)}
    except ValueError:
        choices = ", ".join(kind)
        raise UsageError(
            f"--disk {text!r}: {key} {value!r} is not one of {choices}; choose one"
        ) from None


def _flag(text: str, key: str, value: str) -> bool:
    if value not in ("on", "off"):
        raise UsageError(f"--disk {text!r}: {key}={value} is neither on nor off; choose one")
    return value == "on"
