"""The guest-physical memory map of every machine, and what boot protocols say about it.

0                 0x9fc00      usable
0x9fc00           0x100000     reserved: EBDA, video, option ROMs (RAM lies behind it)
0x100000          3 GiB        usable, as far as the memory goes
3 GiB             0xe0000000   not listed: PCI devices' memory
0xe0000000        0xe0100000   reserved: PCI configuration space
0xfec00000        4 GiB        reserved: I/O APIC, local APIC, messages
4 GiB             ...          usable: what did not fit below
"""

from dataclasses import dataclass
from enum import IntEnum

from vmm.boardmap import ECAM, IOAPIC_BASE

LOW_END = 0x9FC00
HIGH_START = 0x100000
HOLE_START = 3 << 30
HOLE_END = 4 << 30


class RegionType(IntEnum):
    """The type numbers that ACPI, multiboot and PVH share (ACPI, "Address Range Types")."""

    USABLE = 1
    RESERVED = 2


@dataclass(frozen=True, slots=True)
class Region:
    """A range of guest-physical addresses; ``end`` is the first address after it."""

    start: int
    end: int
    type: RegionType

    @property
    def size(self) -> int:
        """Return the size in bytes."""
        return self.end - self.start


def ram_slots(memory: int) -> tuple[tuple[int, int], ...]:
    """Return (gpa, size) of the RAM behind the map: one slot below the hole, one above."""
    low = min(memory, HOLE_START)
    slots: tuple[tuple[int, int], ...] = ((0, low),)
    if memory > low:
        slots += ((HOLE_END, memory - low),)
    return slots


def regions(memory: int) -> list[Region]:
    """Return the map for ``memory`` bytes (at least 1 MiB), sorted and without overlap."""
    top = min(memory, HOLE_START)
    found = [
        Region(0, LOW_END, RegionType.USABLE),
        Region(LOW_END, HIGH_START, RegionType.RESERVED),
        Region(HIGH_START, top, RegionType.USABLE),
        Region(*ECAM, RegionType.RESERVED),
        Region(IOAPIC_BASE, HOLE_END, RegionType.RESERVED),
        Region(HOLE_END, HOLE_END + memory - top, RegionType.USABLE),
    ]
    return [region for region in found if region.size > 0]


def usable(memory: int) -> list[Region]:
    """Return the regions that an image may be loaded into."""
    return [region for region in regions(memory) if region.type is RegionType.USABLE]


def lower_kib(memory: int) -> int:
    """Return the KiB of memory below 1 MiB (multiboot's ``mem_lower``)."""
    return min(memory, LOW_END) // 1024


def upper_kib(memory: int) -> int:
    """Return the KiB from 1 MiB up to the first hole (multiboot's ``mem_upper``)."""
    return (min(memory, HOLE_START) - HIGH_START) // 1024
