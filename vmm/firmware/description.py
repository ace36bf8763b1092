"""What the tables tell of, as values: what the board itself does not fix."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MmioDevice:
    """A virtio device announced by ACPI: its registers and its I/O APIC pin (level, high)."""

    base: int
    size: int
    gsi: int


@dataclass(frozen=True, slots=True)
class NumaNode:
    """Processors and memory ranges (first, first after) that are near each other."""

    cpus: tuple[int, ...]
    memory: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Description:
    """One machine. With `nodes` there are SRAT and SLIT; `distances[a][b]` is 10 for a == b.

    `has_mailbox` announces the wake-up mailbox.
    """

    cpus: int = 1
    mmio_devices: tuple[MmioDevice, ...] = ()
    nodes: tuple[NumaNode, ...] = ()
    distances: tuple[tuple[int, ...], ...] = ()
    has_mailbox: bool = False
